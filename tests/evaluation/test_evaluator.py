"""An evaluation from files on the disk to the printed table, with a predictor whose answers are known."""

import csv
import dataclasses
import json
import math

import cv2
import numpy as np
import pytest
import torch

from cxrfast.data.chestxray14 import read_chestxray14
from cxrfast.data.dataset import XrayDataset
from cxrfast.data.labels import BOXED_CLASSES
from cxrfast.data.patches import boxes_to_patches
from cxrfast.data.records import Record
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation import evaluate
from cxrfast.evaluation.predictions import COLUMNS
from cxrfast.regions import RegionRule
from tests.predictors import FakePredictor, constant_answer

CLASSES = ("Mass", "Nodule", "Hernia")
SIZE, GRID = 32, 4
OPTIONS = {"split": "test", "label_version": "v2020", "batch_size": 3}
# Image number, which is also its grey value: labels, boxes
KNOWN = {
    0: ({"Mass"}, {"Mass": ((0.0, 0.0, 0.5, 0.5),)}),  # region = box
    60: (set(), {"Mass": ((0.5, 0.5, 1.0, 1.0),)}),  # disjoint; boxed although the labels lack it
    120: ({"Mass", "Nodule"}, {"Nodule": ((0.0, 0.0, 0.25, 0.25), (0.25, 0.25, 0.5, 0.5))}),  # half of the region
    180: ({"Mass"}, {}),  # an unannotated positive: in AUROC, not in localisation
    240: (set(), {}),
}


@pytest.fixture
def records(tmp_path):
    records = []
    for grey, (labels, boxes) in KNOWN.items():
        path = tmp_path / f"{grey}.png"
        cv2.imwrite(str(path), np.full((40, 50), grey, np.uint8))
        records.append(Record(path.name, path, f"p{grey}", frozenset(labels), boxes))
    return records


def answer(image):
    """The brighter, the lower the score of Mass; the map is hot in the upper left quarter, at 0.5 exactly."""
    brightness = (image.mean() + 1) / 2
    hot = torch.full((3, GRID, GRID), 0.4999)
    hot[:, : GRID // 2, : GRID // 2] = 0.5
    return torch.stack([1 - brightness, brightness, brightness]), hot


@pytest.mark.parametrize("workers", [0, 1])
def test_the_numbers_are_those_worked_out_by_hand(records, workers):
    result = evaluate(
        FakePredictor(CLASSES, SIZE, answer), XrayDataset(records, CLASSES, SIZE), workers=workers, **OPTIONS
    )
    assert result.n_images == 5
    assert result.n_positive == (3, 1, 0)
    assert result.n_negative == (2, 4, 5)
    # Mass: positives 0, 120, 180 against 60 and 240: 0 beats both, 120 and 180 beat one. Nodule: 120 beats 0 and 60.
    assert result.auroc[:2] == (4 / 6, 2 / 4)
    assert math.isnan(result.auroc[2])
    assert result.n_boxed == (2, 1, 0)
    assert result.iou_accuracy[:2] == (0.5, 1.0)
    assert result.ior_accuracy[:2] == (0.5, 1.0)
    assert math.isnan(result.iou_accuracy[2])
    assert result.mean_auroc == ((4 / 6 + 2 / 4) / 2, ("Hernia",))
    assert result.mean_iou_accuracy == (0.75, ("Hernia",))
    # Two boxes of one class are one annotation, their union: both quarters of the region
    assert result.predictions.iou[2, 1] == 0.5
    assert result.predictions.ior[2, 1] == 0.5
    assert result.predictions.iou.isnan().sum() == 15 - 3


def test_t_is_the_overlap_asked_for(records):
    dataset = XrayDataset(records, CLASSES, SIZE)
    predictor = FakePredictor(CLASSES, SIZE, answer)
    assert evaluate(predictor, dataset, iou_threshold=0.5, **OPTIONS).iou_accuracy[1] == 1
    assert evaluate(predictor, dataset, iou_threshold=0.51, **OPTIONS).iou_accuracy[1] == 0


def test_json_and_text(records, tmp_path):
    result = evaluate(FakePredictor(CLASSES, SIZE, answer), XrayDataset(records, CLASSES, SIZE), **OPTIONS)
    assert "splits" not in result.to_text()
    result = dataclasses.replace(result, split_hash="0123456789abcdef")
    result.save(tmp_path / "new" / "result.json")
    data = json.loads((tmp_path / "new" / "result.json").read_text())
    assert data["protocol"] == "rozenberg2019"
    assert data["iou_threshold"] == 0.1
    assert data["split_hash"] == "0123456789abcdef"
    assert data["classes"]["Hernia"] == {
        "region_threshold": 0.5,
        "n_positive": 0,
        "n_negative": 5,
        "auroc": None,
        "n_boxed": 0,
        "iou_accuracy": None,
        "ior_accuracy": None,
    }
    assert data["mean"]["iou_accuracy"] == {"value": 0.75, "left_out": ["Hernia"]}
    lines = result.to_text().splitlines()
    assert "splits 0123456789ab" in lines[0]
    assert max(map(len, lines)) <= 100
    table = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert table["Mass"] == ["3", "0.667", "2", "0.500", "0.500"]
    assert table["Hernia"] == ["0", "-", "0", "-", "-"]
    assert table["mean"] == ["0.583", "0.750", "0.750"]
    assert len({len(line) for line in lines if line.startswith(("Mass", "Hernia", "mean", "Nodule"))}) == 1


def test_predictions_are_one_row_per_image_and_class(records, tmp_path):
    result = evaluate(FakePredictor(CLASSES, SIZE, answer), XrayDataset(records, CLASSES, SIZE), **OPTIONS)
    result.predictions.write_csv(tmp_path / "predictions.csv")
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 5 * 3
    assert rows[0] | {"score": ""} == dict(zip(COLUMNS, ["0.png", "p0", "Mass", "", "1", "1", "1", "1"], strict=True))
    assert rows[1]["iou"] == ""
    scores = torch.tensor([float(row["score"]) for row in rows]).reshape(5, 3)
    assert torch.equal(scores, result.predictions.scores)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_and_left_out(records, workers):
    records[1].path.write_bytes(b"no image")
    records[4].path.unlink()
    result = evaluate(
        FakePredictor(CLASSES, SIZE, answer), XrayDataset(records, CLASSES, SIZE), workers=workers, **OPTIONS
    )
    assert result.n_images == 3
    assert list(result.predictions.unreadable) == ["60.png", "240.png"]
    assert result.n_boxed == (1, 1, 0)
    assert "2 of the split's images could not be read" in result.to_text()
    assert str(records[4].path) in result.to_text().replace("\n  ", "")


def test_nothing_to_evaluate_is_an_error(records):
    predictor = FakePredictor(CLASSES, SIZE, answer)
    with pytest.raises(CxrfastError, match="no image of the split can be evaluated: it is empty"):
        evaluate(predictor, XrayDataset([], CLASSES, SIZE), **OPTIONS)
    for record in records:
        record.path.unlink()
    with pytest.raises(CxrfastError, match=r"no image of the split can be evaluated: .*0\.png"):
        evaluate(predictor, XrayDataset(records, CLASSES, SIZE), **OPTIONS)


def test_output_that_is_no_number_is_an_error(records):
    maps = torch.full((3, GRID, GRID), 0.5)
    maps[1, 2, 3] = math.nan
    predictor = FakePredictor(CLASSES, SIZE, constant_answer([0.5, 0.5, 0.5], maps))
    with pytest.raises(CxrfastError, match=r"best\.safetensors: the model's output is not a number"):
        evaluate(predictor, XrayDataset(records, CLASSES, SIZE), **OPTIONS)


def test_what_does_not_fit_is_refused(records):
    predictor = FakePredictor(CLASSES, SIZE, answer)
    dataset = XrayDataset(records, CLASSES, SIZE)
    with pytest.raises(UsageError, match="classes"):
        evaluate(predictor, XrayDataset(records, CLASSES[::-1], SIZE), **OPTIONS)
    with pytest.raises(UsageError, match="takes images of 32 pixels, the data have 64"):
        evaluate(predictor, XrayDataset(records, CLASSES, 64), **OPTIONS)
    for threshold in (0, -1, 1.5, math.nan):
        with pytest.raises(UsageError, match="T is"):
            evaluate(predictor, dataset, iou_threshold=threshold, **OPTIONS)
    with pytest.raises(UsageError, match="batch size is 0"):
        evaluate(predictor, dataset, **{**OPTIONS, "batch_size": 0})


def test_the_images_hash_knows_the_images_and_not_their_order(records):
    def images_hash(records):
        dataset = XrayDataset(records, CLASSES, SIZE)
        return evaluate(FakePredictor(CLASSES, SIZE, answer), dataset, **OPTIONS).images_hash

    assert images_hash(records) == images_hash(records[::-1])
    assert images_hash(records) != images_hash(records[:4])


def test_an_oracle_on_real_radiographs(real_data):
    """A model that answers with the patches of the true boxes reaches what the grid allows, and no more."""
    data = read_chestxray14(real_data / "nih", labels="2020")
    records = [record for record in data.records if record.boxes]
    dataset = XrayDataset(records, BOXED_CLASSES, SIZE, cache=True)
    truth = iter(dataset)

    def oracle(image):
        item = next(truth)
        assert torch.equal(item["image"][0], image)
        patches = boxes_to_patches(item["boxes"], item["has_box"], SIZE, 20)
        return item["labels"] * 0.8 + 0.1, patches * 0.8 + 0.1

    result = evaluate(FakePredictor(BOXED_CLASSES, SIZE, oracle), dataset, **OPTIONS)
    assert result.n_images == len(records) == 14
    assert sum(result.n_boxed) == sum(len(boxes) for record in records for boxes in record.boxes.values())
    scored = result.predictions.n_boxes > 0
    assert (result.predictions.iou[scored] > 0.25).all()
    assert (result.predictions.ior[scored] > 0.5).all()
    for n_boxed, n_positive, accuracy, area in zip(
        result.n_boxed, result.n_positive, result.iou_accuracy, result.auroc, strict=True
    ):
        assert n_positive >= n_boxed  # boxes imply labels
        assert accuracy == 1 if n_boxed else math.isnan(accuracy)
        assert area == 1 if 0 < n_positive < 14 else math.isnan(area)


def test_regions_are_the_methods_own(records):
    dataset = XrayDataset(records, CLASSES, SIZE)
    paper = evaluate(FakePredictor(CLASSES, SIZE, answer), dataset, **OPTIONS)
    other = FakePredictor(CLASSES, SIZE, answer)
    other.region_rule = RegionRule("boxes", "peak", gate=1.0)
    gated = evaluate(other, dataset, **OPTIONS)
    other.region_rule = RegionRule("boxes", levels=(0.25, 0.75))
    facts = " ".join(evaluate(other, dataset, **OPTIONS).to_text().split())
    assert "region = box around every component, map ≥ 0.25 or 0.75 " in facts
    assert "0.75 0.5" not in facts
    assert paper.protocol == "rozenberg2019"
    assert gated.protocol == "rozenberg2019, regions of fake"
    assert "where the score is over 1" in gated.to_text()
    assert gated.iou_accuracy[:2] == (0, 0)
    assert paper.iou_accuracy[:2] == (0.5, 1)
