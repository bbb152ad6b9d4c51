"""The summary of whole data sets."""

import json
import shutil

import pytest

from cxrfast.data import DataOptions
from cxrfast.data.summary import DataSummary, summarize
from cxrfast.errors import CxrfastError
from tests.data.summary.made_up import record, use_layout, write_image

ALL = DataOptions(views="all")


def test_release(release):
    shutil.copy(release.root / "images" / "00000001_000.png", release.root / "other.png")
    (release.root / "images" / "00000001_001.png").unlink()
    source, found = summarize(release.root)
    assert [record.image for record in source.records] == ["00000001_000.png", "00000002_000.png", "00000003_000.png"]
    assert (found.layout, found.recognised_by, found.label_version) == ("chestxray14", "Data_Entry_2017.csv", "2017")
    assert (found.images, found.patients, found.studies) == (3, 3, None)
    assert (found.boxes, found.images_with_boxes) == (1, 1)
    by_name = {entry.name: entry for entry in found.classes}
    assert len(by_name) == 14
    assert (by_name["Infiltration"].positive, by_name["Infiltration"].negative) == (1, 2)
    assert (by_name["Infiltration"].boxes, by_name["Effusion"].boxes) == (1, 0)
    assert found.images_without_finding == 0
    assert (found.missing.count, found.missing.first) == (1, ("00000001_001.png",))
    assert (found.unlisted.count, found.unlisted.first) == (1, ("other.png",))
    assert [(part.name, part.images, part.boxes) for part in found.official_split.parts] == [
        ("train_val", 2, 1),
        ("test", 1, 0),
    ]
    assert found.official_split.shared == ()
    assert found.duplicates.groups == ()
    assert found.formats == {".png": 3}
    assert found.bytes == sum(record.path.stat().st_size for record in source.records)
    assert (found.sizes.distinct, found.sizes.largest.width) == (1, 64)
    assert (found.ages.median, found.sexes) == (58.0, {"M": 3})
    assert found.warnings == (
        "images without a file: 1 (first: 00000001_001.png); they are in none of the other numbers",
    )
    assert not any("layout" in note for note in found.notes)


def test_everything_that_can_be_wrong(tmp_path, monkeypatch):
    for number, name in enumerate(("a.png", "b.png", "c.png", "side.png")):
        write_image(tmp_path / name, number, width=8 + number)
    shutil.copy(tmp_path / "a.png", tmp_path / "copy.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "b.png").read_bytes()[:-20])
    known = frozenset({"Mass"})
    use_layout(
        monkeypatch,
        [
            record(tmp_path, "a.png", "Mass", "1", split="train", known=known, study="s1"),
            record(tmp_path, "b.png", "", "1", split="test", boxes={}, study="s2", view="PA"),
            record(tmp_path, "c.png", "Nodule", "2", split="train", boxes={"Nodule": ((0.1, 0.1, 0.5, 0.5),) * 2}),
            record(tmp_path, "side.png", "Edema", "3", view="lateral"),
            record(tmp_path, "copy.png", "", "4", split="test", age=7, sex="F"),
            record(tmp_path, "bad.png", "", "5"),
            record(tmp_path, "absent.png", "", "6"),
        ],
    )
    found = summarize(tmp_path)[1]
    assert (found.images, found.patients, found.studies) == (6, 5, 2)
    assert (found.views.frontal, found.views.lateral, found.views.unknown) == (1, 1, 4)
    assert [(c.positive, c.negative, c.unknown, c.images_with_boxes, c.boxes) for c in found.classes] == [
        (1, 5, 0, 0, 0),
        (1, 4, 1, 1, 2),
        (1, 4, 1, 0, 0),
    ]
    assert (found.images_without_finding, found.images_with_unknown_labels) == (3, 1)
    assert [entry.image for entry in found.unreadable] == ["bad.png"]
    assert "truncated" in found.unreadable[0].reason
    assert (found.sizes.smallest.width, found.sizes.largest.width, found.sizes.distinct) == (8, 11, 4)
    assert (found.missing.count, found.unlisted.count) == (1, 0)
    (group,) = found.duplicates.groups
    assert (group.images, group.different_labels, group.different_patients) == (("a.png", "copy.png"), ("Mass",), True)
    (pair,) = found.official_split.shared
    assert (pair.first, pair.second, pair.patients, pair.duplicates) == ("train", "test", 1, 1)
    assert [warning.split(":")[0] for warning in found.warnings] == [
        "unreadable images",
        "official split",
        "groups of identical images with contradictory labels",
        "groups of identical images of different patients",
        "images without a file",
    ]
    assert "leakage: train and test have in common: patients: 1; groups of identical images: 1" in found.warnings[1]
    assert found.notes == ("a note",)
    assert summarize(tmp_path, DataOptions())[1].views.lateral == 0
    assert summarize(tmp_path, DataOptions())[1].unlisted.count == 0
    without = summarize(tmp_path, hashes=False)[1]
    assert without.duplicates is None
    assert without.official_split.shared[0].duplicates is None


def test_verify_decodes_pixels(tmp_path, monkeypatch):
    import cv2

    write_image(tmp_path / "a.png", 1)
    cv2.imwrite(str(tmp_path / "b.bmp"), cv2.imread(str(tmp_path / "a.png"), 0))
    damaged = bytearray((tmp_path / "a.png").read_bytes())
    damaged[-20] ^= 255  # within the pixels' checksum
    (tmp_path / "bad.png").write_bytes(damaged)
    use_layout(monkeypatch, [record(tmp_path, name) for name in ("a.png", "b.bmp", "bad.png")])
    found = summarize(tmp_path)[1]
    assert (found.verified, len(found.unreadable), len(found.duplicates.groups)) == (False, 0, 0)
    found = summarize(tmp_path, verify=True)[1]
    assert found.duplicates.compared == "pixels"
    assert [group.images for group in found.duplicates.groups] == [("a.png", "b.bmp")]
    assert found.verified
    assert [entry.image for entry in found.unreadable] == ["bad.png"]


def test_json_is_whole_and_without_nan(tmp_path, monkeypatch):
    (tmp_path / "empty.png").touch()
    use_layout(monkeypatch, [record(tmp_path, "empty.png")], grouping="image", class_notes=["matched"])
    found = summarize(tmp_path)[1]
    found.save(tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert content["schema_version"] == 1
    assert content["ages"]["median"] is None
    assert content["sizes"]["smallest"] is None
    assert content["notes"] == ["a note", "matched"]
    assert DataSummary.model_validate(content) == found


def test_what_cannot_be_read_without_images_is_not_counted(tmp_path, monkeypatch):
    from cxrfast.data.datasets import registry

    write_image(tmp_path / "a.png", 1)
    use_layout(monkeypatch, [record(tmp_path, "a.png")])
    (layout,) = registry.LAYOUTS
    read = layout.read

    def strict(path, options):
        if not options.images_required:
            raise CxrfastError("boxes.csv, line 2: the image is needed")
        return read(path, options)

    monkeypatch.setattr(registry, "LAYOUTS", (type(layout)(**{**vars(layout), "read": strict}),))
    assert summarize(tmp_path)[1].missing is None


def test_no_data_is_one_line(tmp_path):
    with pytest.raises(CxrfastError, match="no folder or file"):
        summarize(tmp_path / "nowhere")


def test_unlisted_images_are_not_looked_for_in_folders_without_images_of_the_manifest(tmp_path):
    for seed, name in enumerate(("a/one.png", "b/c/two.png", "b/c/other.png", "elsewhere/three.png")):
        write_image(tmp_path / name, seed)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "manifest.csv").write_text("image,Mass\n../a/one.png,1\n../b/c/two.png,0\n")
    source, found = summarize(tmp_path / "tables", ALL)
    assert source.root == tmp_path
    assert (found.unlisted.count, found.unlisted.first) == (1, ("b/c/other.png",))
