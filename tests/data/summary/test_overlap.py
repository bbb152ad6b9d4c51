"""Splits: parts, leakage between them, and files of splits and folds."""

from pathlib import Path

from cxrfast.data import Splits, make_folds, make_splits
from cxrfast.data.records import Record
from cxrfast.data.summary.overlap import describe_duplicates, official_split, split_of_file

BOX = {"Mass": ((0.1, 0.1, 0.2, 0.2),)}


def record(image, patient, **more):
    return Record(image, Path(image), patient, frozenset(), **more)


def test_parts_of_a_file(tmp_path):
    records = [record("x/a.png", "1"), record("b.png", "1"), record("c.png", "2", boxes=BOX), record("d.png", "3")]
    splits = Splits(("a.png", "c.png"), ("c.png",), ("b.png", "gone.png"), 0, "patient")
    splits.save(tmp_path / "splits.json")
    same = describe_duplicates(records, [[0, 2], [1, 3]], "bytes")
    found = split_of_file(tmp_path / "splits.json", records, same)
    assert found.source == str(tmp_path / "splits.json")
    assert [(p.name, p.images, p.patients, p.images_with_boxes, p.boxes) for p in found.parts] == [
        ("train", 2, 2, 1, 1),
        ("val", 1, 1, 1, 1),
        ("test", 1, 1, 0, 0),
    ]
    assert (found.without_part, found.not_in_data.first, found.in_several_parts.first) == (1, ("gone.png",), ("c.png",))
    shared = {(pair.first, pair.second): (pair.patients, pair.duplicates) for pair in found.shared}
    assert shared == {("train", "val"): (1, 1), ("train", "test"): (1, 0)}


def test_splits_by_patient_share_nothing(tmp_path):
    records = [record(f"{n}.png", str(n // 3), boxes=BOX) for n in range(60)]
    make_splits(records, seed=0).save(tmp_path / "splits.json")
    assert split_of_file(tmp_path / "splits.json", records, None).shared == ()
    make_folds(records, folds=3, by="patient", seed=0).save(tmp_path / "folds.json")
    folds = split_of_file(tmp_path / "folds.json", records, None)
    assert [part.name for part in folds.parts] == [f"test of fold {n}" for n in range(3)]
    assert folds.shared == ()
    make_folds(records, folds=3, by="image", seed=0).save(tmp_path / "folds.json")
    assert split_of_file(tmp_path / "folds.json", records, None).shared


def test_official_parts_are_in_their_usual_order():
    records = [record(name, name, split=name) for name in ("test", "extra", "val", "train")]
    found = official_split([*records, record("z", "z")], None)
    assert [part.name for part in found.parts] == ["train", "val", "test", "extra"]
    assert found.without_part == 1
    assert official_split([record("z", "z")], None) is None


def test_unknown_labels_contradict_nothing():
    known = frozenset({"Nodule"})
    a, b = Record("a", Path("a"), "1", frozenset({"Mass"})), Record("b", Path("b"), "1", frozenset(), known=known)
    (group,) = describe_duplicates([a, b], [[0, 1]], "bytes").groups
    assert (group.different_labels, group.different_patients) == ((), False)
