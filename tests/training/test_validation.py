"""What makes one epoch better than another."""

import math

import pytest

from cxrfast.training.validation import Validation

NAN = math.nan


def made(auroc: tuple[float, ...], iou: tuple[float, ...]) -> Validation:
    return Validation(auroc, iou, (NAN,) * len(auroc))


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
