"""Predictions from files: every format says the same, what we write is such a file, and what is wrong is named."""

import json
import math

import cv2
import numpy as np
import pytest
import torch

from cxrfast.data.dataset import XrayDataset
from cxrfast.data.datasets.chestxray14 import read_chestxray14
from cxrfast.data.datasets.interface import DataOptions
from cxrfast.data.records import Record
from cxrfast.data.rle import decode_rle
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation import EvaluationMetadata, GroundTruth, collect_outputs, evaluate, find_protocol
from cxrfast.evaluation.map_file import write_maps
from cxrfast.evaluation.offline import evaluate_data_set, evaluate_files
from cxrfast.report.terminal import evaluation_to_text
from tests.predictors import FakePredictor

CLASSES = ("Mass", "Nodule")
SIZE = 100
# image: class, annotated box, predicted box (both in pixels of 100 × 100), score
SCENES = {
    "a.png": ("Mass", (10, 10, 50, 50), (10, 10, 50, 50), 0.9),
    "b.png": ("Mass", (10, 10, 50, 50), (30, 10, 70, 50), 0.6),  # IoU 1/3, IoR 1/2
    "c.png": ("Nodule", (0, 0, 20, 20), (40, 40, 60, 60), 0.8),
    "d.png": ("Nodule", (0, 0, 20, 20), None, None),
}


@pytest.fixture
def ground_truth(tmp_path):
    records = [
        Record(
            name, tmp_path / name, f"p{name}", frozenset({class_name}), {class_name: (tuple(v / SIZE for v in box),)}
        )
        for name, (class_name, box, _, _) in SCENES.items()
    ]
    return GroundTruth.from_records(records, CLASSES)


FACTS = EvaluationMetadata(split="all", label_version="2017", method="theirs", weights="predictions")


def found():
    return [(name, c, box, score) for name, (c, _, box, score) in SCENES.items() if box is not None]


def write_boxes(path):
    rows = [f"{name},{c},{','.join(map(str, box))},{score},100,100" for name, c, box, score in found()]
    path.write_text("\n".join(["image,class,x1,y1,x2,y2,score,width,height", *rows]) + "\n")


def write_sides(path):
    """x, y, w, h in the 1024 frame of ChestX-ray14, image names without their suffix."""
    rows = []
    for name, c, (x1, y1, x2, y2), score in found():
        cells = [v * 1024 / SIZE for v in (x1, y1, x2 - x1, y2 - y1)]
        rows.append(f"{name[:-4]},{c},{','.join(map(str, cells))},{score}")
    path.write_text("\n".join(["Image Index,class,x,y,w,h,confidence", *rows]) + "\n")


def mask_of(box):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 1
    return mask


def runs_of(mask):
    flat = mask.T.flatten().tolist()
    runs, last = [0], 0
    for value in flat:
        if value != last:
            runs.append(0)
            last = value
        runs[-1] += 1
    return runs


def pack(runs):
    """COCO's text form, from its description."""
    text = ""
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | 32 if more else bits) + 48)
    return text


def write_coco(path, kind="bbox"):
    annotations = []
    for number, (name, c, (x1, y1, x2, y2), score) in enumerate(found()):
        entry = {
            "id": number,
            "image_id": list(SCENES).index(name),
            "category_id": 7 + CLASSES.index(c),
            "score": score,
        }
        runs = runs_of(mask_of((x1, y1, x2, y2)))
        if kind == "bbox":
            entry["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        else:
            entry["segmentation"] = {"size": [SIZE, SIZE], "counts": runs if kind == "runs" else pack(runs)}
        annotations.append(entry)
    images = [{"id": i, "file_name": name, "width": SIZE, "height": SIZE} for i, name in enumerate(SCENES)]
    categories = [{"id": 7 + k, "name": name} for k, name in enumerate(CLASSES)]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))


def write_npz(path):
    """The score of the box inside, 0 outside; image scores as well."""
    maps, scores = np.zeros((4, 2, SIZE, SIZE), np.float32), np.zeros((4, 2), np.float32)
    for name, c, box, score in found():
        n, k = list(SCENES).index(name), CLASSES.index(c)
        maps[n, k] = score * mask_of(box)
        scores[n, k] = score
    np.savez_compressed(path, images=np.array(list(SCENES)), classes=np.array(CLASSES), maps=maps, scores=scores)


FORMATS = {
    "boxes.csv": write_boxes,
    "sides.csv": write_sides,
    "boxes.json": write_coco,
    "runs.json": lambda path: write_coco(path, "runs"),
    "text.json": lambda path: write_coco(path, "text"),
    "maps.npz": write_npz,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_the_same(name, ground_truth, tmp_path):
    FORMATS[name](tmp_path / name)
    protocol = find_protocol("rozenberg2019").with_thresholds(0.1, 1 / 3, 0.5, 1.0)
    result = evaluate_files([tmp_path / name], ground_truth, protocol, FACTS, resamples=20)
    iou, ior = result.localization.tables
    assert iou.accuracy.tolist() == [[1.0, 0.0], [1.0, 0.0], [0.5, 0.0], [0.5, 0.0]]
    assert ior.accuracy.tolist() == [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.5, 0.0]]
    assert result.auroc.value.tolist() == [1.0, 0.75]  # Nodule: 0.8 and 0 against two zeros
    assert result.detection.average_precision.tolist() == [[1.0, 0.0], [1.0, 0.0], [0.5, 0.0]]
    assert result.method == "theirs"
    for protocol in ("wang2017", "seibold2020", "zhang2020", "strict"):
        result = evaluate_files([tmp_path / name], ground_truth, find_protocol(protocol), FACTS, resamples=20)
        first = result.localization.tables[0]
        assert first.hits[0].tolist() == [2, 0], protocol


def test_what_we_write_gives_what_we_said(tmp_path):
    """An evaluation of a model, and one of the two files that it leaves."""
    generator = torch.Generator().manual_seed(0)
    records = []
    for n in range(8):
        path = tmp_path / f"{n}.png"
        cv2.imwrite(str(path), np.full((32, 32), 20 * n, np.uint8))
        boxes = {} if n == 7 else {CLASSES[n % 2]: ((0.1, 0.1, 0.5 + n / 20, 0.6),)}
        records.append(Record(path.name, path, f"p{n // 2}", frozenset(boxes), boxes))
    outputs = [(torch.rand(2, generator=generator), torch.rand(2, 4, 4, generator=generator)) for _ in range(8)]

    def answer(image):
        return outputs[round(float(image.mean() + 1) / 2 * 255 / 20)]

    predictor = FakePredictor(CLASSES, 32, answer, threshold=0.45)
    dataset = XrayDataset(records, CLASSES, 32)
    for name in ("strict", "rozenberg2019", "wang2017", "seibold2020"):
        live = evaluate(predictor, dataset, split="test", label_version="2017", protocol=name, resamples=20)
        live.predictions.write_csv(tmp_path / "predictions.csv")
        said = collect_outputs(predictor, dataset)
        write_maps(tmp_path / "maps.npz", said.maps, said.ground_truth.images, CLASSES, said.own)
        files = [tmp_path / "predictions.csv", tmp_path / "maps.npz"]
        again = evaluate_files(files, said.ground_truth, find_protocol(name), FACTS, resamples=20)
        assert torch.equal(again.predictions.prob, live.predictions.prob)
        for one, other in zip(again.localization.tables, live.localization.tables, strict=True):
            torch.testing.assert_close(one.accuracy, other.accuracy, rtol=0, atol=0, equal_nan=True)
            torch.testing.assert_close(one.low, other.low, equal_nan=True)
        assert again.localization.rule == live.localization.rule
        assert json.loads(again.record.to_json())["classes"] == json.loads(live.record.to_json())["classes"]


def test_scores_alone_wide_or_long(ground_truth, tmp_path):
    wide, long = tmp_path / "wide.csv", tmp_path / "long.csv"
    wide.write_text("Image Index,prob_Mass,prob_Nodule,Mass\na.png,0.9,0.1,1\nb.png,0.4,0.6,1\nc.png,0.5,0.2,0\n")
    long.write_text(
        "image,class,prob\na.png,Mass,0.9\nb.png,Mass,0.4\nc.png,Mass,0.5\n"
        "a.png,Nodule,0.1\nb.png,Nodule,0.6\nc.png,Nodule,0.2\n"
    )
    for path in (wide, long):
        result = evaluate_files([path], ground_truth, find_protocol("strict"), FACTS, resamples=20)
        assert result.localization is None
        # d.png is named nowhere: it has no score, and is not in AUROC.
        assert result.auroc.value.tolist() == [0.5, 0.5]
        assert result.n_positive == (2, 1)
        assert "3 of the 4 evaluated images are named in the predictions" in evaluation_to_text(result)


def test_packed_masks_survive():
    generator = np.random.default_rng(0)
    for density in (0.02, 0.5, 0.98):
        mask = (generator.random((37, 90)) < density).astype(np.uint8)
        segmentation = {"size": [37, 90], "counts": pack(runs_of(mask))}
        assert torch.equal(decode_rle(segmentation, 37, 90, "x"), torch.from_numpy(mask).bool())


BAD = {
    "a.txt": ("x", UsageError, "of an unknown kind"),
    "missing.csv": (None, CxrfastError, "no file"),
    "name.csv": ("file,class,prob\na,Mass,1\n", CxrfastError, "has no column 'image'"),
    "columns.csv": ("image,foo\na,1\n", CxrfastError, "has no column 'class', nor one for each class"),
    "nothing.csv": ("image,class\na,Mass\n", CxrfastError, "neither 'prob', 'score' nor x1, y1, x2, y2"),
    "text.csv": ("image,class,prob\na.png,Mass,high\n", CxrfastError, "line 2: 'high' is no number"),
    "nan.csv": ("image,class,prob\na.png,Mass,nan\n", CxrfastError, "'nan' is no finite number"),
    "logit.csv": ("image,class,prob\na.png,Mass,3\n", CxrfastError, "score 3; expected 0 to 1"),
    "box.csv": ("image,class,x1,y1,x2,y2\na.png,Mass,5,5,5,9\n", CxrfastError, "has no area"),
    "strangers.csv": ("image,class,prob\nz.png,Mass,0.5\n", CxrfastError, "names none of the 4 evaluated images"),
    "broken.json": ("{", CxrfastError, "line 1: not JSON"),
    "list.json": ("[]", CxrfastError, "is a list of results with ids only; give the COCO file of the data set as well"),
    "text.json": ('"a"', CxrfastError, "expected an object with 'images', 'categories' and 'annotations', or a list"),
    "broken.npz": ("no zip", CxrfastError, "broken.npz"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named(name, ground_truth, tmp_path):
    content, error, message = BAD[name]
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        evaluate_files([tmp_path / name], ground_truth, find_protocol("strict"), FACTS, resamples=20)


def test_arrays_are_checked_and_never_unpickled(ground_truth, tmp_path):
    path = tmp_path / "maps.npz"
    good = {"images": np.array(["a.png"]), "classes": np.array(["Mass"]), "maps": np.zeros((1, 1, 2, 2))}
    bad = [
        ({"maps": np.zeros((1, 2, 2, 2))}, r"expected numbers \[1, 1, P, Q\]"),
        ({"maps": np.full((1, 1, 2, 2), -3.0)}, "values from -3 to -3; expected 0 to 1"),
        ({"maps": np.full((1, 1, 2, 2), math.nan)}, "no finite numbers"),
        ({"images": np.array(["a.png"], dtype=object)}, "save plain arrays, without objects"),
    ]
    for change, message in bad:
        np.savez(path, **{**good, **change})
        with pytest.raises(CxrfastError, match=message):
            evaluate_files([path], ground_truth, find_protocol("strict"), FACTS, resamples=20)
    np.savez(path, images=good["images"])
    with pytest.raises(CxrfastError, match="has no array classes, maps"):
        evaluate_files([path], ground_truth, find_protocol("strict"), FACTS, resamples=20)


def test_masks_that_do_not_fit_are_named():
    for segmentation, message in (
        ([[0, 0, 5, 5]], "polygons must be drawn first"),
        ({"size": [4, 4], "counts": [25]}, r"size \[4, 4\] is not that of its image, \[5, 5\]"),
        ({"counts": [3, 4]}, "add up to 7, expected 25"),
        ({"counts": "\x01"}, "which COCO does not write"),
        ({"counts": "h"}, "ends within a number"),
    ):
        with pytest.raises(CxrfastError, match=message):
            decode_rle(segmentation, 5, 5, "x")


def test_a_folder_with_tables_and_no_images_will_do(real_data, tmp_path):
    """All 984 boxes of the release, predicted exactly, from its box table alone."""
    rows = ["image,class,x1,y1,x2,y2,score"]
    records = read_chestxray14(real_data / "nih", images_required=False).records
    for record in records:
        for name, boxes in record.boxes.items():
            rows += [f"{record.image},{name},{','.join(str(v * 1024) for v in box)},1" for box in boxes]
    assert len(rows) == 985
    path = tmp_path / "boxes.csv"
    path.write_text("\n".join(rows) + "\n")
    result = evaluate_data_set(
        [path], real_data / "nih", protocol="wang2017", options=DataOptions(labels="2017"), resamples=20
    )
    assert result.n_images == 880
    assert result.n_patients == 726
    n = dict(zip(result.class_names, result.localization.n_units.tolist(), strict=True))
    assert (n["Atelectasis"], n["Effusion"], n["Cardiomegaly"], n["Infiltration"]) == (180, 153, 146, 123)
    for table in result.localization.tables:
        assert (table.accuracy == 1).all()
        assert (table.false_positives == 0).all()
