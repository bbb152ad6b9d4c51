"""What is written as a manifest or as COCO is read back as the same records."""

import math
from pathlib import Path

import numpy as np
import pytest

from cxrfast.data.datasets.interface import DataOptions, DataSource
from cxrfast.data.datasets.registry import read_data
from cxrfast.data.datasets.writing import write_coco, write_manifest
from cxrfast.data.records import Record
from cxrfast.errors import CxrfastError, UsageError

CLASSES = ("Mass", "Pleural Thickening", "Rib, fracture")
WRITERS = {"manifest.csv": write_manifest, "mine.csv": write_manifest, "coco.json": write_coco}


@pytest.fixture
def source(tmp_path, make_image) -> DataSource:
    root = tmp_path / "data"
    every, some = frozenset(CLASSES), frozenset(CLASSES[:2])
    third = (1 / 3, 0.1, 2 / 3, 0.7)
    images = {
        "images/a.png": {
            "patient": "1",
            "study": "s1",
            "labels": frozenset({"Mass", "Rib, fracture"}),
            "known": every,
            "boxes": {"Mass": (third, (0.0, 0.0, 1.0, 1.0))},
            "split": "train",
            "view": "PA",
            "age": 58,
            "sex": "F",
        },
        "images/b.png": {"patient": "1", "labels": frozenset(), "known": some, "split": "val", "view": "lateral"},
        "images/sub/ä b.jpg": {"patient": "x-2", "labels": frozenset(), "known": frozenset(), "split": "test"},
        "c.png": {"patient": "3", "labels": frozenset({"Mass"}), "known": frozenset({"Mass"})},
    }
    records = tuple(Record(name, make_image(name, 123, 77, root=root), **of) for name, of in images.items())
    return DataSource(root, "folders", records, CLASSES, "x")


def check_equal(found: DataSource, source: DataSource) -> None:
    assert found.class_names == source.class_names
    assert found.grouping == source.grouping
    assert len(found.records) == len(source.records)
    for new, old in zip(found.records, source.records, strict=True):
        for field in ("image", "patient", "study", "split", "view", "age", "sex", "labels"):
            assert getattr(new, field) == getattr(old, field), (new.image, field)
        assert new.path.resolve() == old.path.resolve()
        for name in source.class_names:
            same = new.label(name) == old.label(name) or (math.isnan(new.label(name)) and math.isnan(old.label(name)))
            assert same, (new.image, name)
        assert new.boxes.keys() == old.boxes.keys()
        for name, boxes in old.boxes.items():
            for box, other in zip(new.boxes[name], boxes, strict=True):
                assert box == pytest.approx(other, abs=1e-9)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("place", ["data", "data/tables", ".", "other/folder"])
def test_round_trip(source, tmp_path, name, place):
    path = tmp_path / place / name
    written = WRITERS[name](source, path)
    assert all(file.is_file() for file in written)
    check_equal(read_data(path, DataOptions(views="all")), source)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("seed", range(15))
def test_round_trip_of_random_records(tmp_path, make_image, name, seed):
    random = np.random.default_rng(seed)
    names = ("Mass", "Nodule/Mass", "Ground glass; opacity", "Büschel|x", "Lung Opacity")[: random.integers(1, 6)]
    records = []
    for number in range(random.integers(1, 8)):
        image = f"{random.choice(['a', 'b/c', ''])}/{number}.png".lstrip("/")
        path = make_image(image, int(random.integers(5, 900)), int(random.integers(5, 900)), root=tmp_path / "data")
        known = {of for of in names if random.random() < 0.7}
        labels = {of for of in known if random.random() < 0.5}
        boxes = {}
        for of in sorted(labels):
            corners = np.sort(random.random((int(random.integers(0, 3)), 2, 2)), axis=1).reshape(-1, 4)
            if len(corners):
                boxes[of] = tuple(tuple(box) for box in corners.tolist())
        split, view = random.choice(["train", "val", "test", ""]), random.choice(["PA", "AP", "lateral", "oblique", ""])
        records.append(
            Record(
                image,
                path,
                str(random.integers(0, 4)),
                frozenset(labels),
                boxes,
                view=str(view) or None,
                age=int(random.integers(0, 100)) if random.random() < 0.5 else None,
                sex=str(random.choice(["M", "F", ""])) or None,
                split=str(split) or None,
                study=f"1.2.{number}" if random.random() < 0.5 else None,
                known=frozenset(known),
            )
        )
    source = DataSource(tmp_path / "data", "folders", tuple(records), names, "x")
    place = tmp_path / random.choice(["data", "elsewhere"]) / name
    WRITERS[name](source, place)
    check_equal(read_data(place, DataOptions(views="all")), source)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("grouping", ["study", "image"])
def test_round_trip_without_patients(source, tmp_path, name, grouping):
    from dataclasses import replace

    records = tuple(
        replace(record, patient=record.image, study=record.image if grouping == "study" else None)
        for record in source.records
    )
    source = replace(source, records=records, grouping=grouping)
    WRITERS[name](source, tmp_path / "data" / name)
    check_equal(read_data(tmp_path / "data" / name, DataOptions(views="all")), source)


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_overwritten(source, tmp_path, name):
    WRITERS[name](source, tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(CxrfastError, match="exists already and is not overwritten"):
        WRITERS[name](source, tmp_path / name)
    assert (tmp_path / name).read_bytes() == before


def test_boxes_of_another_manifest_are_not_overwritten_or_taken(source, tmp_path):
    (tmp_path / "boxes.csv").write_text("image,label,x,y,w,h\n")
    with pytest.raises(CxrfastError, match=r"boxes\.csv exists already"):
        write_manifest(source, tmp_path / "manifest.csv")
    assert not (tmp_path / "manifest.csv").exists()


def test_classes_that_a_manifest_cannot_name_are_refused(source, tmp_path):
    with pytest.raises(CxrfastError, match="class 'Category' has the name of another column"):
        write_manifest(source.renamed({"Mass": "Category"}), tmp_path / "m.csv")


@pytest.mark.parametrize(("write", "name"), [(write_manifest, "m.txt"), (write_coco, "m.csv")])
def test_other_suffixes_are_refused(source, write, name):
    with pytest.raises(UsageError, match="expected a file name that ends in"):
        write(source, Path(name))


def test_coco_without_unknown_labels_is_plain_coco(source, tmp_path):
    import json
    from dataclasses import replace

    records = tuple(replace(record, known=None) for record in source.records)
    write_coco(replace(source, records=records), tmp_path / "data" / "coco.json")
    content = json.loads((tmp_path / "data" / "coco.json").read_text(encoding="utf-8"))
    assert not any("neg_category_ids" in image for image in content["images"])
    assert next((i["file_name"], i["width"], i["height"]) for i in content["images"]) == ("images/a.png", 123, 77)
    boxed = [annotation for annotation in content["annotations"] if "bbox" in annotation]
    assert boxed[0]["bbox"] == pytest.approx([41, 7.7, 41, 46.2])
    assert boxed[0]["area"] == pytest.approx(41 * 46.2)
    assert len(content["annotations"]) - len(boxed) == 2
    found = read_data(tmp_path / "data" / "coco.json", DataOptions(views="all"))
    assert [record.labels for record in found.records] == [record.labels for record in source.records]
    assert all(record.label(name) in (0, 1) for record in found.records for name in CLASSES)
