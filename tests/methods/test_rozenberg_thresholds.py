"""Thresholds are quantiles of what they bound, per class, inside their ranges."""

import pytest
import torch

from cxrfast.losses import RozenbergLoss
from cxrfast.methods.rozenberg_thresholds import RHO_RANGE, TAU_RANGE, ThresholdFit


def logit(p):
    return torch.logit(torch.as_tensor(p, dtype=torch.float32))


def images(inside, outside, boxed=True, label=1.0):
    """One class on 4×4 patches whose upper half is the box: logits, labels, annotated, region."""
    n = len(inside)
    logits = torch.empty(n, 1, 4, 4)
    logits[:, :, :2] = logit(inside).view(n, 1, 1, 1)
    logits[:, :, 2:] = logit(outside).view(n, 1, 1, 1)
    region = torch.zeros(n, 1, 4, 4, dtype=torch.bool)
    region[:, :, :2] = boxed
    return logits, torch.full((n, 1), label), torch.full((n, 1), boxed), region


def test_bounds_are_quantiles():
    fit = ThresholdFit(1, quantile=0.75, patch_area=1 / 16)
    fit.add(*images(inside=[0.62, 0.7, 0.8, 0.9, 0.94], outside=[0.02, 0.04, 0.06, 0.1, 0.15]))
    criterion = RozenbergLoss(1, area_unit="fraction")
    row = fit.update(criterion)
    assert criterion.tau.item() == pytest.approx(0.9, abs=1e-5)
    assert criterion.rho.item() == pytest.approx(0.04, abs=1e-5)
    assert row["tau"] == criterion.tau.tolist()


def test_bounds_stay_in_their_ranges():
    fit = ThresholdFit(1, quantile=0.75, patch_area=1 / 16)
    fit.add(*images(inside=[0.01, 0.01, 0.02], outside=[0.9, 0.9, 0.9]))
    criterion = RozenbergLoss(1, area_unit="fraction")
    fit.update(criterion)
    assert criterion.tau.item() == pytest.approx(TAU_RANGE[0])
    assert criterion.rho.item() == pytest.approx(RHO_RANGE[1])


def test_areas_of_images_without_boxes():
    fit = ThresholdFit(1, quantile=0.75, patch_area=1 / 16)
    fit.add(*images(inside=[0.9, 0.9], outside=[0.1, 0.1]))  # boxes of 8 patches
    fit.add(*images(inside=[0.3, 0.5, 0.5, 0.5], outside=[0.0, 0.0, 0.0, 0.0], boxed=False))  # Σz of 2.4 to 4
    fit.add(*images(inside=[0.05, 0.1, 0.2], outside=[0.0, 0.0, 0.0], boxed=False, label=0.0))  # Σz of 0.4 to 1.6
    criterion = RozenbergLoss(1, area_unit="fraction")
    fit.update(criterion)
    assert criterion.tau_hat.item() == pytest.approx(4.0 / 16, abs=1e-5)
    assert criterion.rho_hat.item() == pytest.approx(0.6 / 16, abs=1e-5)


def test_area_wanted_is_at_most_a_small_box():
    fit = ThresholdFit(1, quantile=0.75, patch_area=1 / 16)
    fit.add(*images(inside=[0.9, 0.9], outside=[0.1, 0.1]))
    fit.add(*images(inside=[0.99] * 3, outside=[0.99] * 3, boxed=False))  # everything positive
    criterion = RozenbergLoss(1, area_unit="fraction")
    fit.update(criterion)
    assert criterion.tau_hat.item() == pytest.approx(8.0 / 16)


def test_a_class_with_too_few_images_keeps_its_thresholds():
    fit = ThresholdFit(1, quantile=0.75, patch_area=1 / 16)
    fit.add(*images(inside=[0.7], outside=[0.1]))
    criterion = RozenbergLoss(1, tau=0.85, rho=0.07, tau_hat=0.3, rho_hat=0.05, area_unit="fraction")
    fit.update(criterion)
    values = [getattr(criterion, name).item() for name in ("tau", "rho", "tau_hat", "rho_hat")]
    assert values == pytest.approx([0.85, 0.07, 0.3, 0.05])
