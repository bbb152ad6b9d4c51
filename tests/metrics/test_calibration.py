"""Calibration against torchmetrics and scikit-learn, and on data whose temperature is known."""

import math

import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional.classification import binary_calibration_error

from cxrfast.metrics import (
    auroc,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_curve,
)


@pytest.fixture
def overconfident():
    """[4000, 3] probabilities whose logits are 2.5, 1 and 0.4 times what they should be, and labels."""
    generator = torch.Generator().manual_seed(0)
    logits = 1.5 * torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    labels = (torch.rand(4000, 3, generator=generator) < logits.sigmoid()).double()
    return (logits * torch.tensor([2.5, 1.0, 0.4])).sigmoid(), labels


def test_ece_equals_torchmetrics(overconfident):
    probabilities, labels = overconfident
    for bins in (1, 10, 15):
        expected = [
            binary_calibration_error(probabilities[:, k].clone(), labels[:, k].long(), n_bins=bins, norm="l1").item()
            for k in range(3)
        ]
        result = expected_calibration_error(probabilities, labels, bins=bins)
        torch.testing.assert_close(result.tolist(), expected, rtol=0, atol=1e-6)


def test_the_curve_equals_scikit_learn(overconfident):
    probabilities, labels = overconfident
    curve = reliability_curve(probabilities, labels, bins=12)
    for k in range(3):
        frequency, probability = calibration_curve(labels[:, k], probabilities[:, k], n_bins=12)
        full = curve.images[k] > 0
        torch.testing.assert_close(curve.frequency[k, full], torch.tensor(frequency))
        torch.testing.assert_close(curve.probability[k, full], torch.tensor(probability))
        assert curve.images[k].sum() == 4000


def test_edges_belong_to_the_lower_bin_and_empty_bins_are_nan():
    curve = reliability_curve(
        torch.tensor([[0.0], [0.25], [0.5], [1.0]]), torch.tensor([[0.0], [1.0], [1.0], [1.0]]), bins=4
    )
    assert curve.images.tolist() == [[2, 1, 0, 1]]
    assert curve.frequency[0, :2].tolist() == [0.5, 1.0]
    assert curve.frequency[0, 2].isnan()
    assert curve.probability[0, 2].isnan()


def test_the_temperature_is_that_of_a_logistic_regression(overconfident):
    probabilities, labels = overconfident
    temperature = fit_temperature(probabilities, labels)
    for k in range(3):
        regression = LogisticRegression(C=math.inf, fit_intercept=False, tol=1e-10)
        regression.fit(probabilities[:, k : k + 1].logit(), labels[:, k])
        assert 1 / temperature[k].item() == pytest.approx(regression.coef_[0, 0], rel=1e-4)
    assert temperature.tolist() == pytest.approx([2.5, 1.0, 0.4], rel=0.1)


def test_calibrated_probabilities_are_better_and_in_the_same_order(overconfident):
    probabilities, labels = overconfident
    calibrated = calibrate(probabilities, fit_temperature(probabilities, labels))
    assert (expected_calibration_error(calibrated, labels) < 0.03).all()
    assert (expected_calibration_error(probabilities, labels)[[0, 2]] > 0.06).all()
    assert (negative_log_likelihood(calibrated, labels) <= negative_log_likelihood(probabilities, labels)).all()
    torch.testing.assert_close(auroc(calibrated, labels), auroc(probabilities, labels), rtol=0, atol=1e-12)


def test_unknown_labels_do_not_count(overconfident):
    probabilities, labels = overconfident
    labels[::2] = math.nan
    torch.testing.assert_close(
        expected_calibration_error(probabilities, labels),
        expected_calibration_error(probabilities[1::2], labels[1::2]),
    )
    torch.testing.assert_close(
        fit_temperature(probabilities, labels), fit_temperature(probabilities[1::2], labels[1::2])
    )


@pytest.mark.parametrize("seed", range(5))
def test_unknown_labels_are_as_if_removed_by_hand(seed):
    """Three classes of which some labels are unknown, and one of which nothing is known."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(200, 4, generator=generator, dtype=torch.float64)
    labels = (torch.rand(200, 4, generator=generator) < probabilities.square()).double()
    labels[torch.rand(200, 4, generator=generator) < 0.2 * seed] = math.nan
    labels[:, 3] = math.nan
    measures = (expected_calibration_error, fit_temperature, negative_log_likelihood)
    curve = reliability_curve(probabilities, labels)
    for k in range(4):
        rows = ~labels[:, k].isnan()
        alone = probabilities[rows, k, None], labels[rows, k, None]
        for measure in measures:
            found, expected = measure(probabilities, labels)[k, None], measure(*alone)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12, equal_nan=True)
        for found, expected in zip(curve, reliability_curve(*alone), strict=True):
            torch.testing.assert_close(found[k, None], expected, rtol=1e-9, atol=1e-12, equal_nan=True)
    assert all(measure(probabilities, labels)[3].isnan() for measure in measures)
    full = labels.nan_to_num(0.0)
    for measure in measures:
        bits = measure(probabilities, full), measure(probabilities, full.bool())
        torch.testing.assert_close(*bits, rtol=0, atol=0, equal_nan=True)


def test_what_cannot_be_fitted_is_nan_and_the_extremes_are_bounded():
    perfect = torch.tensor([[0.1]] * 5 + [[0.9]] * 5)
    labels = torch.tensor([[0.0]] * 5 + [[1.0]] * 5)
    assert fit_temperature(perfect, labels).item() == pytest.approx(0.01)
    assert fit_temperature(1 - perfect, labels).item() == pytest.approx(100)
    assert fit_temperature(perfect[1:], labels[1:]).isnan()
    assert calibrate(perfect, torch.tensor([math.nan])).isnan().all()
    assert expected_calibration_error(perfect, torch.full((10, 1), math.nan)).isnan()
    assert calibrate(torch.tensor([[0.0], [1.0]]), torch.tensor([2.0])).isfinite().all()


def test_logits_are_refused():
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 3.0; pass scores through a sigmoid first"):
        expected_calibration_error(torch.tensor([[3.0]]), torch.tensor([[1.0]]))
