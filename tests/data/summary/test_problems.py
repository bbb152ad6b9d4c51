"""Warnings in the words of what the data are grouped by."""

import shutil

import pytest

from cxrfast.data.summary import summarize
from tests.data.summary.made_up import record, use_layout, write_image


@pytest.mark.parametrize(
    ("grouping", "shared", "duplicates"),
    [
        (
            "patient",
            "patients: 1; groups of identical images: 1",
            "groups of identical images of different patients: 1",
        ),
        ("study", "studies: 1; groups of identical images: 1", "groups of identical images of different studies: 1"),
        ("image", "groups of identical images: 1", "groups of identical images: 1"),
    ],
)
def test_words_follow_the_grouping(tmp_path, monkeypatch, grouping, shared, duplicates):
    for number, name in enumerate(("a.png", "b.png")):
        write_image(tmp_path / name, number)
    shutil.copy(tmp_path / "a.png", tmp_path / "c.png")
    made = [("a.png", "1", "train"), ("b.png", "1", "test"), ("c.png", "2", "test")]
    use_layout(
        monkeypatch, [record(tmp_path, name, "", who, split=part) for name, who, part in made], grouping=grouping
    )
    assert summarize(tmp_path)[1].warnings == (
        f"official split: leakage: train and test have in common: {shared}",
        f"{duplicates} (first: a.png and c.png); a split by {grouping} may put the same image into two parts",
    )


def test_data_without_problems_have_no_warning(tmp_path, monkeypatch):
    for number, name in enumerate(("a.png", "b.png")):
        write_image(tmp_path / name, number)
    shutil.copy(tmp_path / "a.png", tmp_path / "c.png")  # the same patient in the same part
    made = [("a.png", "1", "train"), ("b.png", "2", "test"), ("c.png", "1", "train")]
    use_layout(monkeypatch, [record(tmp_path, name, "", who, split=part) for name, who, part in made])
    assert summarize(tmp_path)[1].warnings == ()
