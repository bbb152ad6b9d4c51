"""Splits by patient, their file, and everything a person can do to that file."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.data.datasets.chestxray14 import read_chestxray14
from cxrfast.data.labels import BOXED_CLASSES
from cxrfast.data.records import Record
from cxrfast.data.splits import PARTS, Splits, fractions_with, make_splits
from cxrfast.errors import CxrfastError, UsageError

BOX = ((0.1, 0.1, 0.5, 0.5),)


def make_records(images_of_patients, boxed=(), split=None):
    """One record per image; ``boxed`` are (patient, class)."""
    boxes = dict(boxed)
    return [
        Record(
            image=f"{patient:08d}_{number:03d}.png",
            path=Path("nowhere"),
            patient=str(patient),
            labels=frozenset({boxes[patient]} if patient in boxes else {"Mass"} if patient % 3 else ()),
            boxes={boxes[patient]: BOX} if patient in boxes and number == 0 else {},
            split=split,
        )
        for patient, count in enumerate(images_of_patients)
        for number in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 6), min_size=3, max_size=80),
    boxed=st.dictionaries(st.integers(0, 79), st.sampled_from(BOXED_CLASSES), max_size=20),
    seed=st.integers(0, 1000),
)
def test_every_image_once_every_patient_in_one_part(counts, boxed, seed):
    records = make_records(counts, boxed.items())
    splits = make_splits(records, seed=seed)
    splits.check(records)
    assert sorted(splits.train + splits.val + splits.test) == sorted(record.image for record in records)
    assert all(getattr(splits, part) for part in PARTS)
    shuffled = random.Random(seed).sample(records, len(records))
    assert make_splits(shuffled, seed=seed) == splits


@pytest.mark.parametrize("seed", range(5))
def test_shares_and_strata(seed):
    boxed = {patient: BOXED_CLASSES[patient % 8] for patient in range(80)}
    records = make_records([1 + patient % 4 for patient in range(1000)], boxed.items())
    splits = make_splits(records, seed=seed)
    for part, share in zip(PARTS, (0.7, 0.1, 0.2), strict=True):
        of_part = splits.part(part, records)
        assert len(of_part) / len(records) == pytest.approx(share, abs=0.02)
        for name in BOXED_CLASSES:
            count = sum(name in record.boxes for record in of_part)
            assert abs(count - 10 * share) <= 1.5, (part, name)


def test_few_boxes_reach_every_part():
    """14 boxed images of 400 patients, as in a small copy of ChestX-ray14; and 20 images in all."""
    for patients, with_box in ((400, 14), (20, 5)):
        boxed = {patient: BOXED_CLASSES[patient % 8] for patient in range(with_box)}
        records = make_records([1] * patients, boxed.items())
        for seed in range(10):
            splits = make_splits(records, seed=seed, fractions=(0.6, 0.2, 0.2))
            assert all(any(record.boxes for record in splits.part(part, records)) for part in PARTS)


def test_seeds_differ_and_repeat():
    records = make_records([1] * 50)
    assert make_splits(records, seed=1) == make_splits(records, seed=1)
    assert make_splits(records, seed=1).hash == make_splits(records, seed=1).hash
    assert make_splits(records, seed=1).hash != make_splits(records, seed=2).hash


def test_a_fraction_may_be_zero():
    splits = make_splits(make_records([1] * 10), seed=0, fractions=(0.5, 0.5, 0))
    assert splits.test == ()
    assert len(splits.train) == 5


@pytest.mark.parametrize("share", [0.0, 0.1, 0.125, 0.5])
def test_the_share_of_what_is_not_tested(share):
    fractions = fractions_with(share)
    assert sum(fractions) == pytest.approx(1)
    records = make_records([1 + patient % 4 for patient in range(400)])
    own = make_splits(records, seed=0, fractions=fractions)
    assert len(own.val) / len(own.train + own.val) == pytest.approx(share, abs=0.002)
    assert len(own.test) / len(records) == pytest.approx(0.2, abs=0.005)
    lists = [*make_records([1 + patient % 4 for patient in range(400)], split="train_val")]
    official = make_splits(lists, seed=0, fractions=fractions, strategy="official")
    assert len(official.val) / len(lists) == pytest.approx(share, abs=0.002)
    assert fractions_with(0.125) == (0.7, 0.1, 0.2)


def test_official_lists():
    records = make_records([2] * 20, split="train_val")
    test = make_records([2] * 25, {24: "Mass"}.items(), split="test")[40:]
    splits = make_splits(records + test, seed=0, strategy="official", label_version="2017")
    assert set(splits.test) == {record.image for record in test}
    assert len(splits.val) == 4 or len(splits.val) == 6
    assert "all 1 images with boxes" in splits.notes[0]
    with pytest.raises(CxrfastError, match="in no official list"):
        make_splits(make_records([1] * 5), seed=0, strategy="official")
    with pytest.raises(CxrfastError, match="nothing can be trained"):
        make_splits(test, seed=0, strategy="official")


def with_parts(**counts):
    """Patients with two images each in official parts."""
    records = []
    for part, count in counts.items():
        of_part = make_records([2] * count, split=part)
        records += [replace(one, image=f"{part}/{one.image}", patient=f"{part}{one.patient}") for one in of_part]
    return records


def names(records, *parts):
    return {record.image for record in records if record.split in parts}


def test_official_parts_with_validation_are_taken_as_they_are():
    records = with_parts(train=20, val=5, test=7)
    splits = make_splits(records, seed=0, strategy="official")
    assert [set(getattr(splits, part)) for part in PARTS] == [names(records, part) for part in PARTS]
    assert make_splits(records[::-1], seed=3, strategy="official", fractions=(0.4, 0.4, 0.2)).hash == splits.hash
    assert splits.strategy == "official"
    assert splits.notes == ("validation images are those of the official validation part, whatever the share",)
    without = make_splits(records, seed=0, strategy="official", fractions=fractions_with(0.0))
    assert set(without.train) == names(records, "train", "val")
    assert without.val == ()
    assert any("10 images of the official validation part train" in note for note in without.notes)


def test_official_parts_without_validation_or_test():
    records = with_parts(train=40, test=7)
    splits = make_splits(records, seed=0, strategy="official", fractions=fractions_with(0.25))
    assert set(splits.test) == names(records, "test")
    assert set(splits.train + splits.val) == names(records, "train")
    assert len(splits.val) == 20
    assert splits.notes == ()

    records = with_parts(train=40, val=7)
    splits = make_splits(records, seed=0, strategy="official", fractions=fractions_with(0.25))
    assert set(splits.test) == names(records, "val")
    assert len(splits.val) == 20
    assert "the 14 images of the official validation part are tested" in splits.notes[0]

    alone = make_splits(with_parts(train=4), seed=0, strategy="official")
    assert alone.test == ()
    assert "no image is tested" in alone.notes[0]


def test_a_part_named_train_is_split_as_train_val_is():
    """The same patients have the same parts under both names of the part."""
    old = make_records([1 + patient % 4 for patient in range(200)], split="train_val")
    new = [replace(record, split="train") for record in old]
    test = [replace(record, image="t" + record.image, patient="t") for record in make_records([3], split="test")]
    assert make_splits(old + test, seed=5, strategy="official") == make_splits(new + test, seed=5, strategy="official")


def test_official_parts_that_contradict():
    with pytest.raises(CxrfastError, match="official part is 'dev'"):
        make_splits(with_parts(train=3, dev=3), seed=0, strategy="official")
    with pytest.raises(CxrfastError, match="train_val and also train or val"):
        make_splits(with_parts(train_val=3, val=3, test=2), seed=0, strategy="official")
    with pytest.raises(CxrfastError, match="nothing can be trained"):
        make_splits(with_parts(val=3, test=2), seed=0, strategy="official")
    shared = [replace(record, patient="same") for record in with_parts(train=2, val=1, test=1)]
    with pytest.raises(CxrfastError, match="patient same in train and in"):
        make_splits(shared, seed=0, strategy="official")


@pytest.mark.parametrize(("grouping", "plural"), [("study", "studies"), ("image", "images")])
def test_data_sets_without_patients(grouping, plural, tmp_path):
    records = make_records([1 if grouping == "image" else 2] * 30)
    splits = make_splits(records, seed=0, grouping=grouping)
    assert splits.strategy == grouping
    assert splits.hash == make_splits(records, seed=0).hash
    assert splits.notes == (
        f"split by {grouping}, as the data set names no patients: {plural} of one patient may be in two parts",
    )
    splits.save(tmp_path / "splits.json")
    assert Splits.load(tmp_path / "splits.json") == splits
    with pytest.raises(CxrfastError, match=f"2 {plural} cannot be split into 3 parts"):
        make_splits(make_records([1, 1]), seed=0, grouping=grouping)
    official = make_splits(
        [replace(one, split="train") for one in records], seed=0, strategy="official", grouping=grouping
    )
    assert official.strategy == "official"
    assert any(f"split by {grouping}" in note for note in official.notes)


def test_a_study_in_two_parts_is_called_a_study():
    records = make_records([2, 1])
    spoilt = Splits((records[0].image,), (records[1].image,), (records[2].image,), 0, "study")
    with pytest.raises(CxrfastError, match="study 0 in train and in val"):
        spoilt.check(records)


def test_file_round_trip(tmp_path):
    records = make_records([1] * 30)
    splits = make_splits(records, seed=3, label_version="2017")
    splits.save(tmp_path / "splits.json")
    loaded = Splits.load(tmp_path / "splits.json")
    assert loaded == splits
    assert loaded.hash == splits.hash
    assert [path.name for path in tmp_path.iterdir()] == ["splits.json"]
    with pytest.raises(CxrfastError, match="cannot be written"):
        splits.save(tmp_path / "splits.json" / "below.json")


def test_hash_sees_a_moved_image_but_not_the_order():
    splits = Splits(("a", "b"), ("c",), ("d",), 0, "patient")
    assert Splits(("b", "a"), ("c",), ("d",), 1, "patient").hash == splits.hash
    assert Splits(("a",), ("b", "c"), ("d",), 0, "patient").hash != splits.hash


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[:-10], r"splits\.json, line \d+: not JSON"),
        (lambda text: "[]", "holds a list"),
        (lambda text: json.dumps({"train": [], "val": []}), "has no 'test'"),
        (lambda text: json.dumps({"train": "a", "val": [], "test": []}), "'train' is not a list"),
        (lambda text: json.dumps({"train": [1], "val": [], "test": []}), "'train' is not a list"),
    ],
)
def test_malformed_file(tmp_path, spoil, message):
    path = tmp_path / "splits.json"
    make_splits(make_records([1] * 5), seed=0).save(path)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(CxrfastError, match=message):
        Splits.load(path)
    with pytest.raises(CxrfastError, match="no splits file"):
        Splits.load(tmp_path / "absent.json")


def test_check_finds_what_leaks():
    records = make_records([2, 1, 1])
    first, second, third, fourth = (record.image for record in records)
    with pytest.raises(CxrfastError, match="patient 0 in train and in test"):
        Splits((first,), (third,), (second,), 0, "patient").check(records)
    with pytest.raises(CxrfastError, match=f"{third} twice"):
        Splits((first, second, third), (third,), (fourth,), 0, "patient").check(records)
    with pytest.raises(CxrfastError, match="1 images that the data set lacks"):
        Splits((first, second), ("absent.png",), (fourth,), 0, "patient").check(records)
    Splits((first, second), (third,), (), 0, "patient").check(records)


def test_wrong_use():
    records = make_records([1] * 5)
    with pytest.raises(UsageError, match="strategy is 'image'"):
        make_splits(records, seed=0, strategy="image")
    for fractions in ((0.5, 0.2, 0.2), (1.1, -0.1, 0.0), (0.0, 0.5, 0.5)):
        with pytest.raises(UsageError, match="fractions"):
            make_splits(records, seed=0, fractions=fractions)
    with pytest.raises(CxrfastError, match="2 patients cannot be split"):
        make_splits(records[:2], seed=0)
    with pytest.raises(CxrfastError, match="twice"):
        make_splits(records + records[:1], seed=0)
    with pytest.raises(UsageError, match="split is 'valid'"):
        make_splits(records, seed=0).part("valid", records)


def test_real_partial_copy(real_data):
    data = read_chestxray14(real_data / "nih")
    for seed in range(3):
        splits = make_splits(data.records, seed=seed, label_version=data.label_version)
        boxed = [sum(bool(record.boxes) for record in splits.part(part, data.records)) for part in PARTS]
        sizes = [len(getattr(splits, part)) / 515 for part in PARTS]
        assert sizes == pytest.approx([0.7, 0.1, 0.2], abs=0.02)
        assert min(boxed) >= 1, boxed
        assert boxed[0] >= 8
    official = make_splits(data.records, seed=0, strategy="official")
    assert "all 14 images with boxes" in official.notes[0]


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.1, (77_872, 8_652, 25_596)),  # Zhang et al. print 77,821, 8,703 and 25,596: 10.06 % of the 86,524
        (0.125, (75_708, 10_816, 25_596)),  # 70 %, 10 % and 20 %
        (0.0, (86_524, 0, 25_596)),
    ],
)
def test_the_parts_of_the_published_lists(real_data, share, expected):
    data = read_chestxray14(real_data / "nih", images_required=False)
    if len(data.records) < 112_120:
        pytest.skip("the whole tables of ChestX-ray14 are not there")
    for seed in range(2):
        splits = make_splits(data.records, seed=seed, fractions=fractions_with(share), strategy="official")
        sizes = [len(getattr(splits, part)) for part in PARTS]
        assert sizes == pytest.approx(expected, abs=2)
        assert sum(sizes) == 112_120
    own = make_splits(data.records, seed=0, fractions=fractions_with(share))
    assert len(own.val) == pytest.approx(share * len(own.train + own.val), abs=2)
