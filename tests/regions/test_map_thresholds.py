"""The threshold that is found is the best one that an exhaustive search finds."""

import numpy as np
import pytest
import torch

from cxrfast.regions import AnnotatedMaps, annotated_maps, fit_map_thresholds
from cxrfast.regions.map_thresholds import LEVELS, MINIMUM
from cxrfast.regions.prediction import Prediction
from cxrfast.regions.rule import RegionRule

RECTANGLE = RegionRule(shape="rectangle")


def annotated(n, seed=0, classes=3, side=8):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.5, (n, 1, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.2, 0.5, (n, 1, 2))], axis=2)
    return AnnotatedMaps(
        torch.from_numpy(rng.integers(0, classes, n)),
        torch.from_numpy(rng.random((n, side, side))).float() ** 2,
        torch.from_numpy(rng.random(n)).float(),
        torch.from_numpy(boxes).float(),
        torch.ones(n, 1, dtype=torch.bool),
    )


def iou_by_hand(one, box, threshold):  # [P, P], xyxy fractions
    rows, columns = np.nonzero(one >= threshold)
    if not len(rows):
        return 0.0
    side = one.shape[0]
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / side
    low, high = np.maximum(found[:2], box[:2]), np.minimum(found[2:], box[2:])
    both = np.prod(np.clip(high - low, 0, None))
    return both / (np.prod(found[2:] - found[:2]) + np.prod(box[2:] - box[:2]) - both)


def test_iou_is_that_of_every_pair_at_its_own_threshold():
    pairs = annotated(70)  # more than are computed at once
    thresholds = torch.linspace(0.1, 0.9, 70)
    expected = [
        iou_by_hand(m.numpy(), b[0].numpy().astype(float), t.item())
        for m, b, t in zip(pairs.maps, pairs.boxes, thresholds, strict=True)
    ]
    assert pairs.overlap(RECTANGLE, thresholds, 64).iou.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_best_level_of_each_class():
    pairs = annotated(60, seed=1)
    found = fit_map_thresholds(RECTANGLE, pairs, torch.full((3,), 0.5), 64)
    for k in range(3):
        own = (pairs.class_index == k).nonzero().flatten().tolist()

        def mean(level, own=own):
            return np.mean([iou_by_hand(pairs.maps[i].numpy(), pairs.boxes[i, 0].numpy(), level) for i in own])

        best = max(mean(level.item()) for level in LEVELS)
        assert mean(found[k].item()) == pytest.approx(best, abs=1e-6)


def test_classes_with_few_boxes_share_a_threshold_and_without_any_keep_the_default():
    pairs = annotated(30, classes=2)
    few = AnnotatedMaps(*(column[: MINIMUM - 1] for column in pairs))
    default = torch.tensor([0.4, 0.5, 0.6])
    assert torch.equal(fit_map_thresholds(RECTANGLE, few, default, 64), default)
    found = fit_map_thresholds(RECTANGLE, pairs, default, 64)
    together = fit_map_thresholds(
        RECTANGLE, pairs._replace(class_index=torch.zeros(30, dtype=torch.long)), default[:1], 64
    )
    assert found[2] == together[0]
    nothing = AnnotatedMaps(*(column[:0] for column in pairs))
    assert torch.equal(fit_map_thresholds(RECTANGLE, nothing, default, 64), default)
    assert nothing.overlap(RECTANGLE, torch.empty(0), 64).ior.shape == (0,)


def test_annotated_maps_are_the_pairs_with_a_box():
    prediction = Prediction(torch.rand(2, 3), torch.rand(2, 3, 4, 4))
    has_box = torch.tensor([[[0, 0], [1, 0], [1, 1]], [[0, 0], [0, 0], [0, 1]]], dtype=torch.bool)
    boxes = torch.rand(2, 3, 2, 4)
    found = annotated_maps(prediction, boxes, has_box)
    assert found.class_index.tolist() == [1, 2, 2]
    for row, (n, k) in enumerate([(0, 1), (0, 2), (1, 2)]):
        assert torch.equal(found.maps[row], prediction.maps[n, k])
        assert found.scores[row] == prediction.scores[n, k]
        assert torch.equal(found.boxes[row], boxes[n, k])
        assert torch.equal(found.has_box[row], has_box[n, k])
