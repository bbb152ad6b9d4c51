"""Folds of a cross-validation: what they promise about patients, and what a person can do to the file."""

import json
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cxrfast.data import BOXED_CLASSES, FoldSplits, make_folds, read_chestxray14
from cxrfast.errors import CxrfastError, UsageError
from tests.data.test_splits import BOX, make_records


def images(records):
    return {record.image for record in records}


def patients(names, records):
    by_name = {record.image: record.patient for record in records}
    return {by_name[name] for name in names}


@st.composite
def data_sets(draw):
    """Patients with one to five images, some of which have boxes of one or two classes."""
    counts = draw(st.lists(st.integers(1, 5), min_size=4, max_size=50))
    boxed = draw(st.sets(st.integers(0, len(counts) - 1), min_size=4))
    seed = draw(st.integers(0, 1000))
    random_ = random.Random(seed)
    classes = BOXED_CLASSES[: draw(st.integers(1, 8))]
    return [
        replace(record, boxes=dict.fromkeys(random_.sample(classes, min(len(classes), random_.choice([1, 1, 2]))), BOX))
        if int(record.patient) in boxed and (record.image.endswith("_000.png") or random_.random() < 0.3)
        else record
        for record in make_records(counts)
    ]


@settings(max_examples=80, deadline=None)
@given(
    records=data_sets(),
    folds=st.integers(2, 6),
    by=st.sampled_from(["patient", "image"]),
    fraction=st.floats(0, 1),
    validation=st.sampled_from([0.0, 0.125, 0.4]),
    seed=st.integers(0, 99),
)
def test_every_annotated_image_is_held_out_once_and_its_patient_leaves_every_pool(
    records, folds, by, fraction, validation, seed
):
    boxed = images(record for record in records if record.boxes)
    groups = patients(boxed, records) if by == "patient" else boxed
    assume(len(groups) > folds)
    try:
        made = make_folds(records, folds=folds, by=by, unannotated=fraction, validation=validation, seed=seed)
    except CxrfastError as error:  # one patient has so many of the images that a single other one is left to train
        if "1 patients cannot be split into 2 parts" not in str(error):
            raise
        assume(False)
    others = images(records) - boxed
    assert sorted(image for fold in made.folds for image in fold.test) == sorted(boxed)
    assert set(made.unannotated) <= others
    assert len(made.unannotated) == round(fraction * len(others))
    pool = boxed | set(made.unannotated)
    for number, fold in enumerate(made.folds):
        assert fold.test
        splits = made.splits(number, records)
        parts = [set(splits.train), set(splits.val), set(splits.test)]
        assert splits.train
        assert bool(splits.val) == (validation > 0)
        assert set(splits.test) == set(fold.test)
        assert sum(map(len, parts)) == len(set.union(*parts))
        if by == "image":
            assert set.union(*parts) == pool
        else:
            of_parts = [patients(part, records) for part in parts]
            assert sum(map(len, of_parts)) == len(set.union(*of_parts))
            # Nobody else has to leave: what is missing belongs to those who are held out
            assert pool - set.union(*parts) == {i for i in pool - parts[2] if patients([i], records) <= of_parts[2]}
    shuffled = random.Random(seed).sample(records, len(records))
    again = make_folds(shuffled, folds=folds, by=by, unannotated=fraction, validation=validation, seed=seed)
    assert again == made
    assert any("none for validation" in note for note in made.notes) == (validation == 0)
    made.check(records)


def test_a_smaller_fraction_of_the_unannotated_images_is_part_of_a_larger_one():
    records = make_records([2] * 40, dict.fromkeys(range(10), "Mass").items())
    small, large = (set(make_folds(records, folds=5, unannotated=f, seed=1).unannotated) for f in (0.2, 0.5))
    assert small < large
    assert small != set(make_folds(records, folds=5, unannotated=0.2, seed=2).unannotated)


@settings(max_examples=60, deadline=None)
@given(
    records=data_sets(),
    folds=st.integers(2, 6),
    by=st.sampled_from(["patient", "image"]),
    validation=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 99),
)
def test_of_all_images_each_is_held_out_once(records, folds, by, validation, seed):
    assume(len(patients(images(records), records)) > folds)
    try:
        made = make_folds(records, folds=folds, by=by, of="all", validation=validation, seed=seed)
    except CxrfastError as error:  # as above
        if "1 patients cannot be split into 2 parts" not in str(error):
            raise
        assume(False)
    assert made.unannotated == ()
    assert sorted(image for fold in made.folds for image in fold.test) == sorted(images(records))
    for number in range(folds):
        parts = made.splits(number, records)
        everybody = [*parts.train, *parts.val, *parts.test]
        assert sorted(everybody) == sorted(images(records))  # nobody is left out, as nobody is on two sides
        if by == "patient":
            assert not patients(parts.test, records) & patients(parts.train + parts.val, records)
    made.check(records)


def test_folds_of_all_images_are_even_in_the_classes_of_the_labels(tmp_path):
    names = ["Hernia"] * 10 + ["Mass"] * 50 + [""] * 140
    records = [
        replace(record, labels=frozenset({name} - {""}), boxes={})
        for record, name in zip(make_records([1] * 200), names, strict=True)
    ]
    made = make_folds(records, folds=5, of="all", seed=1)
    label = {record.image: next(iter(record.labels), "") for record in records}
    for fold in made.folds:
        counts = Counter(label[image] for image in fold.test)
        assert (counts["Hernia"], counts["Mass"], counts[""]) == (2, 10, 28)
    made.save(tmp_path / "splits.json")
    assert FoldSplits.load(tmp_path / "splits.json") == made
    with pytest.raises(UsageError, match="no image of the data set has a box"):
        make_folds(records, folds=5)


def test_wrong_use():
    records = make_records([2] * 12, dict.fromkeys(range(4), "Mass").items())
    for options, message in (
        ({"folds": 1}, "folds: expected 2 or more, got 1"),
        ({"folds": 5}, "folds: 5 are more than the 4 patients with boxes; choose 4 or fewer"),
        ({"folds": 2, "by": "box"}, "folds-by is 'box'; expected patient or image"),
        ({"folds": 2, "of": "none"}, "folds-of is 'none'; expected boxes or all"),
        ({"folds": 2, "of": "all", "unannotated": 0.5}, "unannotated: folds of all images have none beside them"),
        ({"folds": 13, "of": "all"}, "folds: 13 are more than the 12 patients; choose 12 or fewer"),
        ({"folds": 2, "unannotated": 1.5}, "unannotated: expected a fraction from 0 to 1, got 1.5"),
        ({"folds": 2, "validation": 1}, "validation: expected a share from 0 to below 1, got 1"),
    ):
        with pytest.raises(UsageError, match=message):
            make_folds(records, **options)
    with pytest.raises(UsageError, match="no image of the data set has a box.*--folds-of all"):
        make_folds(make_records([1] * 12), folds=2)


def test_file_round_trip(tmp_path):
    records = make_records([2] * 12, dict.fromkeys(range(6), "Mass").items())
    made = make_folds(records, folds=3, seed=4, label_version="2017")
    made.save(tmp_path / "splits.json")
    assert FoldSplits.load(tmp_path / "splits.json") == made


@pytest.fixture
def edited(tmp_path):
    """Six patients of two images, the first of them boxed, in three folds: change the file, read it again."""
    records = make_records([2] * 12, dict.fromkeys(range(6), "Mass").items())
    path = tmp_path / "splits.json"
    make_folds(records, folds=3, seed=4).save(path)
    content = json.loads(path.read_text())

    def read():
        path.write_text(json.dumps(content))
        splits = FoldSplits.load(path)
        splits.check(records)
        return splits

    return content, read, records


def test_a_person_may_move_images_about(edited):
    content, read, _ = edited
    before = read().hash
    moved = content["folds"][0]["test"].pop()
    for fold in content["folds"]:
        fold["val"] = [image for image in fold["val"] if image[:8] != moved[:8]]
    content["folds"][1]["test"].append(moved)
    assert moved in read().folds[1].test
    assert read().hash != before
    first = read().hash
    content["folds"][1]["test"].reverse()
    content["notes"] = ["moved one"]
    assert read().hash == first


def test_edits_that_leak_or_contradict_themselves_are_one_line(edited):
    content, read, _ = edited
    good = json.dumps(content)
    held_out = content["folds"][0]["test"][0]
    second = held_out.replace("_000", "_001")  # the patient's other image

    def fails(message):
        with pytest.raises(CxrfastError, match=message) as failure:
            read()
        assert "\n" not in str(failure.value)
        content.clear()
        content.update(json.loads(good))

    content["unannotated"].remove(second)
    content["folds"][1]["test"].append(second)
    fails(f"hold out patient {int(held_out[:8])} in fold 0 and in fold 1; keep all images of a patient")
    content["folds"][0]["val"].append(second)
    fails(f"fold 0: the splits have patient {int(held_out[:8])} in val and in test")
    val = content["folds"][0]["val"][0]
    content["folds"][0]["val"] = [val]
    if val.endswith("_000.png"):
        fails(f"fold 0: the splits have patient {int(val[:8])} in train and in val")
    content["folds"][0]["val"].append(held_out)
    fails("fold 0: the splits name image .* twice")
    content["folds"][0]["val"].append(val)
    fails(f"fold 0 of the splits: 'val' has image {val} twice; remove one of the two")
    content["folds"][2]["test"].append(held_out)
    fails(f"name image {held_out} twice .'test' of fold 0 and 'test' of fold 2.; remove one")
    content["unannotated"].append(held_out)
    fails(f"image {held_out}, which has a box, under 'unannotated'")
    content["unannotated"].append("absent.png")
    fails("name image absent.png .'unannotated'., which the data set lacks")
    content["folds"][2]["test"] = []
    fails("fold 2 of the splits holds out no image")
    dropped = content["folds"][0]["val"][0]
    content["unannotated"] = [image for image in content["unannotated"] if image != dropped]
    for fold in content["folds"]:
        fold["test"] = [image for image in fold["test"] if image != dropped]
    fails(f"'val' has image {dropped}, which no 'test' and not 'unannotated'")
    for key, value, message in (
        ("by", "box", "'by' is 'box'; write"),
        ("folds", [{}], "'folds' is not a list of two or more"),
        ("folds", [{"test": "a", "val": []}] * 2, "'test' of fold 0 is not a list of strings"),
        ("unannotated", [1], "'unannotated' is not a list of strings"),
        ("seed", "a", "'seed' is 'a'"),
    ):
        content[key] = value
        fails(message)
    del content["by"]
    fails("has no 'by'; it is not the splits.json of a cross-validation")


def test_malformed_file(tmp_path):
    path = tmp_path / "splits.json"
    with pytest.raises(CxrfastError, match="no splits file"):
        FoldSplits.load(path)
    path.write_text("{")
    with pytest.raises(CxrfastError, match=r"splits\.json, line 1: not JSON"):
        FoldSplits.load(path)
    path.write_text("[]")
    with pytest.raises(CxrfastError, match="holds a list"):
        FoldSplits.load(path)


@pytest.fixture(scope="module")
def released(real_data):
    data = read_chestxray14(real_data / "nih", images_required=False)
    if sum(bool(record.boxes) for record in data.records) < 880:
        pytest.skip("the whole tables of ChestX-ray14 are not there")
    return data


@pytest.mark.parametrize(("by", "validation"), [("patient", 0.125), ("image", 0.125), ("image", 0.0)])
def test_the_released_boxes(released, by, validation):
    """880 images of 726 patients in five folds: 80 % and 20 % of every class, as the papers have it."""
    data = released
    made = make_folds(data.records, folds=5, by=by, unannotated=0.05, validation=validation, seed=0)
    boxes = {record.image: record.boxes for record in data.records}
    total = Counter(name for of in boxes.values() for name in of)
    assert len(made.unannotated) == round(0.05 * 111240)
    for number, fold in enumerate(made.folds):
        assert abs(len(fold.test) - 176) <= 2
        held_out = Counter(name for image in fold.test for name in boxes[image])
        for name in BOXED_CLASSES:
            assert abs(held_out[name] / total[name] - 0.2) < 0.05, (name, held_out)
        splits = made.splits(number, data.records)
        shared = patients(splits.test, data.records) & patients(splits.train + splits.val, data.records)
        assert bool(shared) == (by == "image")
        annotated = sum(bool(boxes[image]) for image in splits.train + splits.val)
        assert annotated == 880 - len(fold.test)
        training = sum(bool(boxes[image]) for image in splits.train)
        assert training == annotated if not validation else training == pytest.approx(0.7 * 880, abs=12)


@pytest.mark.parametrize("grouping", ["study", "image"])
def test_folds_of_data_without_patients_say_so(grouping):
    records = make_records([1] * 12, dict.fromkeys(range(8), "Mass").items())
    made = make_folds(records, folds=2, grouping=grouping)
    assert f"folds are by {grouping}, as the data set names no patients" in made.notes
    assert made.folds == make_folds(records, folds=2).folds
    assert not any("names no patients" in note for note in make_folds(records, folds=2).notes)
    assert not any("names no patients" in note for note in make_folds(records, folds=2, by="image").notes)
