"""An evaluation from files on the disk to the printed table, with a predictor whose answers are known."""

import csv
import dataclasses
import json
import math

import cv2
import numpy as np
import pytest
import torch

from cxrfast.data.dataset import XrayDataset
from cxrfast.data.datasets.chestxray14 import read_chestxray14
from cxrfast.data.labels import BOXED_CLASSES
from cxrfast.data.patches import boxes_to_patches
from cxrfast.data.records import Record
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation import PROTOCOLS, evaluate, find_protocol
from cxrfast.metrics import bootstrap_interval_with_mean, weighted_auroc, weighted_average_precision, weighted_mean
from cxrfast.predictions.table import COLUMNS
from cxrfast.regions.rule import RegionRule
from cxrfast.report.terminal import evaluation_to_text
from tests.predictors import FakePredictor, constant_answer

CLASSES = ("Mass", "Nodule", "Hernia")
SIZE, GRID = 32, 4
OPTIONS = {"split": "test", "label_version": "v2020", "batch_size": 3, "resamples": 20}
PAPER = {**OPTIONS, "protocol": "rozenberg2019"}
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
        FakePredictor(CLASSES, SIZE, answer), XrayDataset(records, CLASSES, SIZE), workers=workers, **PAPER
    )
    assert result.n_images == 5
    assert result.n_positive == (3, 1, 0)
    assert result.n_negative == (2, 4, 5)
    # Mass: positives 0, 120, 180 against 60 and 240: 0 beats both, 120 and 180 beat one. Nodule: 120 beats 0 and 60.
    assert result.auroc.value[:2].tolist() == [4 / 6, 2 / 4]
    assert result.auroc.value[2].isnan()
    assert result.localization.n_units.tolist() == [2, 1, 0]
    for table in result.localization.tables:
        assert table.accuracy[0, :2].tolist() == [0.5, 1.0]
        assert table.accuracy[0, 2].isnan()
    assert result.mean_auroc[:2] == ((4 / 6 + 2 / 4) / 2, ("Hernia",))
    assert [mean[:2] for mean in result.localization.tables[0].means(CLASSES)] == [(0.75, ("Hernia",))]
    # Two boxes of one class are one annotation, their union: both quarters of the region
    assert result.predictions.iou[2, 1] == 0.5
    assert result.predictions.ior[2, 1] == 0.5
    assert result.predictions.iou.isnan().sum() == 15 - 3


def test_t_is_the_overlap_asked_for(records):
    dataset = XrayDataset(records, CLASSES, SIZE)
    protocol = find_protocol("rozenberg2019").with_thresholds(0.5, 0.51)
    result = evaluate(FakePredictor(CLASSES, SIZE, answer), dataset, **{**OPTIONS, "protocol": protocol})
    assert result.localization.tables[0].accuracy[:, 1].tolist() == [1, 0]


def test_json_and_text(records, tmp_path):
    result = evaluate(FakePredictor(CLASSES, SIZE, answer), XrayDataset(records, CLASSES, SIZE), **PAPER)
    assert "splits" not in evaluation_to_text(result)
    result = dataclasses.replace(result, split_hash="0123456789abcdef")
    result.save(tmp_path / "new" / "result.json")
    data = json.loads((tmp_path / "new" / "result.json").read_text())
    assert data["protocol"] == "rozenberg2019"
    assert data["split_hash"] == "0123456789abcdef"
    assert data["label_version"] == "v2020"
    assert data["shared_patients"] is None
    hernia = data["classes"]["Hernia"]
    assert (hernia["n_positive"], hernia["n_negative"], hernia["n_annotated"], hernia["auroc"]) == (0, 5, 0, None)
    bins = hernia["reliability"]
    assert sum(row["images"] for row in bins) == 5
    assert {row["frequency"] for row in bins} == {0.0}
    found = data["localization"]
    assert found["grid"] == [GRID, GRID]
    assert [(table["measure"], table["inclusive"], table["gate"]) for table in found["tables"]] == [
        ("iou", True, {"kind": "none"}),
        ("ior", True, {"kind": "none"}),
    ]
    assert (found["threshold"], found["minmax_normalised"]) == ({"kind": "fixed", "value": 0.5}, False)
    row = found["tables"][0]["rows"][0]
    assert row["T"] == 0.1
    # Nodule is of one patient, so neither it nor the mean has an interval
    assert row["mean"] == {"value": 0.75, "left_out": ["Hernia"], "interval": [None, None]}
    assert row["classes"]["Mass"] | {"low": 0, "high": 0} == {
        "accuracy": 0.5,
        "low": 0,
        "high": 0,
        "hits": 1,
        "oracle": 1.0,
        "false_positives": None,
        "afp": None,
    }
    assert row["classes"]["Hernia"]["accuracy"] is None
    lines = evaluation_to_text(result).splitlines()
    assert "splits 0123456789ab" in " ".join(lines)
    assert "patients shared with training: unknown" in " ".join(line.strip() for line in lines)
    assert max(map(len, lines)) <= 100
    table = [line.split() for line in lines if line.startswith("Mass")]
    assert table[0][:3] == ["Mass", "3", "0.667"]
    assert table[1][:2] == ["Mass", "0.50"]  # at the operating point
    assert table[2][:3] == ["Mass", "2", "0.500"]
    means = [line.split() for line in lines if line.startswith("mean")]
    assert means[0][1] == "0.583"
    assert means[1][1] == "0.750"


def test_means_have_intervals_from_the_resamples_of_the_classes(tmp_path):
    records = []
    for n in range(16):
        path = tmp_path / f"{n}.png"
        cv2.imwrite(str(path), np.full((8, 8), 15 * n, np.uint8))
        names = {name for name, found in (("Mass", n % 2), ("Nodule", n % 3 != 1)) if found}
        corner = 0.0 if n % 5 < 3 else 0.5
        boxes = dict.fromkeys(names, ((corner, corner, corner + 0.5, corner + 0.5),))
        records.append(Record(path.name, path, f"p{n % 12}", frozenset(names), boxes))
    dataset, predictor = XrayDataset(records, CLASSES, SIZE), FakePredictor(CLASSES, SIZE, answer)
    for thresholds in ((0.1,), (0.1, 0.3, 0.5)):
        protocol = find_protocol("rozenberg2019").with_thresholds(*thresholds)
        result = evaluate(predictor, dataset, **{**OPTIONS, "protocol": protocol})
        found = result.predictions
        boxed = (found.n_boxes > 0).any(dim=1)
        hits = torch.where(found.iou.isnan(), torch.nan, (found.iou >= 0.1).double())[boxed]
        of_boxes = [patient for patient, has in zip(found.patients, boxed.tolist(), strict=True) if has]
        data = json.loads(result.record.to_json())
        table = data["localization"]["tables"][0]
        for statistic, patients, mean in (
            (weighted_auroc(found.prob, found.labels), found.patients, data["mean"]["auroc"]),
            (weighted_average_precision(found.prob, found.labels), found.patients, data["mean"]["average_precision"]),
            (weighted_mean(hits), of_boxes, table["rows"][0]["mean"]),
        ):
            _, expected = bootstrap_interval_with_mean(statistic, patients, resamples=20)
            assert [mean["value"], *mean["interval"]] == pytest.approx([column.item() for column in expected])
            assert mean["left_out"] == ["Hernia"]
        text = evaluation_to_text(result)
        assert max(map(len, text.splitlines())) <= 100
        rows = [line.split() for line in text.splitlines()]
        means = [row for row in rows if row[:1] == ["mean"]]
        low, high = data["mean"]["auroc"]["interval"]
        assert means[0][2] == f"{low:.2f}–{high:.2f}"
        ends = [row["mean"]["interval"] for row in table["rows"]]
        if len(ends) == 1:
            assert means[1][2] == f"{ends[0][0]:.2f}–{ends[0][1]:.2f}"
        else:
            for words, column in ((["95", "%", "from"], 0), (["to"], 1)):
                (row, _) = [row for row in rows if row[: len(words)] == words]
                assert row[len(words) :] == [f"{end[column]:.3f}" for end in ends]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_runs_and_says_its_name(records, protocol):
    records = [dataclasses.replace(record, boxes=record.boxes or {}) for record in records]
    result = evaluate(
        FakePredictor(CLASSES, SIZE, answer), XrayDataset(records, CLASSES, SIZE), **{**OPTIONS, "protocol": protocol}
    )
    text = evaluation_to_text(result)
    assert f"protocol {protocol} (" in text
    assert max(map(len, text.splitlines())) <= 100
    assert json.loads(result.record.to_json())["protocol"] == protocol


def test_patients_of_training_are_counted_and_refused_by_strict(records):
    dataset, predictor = XrayDataset(records, CLASSES, SIZE), FakePredictor(CLASSES, SIZE, answer)
    seen = {"p0", "p60", "stranger"}
    assert evaluate(predictor, dataset, training_patients=seen, **PAPER).shared_patients == 2
    assert evaluate(predictor, dataset, training_patients={"stranger"}, **OPTIONS).shared_patients == 0
    with pytest.raises(UsageError, match="protocol strict: 2 patients of the evaluated images are in the training"):
        evaluate(predictor, dataset, training_patients=seen, **OPTIONS)


def test_calibrated_probabilities_are_a_second_output(records, tmp_path):
    predictor = FakePredictor(CLASSES, SIZE, answer)
    dataset = XrayDataset(records, CLASSES, SIZE)
    result = evaluate(predictor, dataset, temperature=torch.tensor([2.0, 1.0, math.nan]), **OPTIONS)
    prob, calibrated = result.predictions.prob, result.predictions.prob_calibrated
    # The first image's score is 1, whose logit is not finite.
    torch.testing.assert_close(calibrated[1:, 0], (prob[1:, 0].double().logit() / 2).sigmoid())
    torch.testing.assert_close(calibrated[1:, 1], prob[1:, 1].double())
    assert calibrated[:, 2].isnan().all()
    assert evaluate(predictor, dataset, **OPTIONS).predictions.prob_calibrated is None
    result.predictions.write_csv(tmp_path / "predictions.csv")
    assert "calibrated" in evaluation_to_text(result)


def test_predictions_are_one_row_per_image_and_class(records, tmp_path):
    result = evaluate(FakePredictor(CLASSES, SIZE, answer), XrayDataset(records, CLASSES, SIZE), **PAPER)
    result.predictions.write_csv(tmp_path / "predictions.csv")
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 5 * 3
    expected = ["0.png", "p0", "Mass", "", "", "1", "1", "1", "1"]
    assert rows[0] | {"prob": ""} == dict(zip(COLUMNS, expected, strict=True))
    assert rows[1]["iou"] == ""
    scores = torch.tensor([float(row["prob"]) for row in rows]).reshape(5, 3)
    assert torch.equal(scores, result.predictions.prob)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_and_left_out(records, workers):
    records[1].path.write_bytes(b"no image")
    records[4].path.unlink()
    result = evaluate(
        FakePredictor(CLASSES, SIZE, answer), XrayDataset(records, CLASSES, SIZE), workers=workers, **OPTIONS
    )
    assert result.n_images == 3
    assert list(result.predictions.unreadable) == ["60.png", "240.png"]
    assert result.localization.n_units.tolist() == [1, 1, 0]
    assert "2 of the split's images could not be read" in evaluation_to_text(result)
    assert str(records[4].path) in evaluation_to_text(result).replace("\n  ", "")


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
    with pytest.raises(UsageError, match="protocol is 'x'"):
        evaluate(predictor, dataset, **{**OPTIONS, "protocol": "x"})
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
    ground_truth = iter(dataset)

    def oracle(image):
        item = next(ground_truth)
        assert torch.equal(item["image"][0], image)
        patches = boxes_to_patches(item["boxes"], item["has_box"], SIZE, 20)
        return item["labels"] * 0.8 + 0.1, patches * 0.8 + 0.1

    result = evaluate(FakePredictor(BOXED_CLASSES, SIZE, oracle), dataset, **PAPER)
    assert result.n_images == len(records) == 14
    n_boxed = result.localization.n_units.tolist()
    assert sum(n_boxed) == sum(len(boxes) for record in records for boxes in record.boxes.values())
    scored = result.predictions.n_boxes > 0
    assert (result.predictions.iou[scored] > 0.25).all()
    assert (result.predictions.ior[scored] > 0.5).all()
    table = result.localization.tables[0]
    for n, n_positive, accuracy, best, area in zip(
        n_boxed, result.n_positive, table.accuracy[0], table.oracle[0], result.auroc.value, strict=True
    ):
        assert n_positive >= n  # boxes imply labels
        assert accuracy == best == 1 if n else math.isnan(accuracy)
        assert area == 1 if 0 < n_positive < 14 else math.isnan(area)


def test_regions_are_the_methods_own_or_the_papers(records):
    dataset = XrayDataset(records, CLASSES, SIZE)
    other = FakePredictor(CLASSES, SIZE, answer, threshold=0.45)
    other.region_rule = RegionRule("boxes", "peak", gate=1.0)
    paper, own = (evaluate(other, dataset, **{**OPTIONS, "protocol": name}) for name in ("rozenberg2019", "strict"))
    assert paper.localization.rule == RegionRule()
    assert paper.localization.tables[0].accuracy[0, :2].tolist() == [0.5, 1]
    assert str(own.localization.rule) == "box around the component of the maximum, map ≥ the threshold"
    kept = evaluate(other, dataset, **{**OPTIONS, "protocol": "own"}).localization
    assert str(kept.tables[0].gate) == "score > 1"
    assert kept.tables[0].hits.sum() == 0
    # The gate is the protocol's: no image exceeds the method's own.
    assert own.localization.tables[0].hits.sum() > 0
    other.region_rule = RegionRule("boxes", levels=(0.25, 0.75))
    text = " ".join(evaluation_to_text(evaluate(other, dataset, **OPTIONS)).split())
    assert "region: box around every component, map ≥ 0.25 or 0.75 positive" in text
