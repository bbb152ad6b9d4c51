"""What readers share: images that a table names, their patients, and notes with counts."""

from pathlib import Path

import pytest

from cxrfast.data.datasets.shared.gathering import KnownSets, Places, counted, file_notes, group
from cxrfast.data.records import Record
from cxrfast.data.tables.image_files import ImageFiles
from cxrfast.errors import CxrfastError


def test_counted():
    assert counted((0, "rows"), (1, "images"), (2, "files", ["a", "b"]), (0, "others", [])) == [
        "images: 1",
        "files: 2 (first: a)",
    ]


@pytest.mark.parametrize(("required", "effect"), [(True, "left out"), (False, "kept without pixels")])
def test_file_notes(required, effect):
    files = ImageFiles(Path(), paths=["a.png", "b.png", "c.png"])
    assert file_notes(files, {"b.png"}, ["lost.png"], "table.csv", required=required) == [
        f"images of table.csv without a file, {effect}: 1 (first: lost.png)",
        "image files that are not in table.csv, left out: 2 (first: a.png)",
    ]
    assert file_notes(files, set(files.paths), [], "table.csv", required=required) == []


def test_places():
    places = Places(ImageFiles(Path("root"), paths=["images/a.png", "b.png"]), "table.csv")
    assert places.find("a.png", ["images"]) == ("images/a.png", Path("root/images/a.png"))
    assert places.find("c.png") is None
    with pytest.raises(CxrfastError, match="'a.png' and 'images/a.png' are the same file images/a.png; keep one"):
        places.find("images/a.png")
    assert [note.split(":")[0] for note in places.notes()] == [
        "images of table.csv without a file, left out",
        "image files that are not in table.csv, left out",
    ]


def record(image, patient="", study=None):
    return Record(image, Path(image), patient, frozenset(), study=study)


@pytest.mark.parametrize(
    ("records", "patients", "grouping"),
    [
        ([record("a", "1"), record("b", "2")], ["1", "2"], "patient"),
        ([record("a", "1"), record("b"), record("c", study="5")], ["1", "image b", "study 5"], "patient"),
        ([record("a", study="1"), record("b", study="1")], ["1", "1"], "study"),
        ([record("a", study="1"), record("b")], ["1", "b"], "image"),
    ],
)
def test_group(records, patients, grouping):
    notes = []
    grouped, found = group(records, notes)
    assert [one.patient for one in grouped] == patients
    assert found == grouping
    assert len(notes) == (any(not one.patient for one in records))


def test_equal_sets_are_one_object():
    shared = KnownSets()
    assert shared.share(["Mass", "Edema"]) is shared.share({"Edema", "Mass"})
