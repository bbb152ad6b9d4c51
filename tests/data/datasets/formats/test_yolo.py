"""YOLO data sets as training programs and annotation services lay them out, and every way to spoil one."""

import math

import pytest

from cxrfast.data.datasets.interface import DataOptions
from cxrfast.data.datasets.registry import choose_layout, read_data
from cxrfast.errors import CxrfastError

YAML = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: Mass\n  1: Edema\n"
LABELS = {"train/a": "0 0.5 0.5 0.5 0.5\n1 0.25 0.25 0.5 0.5\n", "train/b": "", "val/c": "1 0.5 0.5 1 1\r\n"}


@pytest.fixture
def folder(tmp_path, make_image):
    for name, text in LABELS.items():
        make_image(f"images/{name}.png")
        write(tmp_path, f"labels/{name}.txt", text)
    write(tmp_path, "data.yaml", YAML)
    return tmp_path


def write(folder, name, text):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode())


def labels(source):
    return {r.image: [r.label(name) for name in source.class_names] for r in source.records}


def test_labels_boxes_and_parts(folder):
    source = read_data(folder)
    assert source.layout == "yolo"
    assert source.class_names == ("Mass", "Edema")
    expected = {"images/train/a.png": [1, 1], "images/train/b.png": [0, 0], "images/val/c.png": [0, 1]}
    assert labels(source) == expected
    assert [record.split for record in source.records] == ["train", "train", "val"]
    assert source.records[0].boxes == {"Mass": ((0.25, 0.25, 0.75, 0.75),), "Edema": ((0.0, 0.0, 0.5, 0.5),)}
    assert source.grouping == "image"
    assert labels(read_data(folder / "data.yaml")) == expected


@pytest.mark.parametrize(
    "yaml",
    [
        "train: ./images/train\nval: images/val/\nnc: 2\nnames: ['Mass', 'Edema']\n",
        "path: /not/here\ntrain: images/train\nval: images/val\nnames: [Mass, Edema]\n",
        "train: [images/train]\nval: images/val\nnames: [Mass, Edema]\n",
        "train: train.txt\nval: images/val\nnames: [Mass, Edema]\n",
    ],
)
def test_forms_of_the_yaml_file(folder, yaml):
    write(folder, "data.yaml", yaml)
    write(folder, "train.txt", "./images/train/a.png\n\n/elsewhere/images/train/b.png\n")
    source = read_data(folder)
    assert list(labels(source)) == ["images/train/a.png", "images/train/b.png", "images/val/c.png"]
    assert sum(len(boxes) for record in source.records for boxes in record.boxes.values()) == 3


def test_suffixes_in_upper_case(folder):
    expected = labels(read_data(folder))
    for path in [folder / "data.yaml", *(folder / "labels").rglob("*.txt")]:
        path.rename(path.with_suffix(path.suffix.upper()))
    assert labels(read_data(folder)) == expected


def test_roboflow_folders(tmp_path, make_image):
    for part in ("train", "valid", "test"):
        make_image(f"{part}/images/a.jpg")
        write(tmp_path, f"{part}/labels/a.txt", "0 0.5 0.5 0.5 0.5")
    yaml = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['Mass']\n"
    write(tmp_path, "data.yaml", yaml)
    source = read_data(tmp_path)
    assert {record.image: record.split for record in source.records} == {
        "train/images/a.jpg": "train",
        "valid/images/a.jpg": "val",
        "test/images/a.jpg": "test",
    }
    assert all(len(record.boxes["Mass"]) == 1 for record in source.records)


def test_polygons_and_no_finding(folder):
    write(folder, "data.yaml", YAML + "  2: No finding\n")
    write(folder, "labels/train/a.txt", "0 0.25 0.25 0.75 0.5 0.5 0.75\n")
    write(folder, "labels/train/b.txt", "2 0.5 0.5 1 1\n")
    source = read_data(folder)
    assert source.class_names == ("Mass", "Edema")
    assert source.records[0].boxes == {"Mass": ((0.25, 0.25, 0.75, 0.75),)}
    assert labels(source)["images/train/b.png"] == [0, 0]
    assert source.records[1].boxes == {}
    assert any("boxes that are the bounding boxes of polygons: 1" in note for note in source.notes)
    write(folder, "labels/train/b.txt", "2 0.5 0.5 1 1\n0 0.5 0.5 0.5 0.5\n")
    with pytest.raises(CxrfastError, match=r"b\.txt, line 2: no finding beside Mass"):
        read_data(folder)


def test_keypoints_follow_the_box(folder):
    write(folder, "data.yaml", YAML + "kpt_shape: [1, 3]\n")
    write(folder, "labels/train/a.txt", "0 0.5 0.5 0.5 0.5 0.1 0.2 2\n")
    assert read_data(folder).records[0].boxes == {"Mass": ((0.25, 0.25, 0.75, 0.75),)}


def test_missing_label_file_is_no_finding_and_said(folder):
    (folder / "labels/train/a.txt").unlink()
    source = read_data(folder)
    assert labels(source)["images/train/a.png"] == [0, 0]
    assert any("a label file, which have no finding: 1 (first: images/train/a.png)" in n for n in source.notes)


def test_test_images_without_labels_are_unknown(folder, make_image):
    make_image("images/test/d.png")
    write(folder, "data.yaml", YAML + "test: images/test\n")
    source = read_data(folder)
    assert all(math.isnan(value) for value in labels(source)["images/test/d.png"])
    assert any("labels of its images are unknown: 1" in note for note in source.notes)


def test_clipped_repeated_and_extra(folder, make_image):
    make_image("other/x.png")
    write(folder, "labels/train/a.txt", "0 0.5 0.5 1.002 1\n0 0.5 0.5 1.002 1\n")
    source = read_data(folder)
    assert source.records[0].boxes == {"Mass": ((0.0, 0.0, 1.0, 1.0),)}
    for text in ("image, clipped: 2", "boxes, used once: 1", "files in no part, left out: 1 (first: other/x.png)"):
        assert any(text in note for note in source.notes), text


def test_listed_images_that_are_missing(folder):
    write(folder, "data.yaml", YAML.replace("images/train", "train.txt"))
    write(folder, "train.txt", "images/train/a.png\nimages/train/lost.png\n")
    source = read_data(folder)
    assert len(source.records) == 2
    assert any("listed images without a file, left out: 1 (first: train.txt, line 2)" in note for note in source.notes)
    assert len(read_data(folder, DataOptions(images_required=False)).records) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.5\n", "line 1: 4 values, expected 5"),
        ("\n0 0.5 0.5 0.5 0.5 0.9\n", "line 2: 6 values, expected 5"),
        ("2 0.5 0.5 0.5 0.5\n", "line 1: class 2, expected 0 to 1"),
        ("0.5 0.5 0.5 0.5 0.5\n", "line 1: class 0.5, expected 0 to 1"),
        ("Mass 0.5 0.5 0.5 0.5\n", "line 1: .*expected numbers"),
        ("0 0.5 0.5 0 0.5\n", "line 1: box .* has no area"),
        ("0 nan 0.5 0.5 0.5\n", "line 1: .*expected finite numbers"),
        ("0 20 10 20 10\n", "line 1: box 20 10 20 10 exceeds 1"),
        ("0 0.9 0.5 0.5 0.5\n", "line 1: box .* lies outside its image"),
    ],
)
def test_labels_that_are_refused(folder, text, message):
    write(folder, "labels/train/a.txt", text)
    with pytest.raises(CxrfastError, match=message):
        read_data(folder)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: images/none\nnames: [Mass]\n", "train is images/none, which is not in"),
        ("train: images/train\nnames: {1: Mass, 2: Edema}\n", "the keys of 'names' are"),
        ("train: images/train\nnames: [Mass, mass]\n", "mean the same finding"),
        ("train: images/train\nnames: []\n", "expected a list of class names"),
        ("train: images/train\nnc: 3\nnames: [Mass, Edema]\n", "nc is 3, but there are 2 names"),
        ("train: images\nval: images/val\nnames: [Mass, Edema]\n", "images/val/c.png is in train and val"),
    ],
)
def test_yaml_that_is_refused(folder, yaml, message):
    write(folder, "data.yaml", yaml)
    with pytest.raises(CxrfastError, match=message):
        read_data(folder)


def test_missing_label_folder_is_refused(folder):
    (folder / "labels").rename(folder / "annotations")
    with pytest.raises(CxrfastError, match="no folder labels/train with labels of images/train"):
        read_data(folder)


def test_other_yaml_files_are_not_taken(folder):
    write(folder, "data.yaml", "names: [Mass]\nseed: 0\n")
    with pytest.raises(CxrfastError, match="no layout that is known"):
        choose_layout(folder)
