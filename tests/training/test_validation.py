"""What makes one epoch better than another."""

import math

import pytest
import torch

from cxrfast.metrics import auroc, choose_operating_points
from cxrfast.regions.prediction import Prediction
from cxrfast.regions.rule import RegionRule
from cxrfast.training.validation import Validation, validate

NAN = math.nan


def made(auroc: tuple[float, ...], iou: tuple[float, ...]) -> Validation:
    return Validation(auroc, iou)


def test_with_boxes_for_every_class_the_score_is_the_mean_of_the_two_means():
    found = made((0.9, 0.7), (0.5, 0.1))
    assert found.auroc == pytest.approx(0.8)
    assert found.iou_accuracy == pytest.approx(0.3)
    assert found.score == pytest.approx((0.8 + 0.3) / 2)


def test_a_single_box_does_not_outweigh_the_auroc():
    """With a box for one class of eight, an epoch that happens to hit it is not better than one that ranks images."""
    lucky, better = made((0.6,) * 8, (1.0, *(NAN,) * 7)), made((0.9,) * 8, (0.0, *(NAN,) * 7))
    assert lucky.iou_accuracy == 1
    assert better.iou_accuracy == 0
    assert better.score > lucky.score


def test_without_boxes_the_score_is_the_auroc_and_without_anything_not_a_number():
    assert made((0.9, NAN, 0.7), (NAN, NAN, NAN)).score == pytest.approx(0.8)
    nothing = made((NAN,), (NAN,))
    assert math.isnan(nothing.score)
    assert nothing.row() == {"val_auroc": None, "val_iou_accuracy": None, "val_score": None}


class Scores:
    """A method without boxes whose scores are the first pixels of the images."""

    class_names = ("Mass", "Nodule", "Edema")
    map_thresholds = torch.full((3,), 0.5)
    region_rule = RegionRule()

    def predict(self, images, stage):
        return Prediction(images[:, 0, 0, :3], torch.zeros(len(images), 3, 4, 4))

    def fit_map_thresholds(self, annotated):
        pass


def test_unknown_labels_are_as_if_removed_by_hand():
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(60, 3, generator=generator) < 0.5).float()
    labels[torch.rand(60, 3, generator=generator) < 0.4] = NAN
    labels[:, 2] = NAN
    data = {
        "image": torch.rand(60, 1, 4, 4, generator=generator),
        "labels": labels,
        "boxes": torch.zeros(60, 3, 1, 4),
        "has_box": torch.zeros(60, 3, 1, dtype=torch.bool),
    }
    batches = [{key: value[rows] for key, value in data.items()} for rows in (slice(0, 25), slice(25, 60))]
    found = validate(Scores(), "stage", batches, 4)
    points = found.choose_operating_points([str(n) for n in range(60)], "sensitivity=0.8")
    for k in range(2):
        known = ~labels[:, k].isnan()
        alone = data["image"][known, 0, 0, k, None], labels[known, k, None].bool()
        assert found.class_auroc[k] == auroc(*alone).item()
        assert points.threshold[k] == choose_operating_points(*alone, criterion="sensitivity=0.8").threshold
    assert math.isnan(found.class_auroc[2])
    assert points.threshold[2].isnan()
    assert found.score == pytest.approx(sum(found.class_auroc[:2]) / 2)
