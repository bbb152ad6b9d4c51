"""COCO files as annotation programs and LVIS write them, and every way to spoil one."""

import json
import math

import numpy as np
import pytest

from cxrfast.data.datasets.interface import DataOptions
from cxrfast.data.datasets.registry import choose_layout, read_data
from cxrfast.errors import CxrfastError

NAN = math.nan


def image(number, name, **more):
    return {"id": number, "file_name": name, "width": 40, "height": 20, **more}


def annotation(number, image_id, category, **more):
    return {"id": number, "image_id": image_id, "category_id": category, **more}


def content(**changes):
    return {
        "info": {"description": "test"},
        "licenses": [],
        "images": [image(1, "a.png"), image(2, "b.png")],
        "categories": [
            {"id": 3, "name": "Mass", "supercategory": "finding"},
            {"id": 1, "name": "Pleural Effusion", "supercategory": "finding"},
        ],
        "annotations": [annotation(1, 1, 3, bbox=[10, 5, 20, 10], area=200, iscrowd=0, segmentation=[[]])],
        **changes,
    }


@pytest.fixture
def folder(tmp_path, make_image):
    for name in ("images/a.png", "images/b.png"):
        make_image(name)
    return tmp_path


def write(folder, data, name="instances.json"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def labels(source):
    return {r.image: [r.label(name) for name in source.class_names] for r in source.records}


def test_boxes_and_negatives(folder):
    write(folder, content())
    source = read_data(folder)
    assert source.layout == "coco"
    assert source.class_names == ("Mass", "Pleural Effusion")
    assert labels(source) == {"images/a.png": [1, 0], "images/b.png": [0, 0]}
    assert source.records[0].boxes == {"Mass": ((0.25, 0.25, 0.75, 0.75),)}
    assert source.grouping == "image"
    assert (source.records[0].width, source.records[0].height) == (40, 20)
    assert any("images in instances.json: 2; read: 2; boxes: 1" in note for note in source.notes)


@pytest.mark.parametrize(
    "name", ["annotations/instances_default.json", "_annotations.coco.json", "my_coco.json", "labelled by us.json"]
)
def test_places_of_the_file(folder, name):
    path = write(folder, content(), name)
    for place in (folder, path):
        source = read_data(place)
        assert source.root == folder
        assert list(labels(source)) == ["images/a.png", "images/b.png"]


def compress(runs):
    """COCO's text for run lengths."""
    text = ""
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        more = True
        while more:
            code = value & 31
            value >>= 5
            more = value != (-1 if code & 16 else 0)
            text += chr((code | 32 if more else code) + 48)
    return text


def run_lengths(mask):
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("form", ["list", "text"])
def test_box_of_a_mask(folder, seed, form):
    random = np.random.default_rng(seed)
    mask = np.zeros((20, 40), dtype=bool)
    rows, columns = random.integers(0, 20, 3), random.integers(0, 40, 3)
    mask[rows, columns] = True
    mask[rows[0] : rows[0] + 5, columns[0] : columns[0] + 5] = True
    runs = run_lengths(mask)
    segmentation = {"size": [20, 40], "counts": runs if form == "list" else compress(runs)}
    write(folder, content(annotations=[annotation(1, 1, 3, segmentation=segmentation, iscrowd=1)]))
    source = read_data(folder)
    y, x = np.nonzero(mask)
    expected = (x.min() / 40, y.min() / 20, (x.max() + 1) / 40, (y.max() + 1) / 20)
    assert source.records[0].boxes["Mass"] == (pytest.approx(expected),)
    assert any("crowd regions (iscrowd), each taken as one box: 1" in note for note in source.notes)


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ({"segmentation": [[10, 5, 30, 5, 20, 15]]}, (0.25, 0.25, 0.75, 0.75)),
        ({"segmentation": [[10, 5, 12, 5, 12, 6], [29, 14, 30, 15, 30, 14]], "bbox": []}, (0.25, 0.25, 0.75, 0.75)),
        ({"segmentation": [[10, 5, 30, 5, 20, 15]], "bbox": [0, 0, 0, 0]}, (0.25, 0.25, 0.75, 0.75)),
        ({"segmentation": [[0, 0, 40, 20, 0, 20]], "bbox": [10.0, 5.0, 20.0, 10.0]}, (0.25, 0.25, 0.75, 0.75)),
        ({"segmentation": [], "bbox": [20, 10, 20.5, 10]}, (0.5, 0.5, 1.0, 1.0)),
        ({"segmentation": [[]], "bbox": None}, None),
        ({}, None),
        ({"segmentation": {"size": [20, 40], "counts": [800]}}, None),
    ],
)
def test_shapes(folder, shape, box):
    write(folder, content(annotations=[annotation(1, 2, 1, **shape)]))
    record = read_data(folder).records[1]
    assert record.labels == {"Pleural Effusion"}
    assert record.boxes == ({} if box is None else {"Pleural Effusion": (box,)})


def test_no_finding_category(folder):
    data = content()
    data["categories"].append({"id": 9, "name": "No finding"})
    data["annotations"].append(annotation(2, 2, 9))
    write(folder, data)
    source = read_data(folder)
    assert source.class_names == ("Mass", "Pleural Effusion")
    assert labels(source)["images/b.png"] == [0, 0]
    data["annotations"].append(annotation(3, 2, 1))
    write(folder, data)
    with pytest.raises(CxrfastError, match=r"annotation 3: images/b\.png has no finding and Pleural Effusion"):
        read_data(folder)


def test_lists_of_lvis(folder):
    images = [
        image(1, "a.png", neg_category_ids=[1], not_exhaustive_category_ids=[3]),
        image(2, "b.png", neg_category_ids=[]),
    ]
    write(folder, content(images=images))
    source = read_data(folder)
    assert labels(source)["images/a.png"] == [1, 0]
    assert all(math.isnan(value) for value in labels(source)["images/b.png"])
    assert any("(neg_category_ids), so others are unknown: 2" in note for note in source.notes)
    images = [image(1, "a.png", not_exhaustive_category_ids=[1]), image(2, "b.png")]
    write(folder, content(images=images))
    found = labels(read_data(folder))
    assert found["images/a.png"][0] == 1
    assert math.isnan(found["images/a.png"][1])
    assert found["images/b.png"] == [0, 0]
    write(folder, content(images=[image(1, "a.png", neg_category_ids=[3]), image(2, "b.png")]))
    with pytest.raises(CxrfastError, match="Mass is annotated and in 'neg_category_ids'"):
        read_data(folder)


def test_roboflow_export(tmp_path, make_image):
    categories = [
        {"id": 0, "name": "chest", "supercategory": "none"},
        {"id": 1, "name": "Mass", "supercategory": "chest"},
    ]
    for number, part in enumerate(("train", "valid", "test")):
        make_image(f"{part}/a.jpg")
        data = content(
            categories=categories,
            images=[image(0, "a.jpg")],
            annotations=[annotation(0, 0, 1, bbox=[10, 5, 20, 10])] if number else [],
        )
        write(tmp_path, data, f"{part}/_annotations.coco.json")
    source = read_data(tmp_path)
    assert source.class_names == ("Mass",)
    assert {r.image: r.split for r in source.records} == {
        "test/a.jpg": "test",
        "train/a.jpg": "train",
        "valid/a.jpg": "val",
    }
    assert sum(len(record.boxes) for record in source.records) == 2
    assert sum("category 'chest' only groups the others" in note for note in source.notes) == 1
    assert source.label_version == "_annotations.coco.json"


def test_official_layout_with_parts(tmp_path, make_image):
    for part in ("train2017", "val2017"):
        make_image(f"{part}/1.jpg")
        write(tmp_path, content(images=[image(1, "1.jpg")]), f"annotations/instances_{part}.json")
        write(tmp_path, content(), f"annotations/captions_{part}.json")
    source = read_data(tmp_path)
    assert [(r.image, r.split) for r in source.records] == [("train2017/1.jpg", "train"), ("val2017/1.jpg", "val")]
    assert any("files of other COCO tasks are left out: captions_train2017.json" in note for note in source.notes)


def test_two_files_of_one_part_are_refused(folder):
    for name in ("annotations/reader1.json", "annotations/reader2.json"):
        write(folder, content(), name)
    with pytest.raises(CxrfastError, match=r"reader1\.json and reader2\.json are not different parts"):
        read_data(folder)


def test_details_and_missing_sizes(folder):
    images = [
        {
            "id": "x",
            "file_name": "C:\\data\\images\\A.PNG",
            "patient_id": 7,
            "study": "s",
            "view": "Lateral",
            "age": "58Y",
        },
        {"id": "y", "file_name": "b.png", "patient_id": 8, "sex": "female", "split": "test", "width": None},
    ]
    write(folder, content(images=images, annotations=[annotation(1, "y", 1, bbox=[10, 5, 20, 10])]))
    with pytest.raises(CxrfastError, match="image x: image .* expected a path inside"):
        read_data(folder)
    images[0]["file_name"] = "images\\A.PNG"
    write(folder, content(images=images, annotations=[annotation(1, "y", 1, bbox=[10, 5, 20, 10])]))
    source = read_data(folder, DataOptions(views="all"))
    first, second = source.records
    assert (first.image, first.patient, first.study, first.view, first.age) == ("images/a.png", "7", "s", "lateral", 58)
    assert (second.patient, second.sex, second.split) == ("8", "F", "test")
    assert second.boxes == {"Pleural Effusion": ((0.25, 0.25, 0.75, 0.75),)}
    assert source.grouping == "patient"


def test_missing_and_extra_images(folder, make_image):
    make_image("images/extra.png")
    data = content(images=[image(1, "a.png"), image(2, "lost.png")])
    data["annotations"] += [annotation(2, 2, 3, bbox=[1, 1, 5, 5]), annotation(3, 77, 3, bbox=[1, 1, 5, 5])]
    write(folder, data)
    source = read_data(folder)
    assert [record.image for record in source.records] == ["images/a.png"]
    for text in (
        "without a file, left out: 1 (first: lost.png)",
        "image files that are not in instances.json, left out: 2",
        "annotations of images that are not listed, left out: 1",
    ):
        assert any(text in note for note in source.notes), text
    kept = read_data(folder, DataOptions(images_required=False))
    assert kept.records[1].boxes == {"Mass": ((1 / 40, 1 / 20, 6 / 40, 6 / 20),)}
    write(folder, content(images=[image(1, "x.png"), image(2, "y.png")]))
    with pytest.raises(CxrfastError, match="none of its 2 images was found"):
        read_data(folder)


@pytest.mark.parametrize("name", ["Result.JSON", "annotations/train.JSON"])
def test_suffix_in_upper_case(folder, name):
    write(folder, content(), name)
    assert sum(len(record.boxes) for record in read_data(folder).records) == 1


def test_file_without_annotations_has_unknown_labels(folder):
    data = content()
    del data["annotations"]
    write(folder, data)
    source = read_data(folder)
    assert all(math.isnan(value) for values in labels(source).values() for value in values)
    assert any("has no annotations: the labels of its images are unknown" in note for note in source.notes)
    assert not any("neg_category_ids" in note for note in source.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [annotation(5, 1, 3, bbox=[30, 5, 20, 10])]}, "annotation 5: box .* lies outside its image"),
        ({"annotations": [annotation(5, 1, 3, bbox=[3, 5, 0, 10])]}, "annotation 5: bbox is"),
        ({"annotations": [annotation(5, 1, 3, bbox=[3, 5, -4, 10])]}, "annotation 5: bbox is"),
        ({"annotations": [annotation(5, 1, 3, bbox=[3, 5, 4])]}, "annotation 5: bbox is .* expected 4 numbers"),
        ({"annotations": [annotation(5, 1, 3, bbox=[3, 5, 4, "9"])]}, "annotation 5: bbox is .* expected 4 numbers"),
        ({"annotations": [annotation(5, 1, 3, bbox=[0.1, 0.2, 0.3, 0.4])]}, "COCO needs pixels"),
        ({"annotations": [annotation(5, 1, 8, bbox=[1, 1, 2, 2])]}, "annotation 5: has category_id 8, not listed"),
        ({"annotations": [annotation(5, 1, 3, segmentation=[[1, 2, 3, 4]])]}, "annotation 5: a polygon has fewer"),
        ({"annotations": [annotation(5, 1, 3, segmentation="abc")]}, "annotation 5: segmentation is a str"),
        (
            {"annotations": [annotation(5, 1, 3, segmentation={"size": [40, 20], "counts": [800]})]},
            r"annotation 5: .*the mask's size \[40, 20\]",
        ),
        ({"images": [image(1, "a.png"), image(1, "b.png")]}, "image 1: has the id of another image"),
        ({"images": [image(1, "a.png"), image(2, "a.png")]}, r"image 2: images/a\.png is listed twice"),
        ({"images": [{"id": 1}]}, "an image 1: has no 'id' or no 'file_name'"),
        ({"images": [image(1, "../../a.png")]}, "expected a path inside"),
        ({"categories": [{"id": 3, "name": "Mass"}, {"id": 3, "name": "Edema"}]}, "category 3: is listed twice"),
        ({"categories": [{"id": 1, "name": "Mass"}, {"id": 3, "name": "mass"}]}, "category 3: 'mass' means the same"),
        ({"categories": None}, "has no list of objects 'categories'"),
    ],
)
def test_what_is_refused(folder, changes, message):
    write(folder, content(**changes))
    with pytest.raises(CxrfastError, match=message):
        read_data(folder)


def test_damaged_and_other_files(folder):
    (folder / "instances.json").write_text('{"images": [\n{]')
    with pytest.raises(CxrfastError, match="line 2: not JSON"):
        read_data(folder)
    (folder / "instances.json").write_text('[{"image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2], "score": 0.5}]')
    with pytest.raises(CxrfastError, match="no layout that is known"):
        choose_layout(folder)
    with pytest.raises(CxrfastError, match="has no COCO file"):
        read_data(folder, DataOptions(dataset="coco"))


def test_json_of_another_kind_is_not_taken(folder):
    write(folder, {"train": ["images/a.png"], "val": [], "test": []}, "splits.json")
    write(folder, {"images": 2, "note": "x"}, "facts.json")
    with pytest.raises(CxrfastError, match="no layout that is known"):
        choose_layout(folder)


def test_byte_order_mark_and_repeated_boxes(folder):
    data = content()
    data["annotations"].append({**data["annotations"][0], "id": 2})
    (folder / "instances.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(data).encode())
    source = read_data(folder)
    assert source.records[0].boxes == {"Mass": ((0.25, 0.25, 0.75, 0.75),)}
    assert any("repeated boxes, used once: 1" in note for note in source.notes)
