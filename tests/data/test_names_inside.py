"""No name in a table, a splits file or predictions leads out of the data folder."""

import csv
import json
from pathlib import Path

import pytest

from cxrfast.data import Splits, read_chestxray14
from cxrfast.data.folds import FoldSplits
from cxrfast.data.image_names import leaves_folder
from cxrfast.data.records import Record
from cxrfast.errors import CxrfastError
from cxrfast.predictions.table import COLUMNS, read_predictions
from tests.data.conftest import entry

OUTSIDE = (
    "../../private/secret.png",
    "a/../../secret.png",
    "..\\secret.png",
    "/etc/passwd.png",
    "\\\\server\\share\\a.png",
    "C:\\secret.png",
    "c:/secret.png",
    "..",
    " ../a.png",
    "a/.. /a.png",
    "a\0.png",
)
INSIDE = ("a.png", "a/b.png", "a..png", "..a.png", "...", "2024:01.png", "ab:c.png", "a/b:c")


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leaves_the_folder_is_no_record(name):
    assert leaves_folder(name)
    with pytest.raises(CxrfastError, match="expected a path inside the data folder") as caught:
        Record(name, Path("data/a.png"), "1", frozenset())
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", INSIDE)
def test_other_names_are_left_alone(name):
    assert not leaves_folder(name)
    assert Record(name, Path("data") / name, "1", frozenset()).image == name


@pytest.mark.parametrize("images_required", [True, False])
@pytest.mark.parametrize("name", [name for name in OUTSIDE if "\0" not in name])
def test_the_label_table_of_chestxray14(release, name, images_required):
    release.entries.append(entry(name, "No Finding", "77"))
    release.write()
    with pytest.raises(CxrfastError, match=r"Data_Entry_2017\.csv, line \d+: image .* expected a path inside"):
        read_chestxray14(release.root, images_required=images_required)


def test_splits_and_folds(tmp_path):
    path = tmp_path / "splits.json"
    for name in OUTSIDE:
        path.write_text(json.dumps({"train": ["a.png"], "val": [], "test": [name]}))
        with pytest.raises(CxrfastError, match=r"splits\.json, 'test': image .* expected a path inside"):
            Splits.load(path)
        folds = [{"test": ["a.png"], "val": []}, {"test": [name], "val": []}]
        path.write_text(json.dumps({"by": "patient", "folds": folds, "unannotated": []}))
        with pytest.raises(CxrfastError, match=r"splits\.json, 'test' of fold 1: image .* expected a path inside"):
            FoldSplits.load(path)


@pytest.mark.parametrize("name", [name for name in OUTSIDE if "\0" not in name])
def test_predictions(tmp_path, name):
    path = tmp_path / "predictions.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, [name, "1", "Mass", "0.5", "", "1", "0", "", ""]])
    with pytest.raises(CxrfastError, match=r"predictions\.csv: image .* expected a path inside"):
        read_predictions(path)
