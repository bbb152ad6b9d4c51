"""Files of predictions as people write them: in parts, in any order, with doubles, gaps and damage."""

import json
from pathlib import Path

import numpy as np
import pytest

from cxrfast.data.datasets.chestxray14 import read_chestxray14
from cxrfast.data.records import Record
from cxrfast.data.splits import make_splits
from cxrfast.errors import CxrfastError
from cxrfast.evaluation import EvaluationMetadata, GroundTruth, find_protocol
from cxrfast.evaluation.offline import evaluate_data_set, evaluate_files

CLASSES = ("Mass", "Nodule")
IMAGES = ("a.png", "b.png", "c.png", "d.png")
BOXES = ((0.0, 0.0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75), (0.5, 0.0, 1.0, 0.5), (0.0, 0.5, 0.5, 1.0))


def make_truth():
    records = [
        Record(image, Path(image), f"p{n}", frozenset({CLASSES[n % 2]}), {CLASSES[n % 2]: (BOXES[n],)})
        for n, image in enumerate(IMAGES)
    ]
    return GroundTruth.from_records(records, CLASSES)


def score(*paths, protocol="rozenberg2019"):
    facts = EvaluationMetadata(
        split="all", label_version="2017", method="theirs", weights=", ".join(path.name for path in paths)
    )
    return evaluate_files(paths, make_truth(), find_protocol(protocol), facts, resamples=10)


def accuracies(result):
    return [table.accuracy[0].tolist() for table in result.localization.tables]


def perfect_maps(images=IMAGES, classes=CLASSES, **others):
    """Each image's box in the map of its class."""
    maps = np.zeros((len(images), len(classes), 4, 4), np.float32)
    for n, image in enumerate(images):
        place = IMAGES.index(image)
        x1, y1, x2, y2 = (round(4 * v) for v in BOXES[place])
        if CLASSES[place % 2] in classes:
            maps[n, classes.index(CLASSES[place % 2]), y1:y2, x1:x2] = 0.9
    return {"images": np.array(images), "classes": np.array(classes), "maps": maps, **others}


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def write(path, text):
    path.write_text(text)
    return path


def test_maps_in_several_files_keep_their_classes(tmp_path):
    """Half of the images with the classes in reverse; a class in a file of its own, with a threshold of its own."""
    first = save(tmp_path / "first.npz", **perfect_maps(IMAGES[:2]))
    second = save(tmp_path / "second.npz", **perfect_maps(IMAGES[3:1:-1], CLASSES[::-1]))
    mass, nodule = (
        save(tmp_path / f"{name}.npz", **perfect_maps(classes=(name,), thresholds=np.array([threshold])))
        for name, threshold in zip(CLASSES, (0.2, 0.95), strict=True)
    )
    for files in ((first, second), (second, first), (mass, nodule)):
        result = score(*files)
        assert accuracies(result) == [[1.0, 1.0], [1.0, 1.0]]
        assert result.auroc.value.tolist() == [1.0, 1.0]
    assert accuracies(score(mass, nodule, protocol="own")) == [[1.0, 0.0], [1.0, 0.0]]


def test_a_class_that_nobody_looked_for_has_no_score(tmp_path):
    maps = save(tmp_path / "maps.npz", **perfect_maps(classes=("Mass",)))
    boxes = write(
        tmp_path / "boxes.csv", "image,class,x1,y1,x2,y2\na.png,Mass,0,0,512,512\nc.png,Mass,512,0,1024,512\n"
    )
    for path in (maps, boxes):
        result = score(path)
        assert accuracies(result) == [[1.0, 0.0], [1.0, 0.0]]
        np.testing.assert_equal(result.auroc.value.numpy(), [1.0, np.nan])
        assert result.mean_auroc.left_out == ("Nodule",)
        assert "no regions in the predictions, so all annotations are missed: Nodule" in result.notes
        assert "no scores in the predictions, so no AUROC: Nodule" in result.notes


DOUBLES = {
    "scores.csv": ("image,class,prob\na.png,Mass,0.1\na.png,Mass,0.9\n", "line 3: a second score of Mass on a.png"),
    "names.csv": ("image,class,prob\na.png,Mass,0.1\na,Mass,0.9\n", "two scores of Mass on a.png, by its names with"),
    "images.npz": ({"images": np.array(["a.png"] * 4)}, "images have a.png twice"),
    "stems.npz": ({"images": np.array(["a.png", "a", "c", "d"])}, "an image is there by two names"),
    "classes.npz": ({"classes": np.array(["Mass"] * 2)}, "classes have Mass twice"),
}


@pytest.mark.parametrize("name", DOUBLES)
def test_nothing_is_said_twice(name, tmp_path):
    content, message = DOUBLES[name]
    path = tmp_path / name
    if isinstance(content, str):
        write(path, content)
    else:
        save(path, **{**perfect_maps(), **content})
    with pytest.raises(CxrfastError, match=message):
        score(path)


def test_files_do_not_contradict_each_other(tmp_path):
    first = save(tmp_path / "first.npz", **perfect_maps(IMAGES[:2], thresholds=np.array([0.3, 0.4])))
    for change, message in (
        (perfect_maps(IMAGES[1:]), r"second.npz: a map of Mass on b.png is in a file before"),
        (perfect_maps(IMAGES[2:], maps=np.zeros((2, 2, 8, 4))), r"second.npz: maps of 8 × 4, but 4 × 4 in .*first.npz"),
        (perfect_maps(IMAGES[2:], thresholds=np.array([0.3, 0.5])), "thresholds of Nodule is 0.5, but 0.4"),
    ):
        second = save(tmp_path / "second.npz", **change)
        with pytest.raises(CxrfastError, match=message):
            score(first, second)


def coco(**changes):
    content = {
        "images": [{"id": n, "file_name": image, "width": 64, "height": 64} for n, image in enumerate(IMAGES[:3])],
        "categories": [{"id": k, "name": name} for k, name in enumerate(CLASSES)],
        "annotations": [{"image_id": 0, "category_id": 0, "bbox": [0, 0, 32, 32], "score": 0.5}],
    }
    return json.dumps({**content, **changes})


def annotation(**changes):
    return coco(annotations=[{"image_id": 0, "category_id": 0, "score": 0.5, **changes}])


def test_images_that_coco_lists_are_evaluated(tmp_path):
    """Also those on which nothing was found; and a detector that found nothing at all has missed everything."""
    result = score(write(tmp_path / "boxes.json", coco()))
    assert "3 of the 4 evaluated images are named in the predictions" in result.notes
    assert accuracies(result)[0] == [0.5, 0.0]
    assert result.auroc.value.tolist() == [0.75, 0.5]
    for name, text in (("none.json", coco(annotations=[])), ("none.csv", "image,class,x1,y1,x2,y2,score\n")):
        result = score(write(tmp_path / name, text))
        assert accuracies(result) == [[0.0, 0.0], [0.0, 0.0]]
    np.testing.assert_equal(result.auroc.value.numpy(), [np.nan, np.nan])


def test_a_data_set_with_files_that_name_some_of_it(phantoms, tmp_path):
    records = read_chestxray14(phantoms).records
    images = [{"id": n, "file_name": record.image, "width": 64, "height": 64} for n, record in enumerate(records)]
    result = evaluate_data_set([write(tmp_path / "all.json", coco(images=images))], phantoms, resamples=10)
    assert result.n_images == len(records)
    for name, text, message in (
        (
            "image.csv",
            "image,class,prob\nfoo.png,Mass,0.3\n",
            r"image.csv names none of the \d+ images of .*foo.png; theirs",
        ),
        (
            "class.csv",
            f"image,class,prob\n{records[0].image},Foo,0.3\n",
            "no known class .the first is Foo.; expected Atel",
        ),
        ("rows.csv", "image,class,prob\n", "rows.csv: no prediction in it"),
    ):
        with pytest.raises(CxrfastError, match=message):
            evaluate_data_set([write(tmp_path / name, text)], phantoms)


def test_splits_of_other_labels_are_noted(phantoms, tmp_path):
    records = read_chestxray14(phantoms).records
    table = "image,class,prob\n" + "".join(f"{record.image},Mass,0.{n}\n" for n, record in enumerate(records, 1))
    path = write(tmp_path / "scores.csv", table)
    for version, noted in (("2017", False), ("2020", True), (None, False)):
        make_splits(records, seed=0, label_version=version).save(tmp_path / "splits.json")
        result = evaluate_data_set([path], phantoms, splits=tmp_path / "splits.json", resamples=10)
        assert any("was made with the labels of 2020, not of 2017" in note for note in result.notes) == noted


IMAGE = {"id": 0, "file_name": "a.png", "width": 64, "height": 64}
BAD_TEXT = {
    "short.csv": ("class,prob,image\nMass,0.3\n", "line 2: the row ends before column 'image'"),
    "gap.csv": ("image,class,prob\na.png\n", "line 2: the row ends before column 'class'"),
    "box.csv": ("image,class,x,y,w,h\na.png,Mass,1\n", "line 2: the row ends before column 'y'"),
    "frame.csv": ("image,class,x,y,w,h,width,height\na,Mass,1,1,5,5,0,9\n", "an image of width 0 and height 9"),
    "quote.csv": (f'image,class,prob\n"{"a" * 200_000}', "cannot be read .field larger than"),
    "images.json": (coco(images=3), "'images' is not a list of objects"),
    "list.json": (coco(annotations=[3]), "'annotations' is not a list of objects"),
    "nameless.json": (coco(images=[{"id": 0}]), "entry 0 of 'images': no 'file_name'; add it"),
    "number.json": (coco(images=[{**IMAGE, "file_name": 5}]), "file_name 5; expected"),
    "twice.json": (coco(images=[IMAGE, {**IMAGE, "file_name": "b.png"}]), "'images' has id 0 twice"),
    "flat.json": (coco(images=[{**IMAGE, "width": 0}]), "annotation 0: an image of width 0 and height 64"),
    "unknown.json": (annotation(image_id=7), "annotation 0: image_id 7 is not among the 'images'"),
    "category.json": (annotation(category_id=7), "annotation 0: category_id 7 is not among the 'categories'"),
    "three.json": (annotation(bbox=[1, 1, 3]), r"bbox is \[1, 1, 3\]; expected \[x, y, width, height\]"),
    "letter.json": (annotation(bbox=["a", 1, 3, 3]), "bbox is 'a'; expected a finite number"),
    "score.json": (annotation(bbox=[1, 1, 3, 3], score=None), "score is None; expected a finite number"),
    "neither.json": (annotation(), "neither 'bbox' nor 'segmentation'"),
    "negative.json": (annotation(segmentation={"counts": [5000, -904]}), "a run of length -904; expected 0 or more"),
    "counts.json": (annotation(segmentation={"counts": None}), "counts are None; expected a list of whole numbers"),
}


@pytest.mark.parametrize("name", BAD_TEXT)
def test_damaged_text_is_one_clear_line(name, tmp_path):
    text, message = BAD_TEXT[name]
    with pytest.raises(CxrfastError, match=message) as caught:
        score(write(tmp_path / name, text))
    assert name in str(caught.value)


OPENED = json.dumps({"opening": 4})
BAD_ARRAYS = [
    ({"scores": np.array([0.5])}, r"scores are float64 \[1\]; expected numbers \[4, 2\]"),
    ({"scores": np.zeros((2, 2))}, r"scores are float64 \[2, 2\]; expected numbers \[4, 2\]"),
    ({"thresholds": np.array(0.5)}, r"thresholds are float64 \[\]; expected numbers \[2\]"),
    ({"thresholds": np.array([])}, r"thresholds are float64 \[0\]; expected numbers \[2\]"),
    ({"operating_points": np.array([0.5, np.nan])}, r"operating_points are \[0.5, nan\]; expected a number for each"),
    ({"image_size": np.array("x")}, "image_size is x; expected one whole number"),
    ({"image_size": np.array([64, 64])}, r"image_size is \[64 64\]; expected one whole number"),
    ({"images": np.array(5)}, r"images are int64 \[\]; expected a list of names"),
    ({"maps": np.zeros((4, 2, 0, 4))}, r"maps are float64 \[4, 2, 0, 4\]; expected numbers \[4, 2, P, Q\]"),
    ({"region_rule": np.array('{"shape": "foo"}')}, "region_rule is not one of cxrfast"),
    ({"region_rule": np.array('{"levels": ["high"]}')}, "region_rule is not one of cxrfast"),
    ({"region_rule": np.array("[1]")}, "region_rule is not one of cxrfast"),
    ({"region_rule": np.array(OPENED)}, "region_rule opens by 4 pixels of no known image; add image_size"),
    ({"region_rule": np.array('{"closing": 3}')}, "region_rule closes by 3 pixels of no known image; add image_size"),
    ({"region_rule": np.array('{"closing": "wide"}')}, "region_rule is not one of cxrfast"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ARRAYS)
def test_arrays_that_do_not_fit_are_named(change, message, tmp_path):
    with pytest.raises(CxrfastError, match=message):
        score(save(tmp_path / "maps.npz", **{**perfect_maps(), **change}))


def test_what_is_no_archive_is_never_unpickled(tmp_path):
    whole = save(tmp_path / "whole.npz", **perfect_maps()).read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    compressed = tmp_path / "compressed.npz"
    np.savez_compressed(compressed, **perfect_maps(maps=np.random.default_rng(0).random((4, 2, 8, 8))))
    damaged = bytearray(compressed.read_bytes())
    damaged[len(damaged) // 2] ^= 0x5A
    for content, message in (
        (b"", "is no npz archive"),
        (b"garbage garbage", "is no npz archive"),
        ((tmp_path / "array.npy").read_bytes(), "is no npz archive"),
        (whole[: len(whole) // 2], "is no npz archive"),
        (bytes(damaged), "cannot be read"),
    ):
        (tmp_path / "maps.npz").write_bytes(content)
        with pytest.raises(CxrfastError, match=message) as caught:
            score(tmp_path / "maps.npz")
        assert "pickle" not in str(caught.value)


def test_labels_are_not_taken_for_scores(tmp_path):
    """One column of the two of a class holds labels, and would score 1."""
    for header in ("image,Mass,Mass_prob", "image,score_mass,Mass", "image,Mass,Mass"):
        path = write(tmp_path / "wide.csv", f"{header}\na.png,1,0.3\n")
        with pytest.raises(CxrfastError, match="column 'Mass' or '.*'. Call the one .* prob_Mass|'Mass' twice"):
            score(path)
    result = score(write(tmp_path / "labels.csv", "image,Mass,Nodule\na.png,1,0.3\nb.png,0,1\n"))
    assert "every score is 0 or 1; if these are labels, the numbers are not of predictions: Mass" in result.notes
    result = score(write(tmp_path / "both.csv", "image,Mass,prob_Mass\na.png,1,0.3\nb.png,0,1\n"))
    assert result.predictions.prob[:2, 0].tolist() == pytest.approx([0.3, 1])


def box_table(rows, size=""):
    lines = [f"a.png,Mass,{','.join(map(str, row))}{''.join(f',{size}' * 2 if size else '')}" for row in rows]
    return "\n".join(["image,class,x1,y1,x2,y2" + (",width,height" if size else ""), *lines]) + "\n"


def test_boxes_that_reach_out_of_the_image(tmp_path):
    path = tmp_path / "boxes.csv"
    note = "1 of the 2 boxes of boxes.csv reach out of their image by more than a pixel and were cut there"
    for far, size in (((-50, 0, 512, 512), 1024), ((0, 0, 32, 70), 64), ((-0.1, 0, 0.5, 0.5), 1)):
        result = score(write(path, box_table([(0, 0, size / 2, size / 2), far], size)))
        assert any(text.startswith(note) for text in result.notes), far
    assert "reach out" not in "".join(score(write(path, box_table([(-0.9, 0, 32, 64.9)], 64))).notes)
    near = write(path, box_table([(-1, -1, 512, 512), (512, 512, 1025, 1025)]))
    result = score(near)
    assert "reach out" not in "".join(result.notes)
    assert result.source.found.xyxy.tolist() == [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]
    for outside in ((100, 100, 400, 400), (-9, 2, 0, 8), (2, -9, 8, -1), (2, 64, 8, 70)):
        with pytest.raises(CxrfastError, match=r"boxes.csv, line 2: box .* lies outside of its image of 64 × 64; give"):
            score(write(path, box_table([outside], 64)))
    with pytest.raises(CxrfastError, match=r"far.json, annotation 0: box .* lies outside"):
        score(write(tmp_path / "far.json", annotation(bbox=[100, 100, 300, 300])))


def test_boxes_as_fractions_are_not_taken_for_pixels(tmp_path):
    path = tmp_path / "boxes.csv"
    fractions = [(0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5)]
    with pytest.raises(CxrfastError, match=r"boxes.csv: every box lies between 0 and 1, .* width and height, both 1"):
        score(write(path, box_table(fractions)))
    assert accuracies(score(write(path, box_table(fractions[:1], 1))))[0] == [0.5, 0.0]
    score(write(path, box_table([*fractions, (512, 512, 800, 800)])))
