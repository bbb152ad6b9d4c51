"""Curves against the numbers that stand beside them, and against scikit-learn."""

import math
import re
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from cxrfast.report.html.charts import nice_ticks, thin
from cxrfast.report.html.curves import (
    froc_panels,
    learning_charts,
    rates_at,
    reliability_panels,
    roc_panels,
    roc_points,
)
from tests.report.made_up import made_up


def test_roc_points_are_those_of_scikit_learn(tmp_path):
    evaluated = made_up(tmp_path, 80, ("Mass", "Nodule"))
    predictions = evaluated.predictions
    for k, name in enumerate(predictions.class_names):
        points = np.array(roc_points(predictions, k))
        label, score = predictions.labels[:, k].numpy(), predictions.prob[:, k].numpy()
        false, true, _ = roc_curve(label, score, drop_intermediate=False)
        np.testing.assert_allclose(points, np.stack([false, true], axis=1), atol=1e-6)
        area = np.trapezoid(points[:, 1], points[:, 0])
        assert area == pytest.approx(evaluated.record.classes[name].auroc, abs=1e-6)
        sensitivity = (score[label == 1] >= 0.5).mean()
        assert rates_at(predictions, k, 0.5) == pytest.approx(((score[label == 0] >= 0.5).mean(), sensitivity))


def test_thinned_curves_stay_near_and_keep_their_ends():
    points = [(i / 10_000, math.sqrt(i / 10_000)) for i in range(10_001)]
    kept = thin(points)
    assert len(kept) < 600
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    gaps = [max(abs(a - c), abs(b - d)) for (a, b), (c, d) in pairwise(kept)]
    assert max(gaps) < 0.012


def test_classes_without_a_curve_say_why(tmp_path):
    evaluated = made_up(tmp_path, 3, ("Mass", "Nodule"), boxed=("Mass",))
    labels = evaluated.predictions.labels
    for panels, reason in ((roc_panels([evaluated]), "no negative image"), (froc_panels([evaluated]), "no annotated")):
        missing = [panel for panel in panels if panel.chart is None]
        assert missing
        assert all(panel.reason.startswith(reason) for panel in missing)
    assert (labels == 1).all(dim=0).any()
    assert all(panel.chart is not None for panel in reliability_panels([evaluated]))


def test_froc_panels_have_the_mean_of_the_sensitivities(tmp_path):
    evaluated = made_up(tmp_path, 40, ("Mass",))
    froc = evaluated.record.detection.froc
    (panel,) = froc_panels([evaluated])
    assert panel.figure == f"mean {np.mean(froc.sensitivity['Mass']):.3f}"
    for rate, expected in zip(froc.false_positives_per_image, froc.sensitivity["Mass"], strict=True):
        reached = [found for false, found in froc.curves["Mass"] if false <= rate]
        assert reached[-1] == pytest.approx(expected)


def test_learning_curves_mark_stages_and_kept_epochs():
    rows = [
        {
            "stage": stage,
            "epoch": e,
            "train_loss": 1 / e,
            "val_auroc": 0.5 + e / 10,
            "val_iou_accuracy": None,
            "best": e < 3,
        }
        for stage, epochs in (("unary", 3), ("crf", 2))
        for e in range(1, epochs + 1)
    ]
    (_, loss), (_, validation) = learning_charts(rows)
    for chart in (loss, validation):
        assert re.findall(r"stage (\w+)", chart) == ["unary", "crf"]
        assert chart.count('class="kept first"') == 2
    assert 'class="dot second"' not in validation
    assert learning_charts([]) == []
    assert len(learning_charts([{"stage": "a", "epoch": 1, "train_loss": float("nan")}])) == 1


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 5.08), (1, 22), (0, 1e-6), (0, 1234), (1, 2)])
def test_ticks_are_round_and_inside(low, high):
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 9
    assert all(low - 1e-9 <= value <= high + 1e-9 for value, _ in ticks)
    assert len({label for _, label in ticks}) == len(ticks)
