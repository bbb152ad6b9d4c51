"""Calibration of probabilities: reliability curve, expected calibration error, and temperature scaling."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

COLDEST, HOTTEST = 0.01, 100.0
"""The range of temperatures. A class whose scores are uninformative or inverted gets the highest."""

_EPSILON = 1e-12  # smallest distance of probabilities from 0 and 1, for finite logits


class ReliabilityCurve(NamedTuple):
    """Mean probability and frequency per class and bin; NaN in empty bins."""

    probability: Tensor  # [K, bins] float64: mean probability of the images in the bin
    frequency: Tensor  # [K, bins] float64: share of them that are positive
    images: Tensor  # [K, bins] int64: number of images

    def filled(self, k: int) -> list[dict[str, float]]:
        """The non-empty bins of class k."""
        bins = zip(*(column[k].tolist() for column in self), strict=True)
        return [dict(zip(self._fields, values, strict=True)) for values in bins if values[2]]


def reliability_curve(
    probabilities: Tensor,  # [N, K] in [0, 1]
    labels: Tensor,  # [N, K]: 1, 0, NaN where unknown
    *,
    bins: int = 15,
) -> ReliabilityCurve:
    """Reliability over bins of equal width: the first is [0, 1/bins], the others are (b/bins, (b+1)/bins].

    NaN marks an unknown label, whose image is left out of its class.
    """
    probabilities, labels = _check(probabilities, labels)
    known = ~labels.isnan()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
    place = torch.bucketize(probabilities, edges) + bins * torch.arange(probabilities.shape[1])
    size = (probabilities.shape[1], bins)

    def total(values: Tensor) -> Tensor:  # [N, K] -> [K, bins]
        # Of nothing, the counts are float32.
        return torch.bincount(place[known], values[known], minlength=size[0] * size[1]).double().view(size)

    count = total(torch.ones_like(labels))
    return ReliabilityCurve(total(probabilities) / count, total(labels) / count, count.long())


def expected_calibration_error(
    probabilities: Tensor,  # [N, K] in [0, 1]
    labels: Tensor,  # [N, K]: 1, 0, NaN where unknown
    *,
    bins: int = 15,
) -> Tensor:  # [K] float64
    """``ECE = Σ_b n_b/n · |frequency_b − probability_b|`` of every class, over bins of equal width.

    Naeini et al. 2015. NaN for a class without known labels.
    """
    curve = reliability_curve(probabilities, labels, bins=bins)
    gap = (curve.frequency - curve.probability).abs().nan_to_num(0.0)
    return (gap * curve.images).sum(dim=1) / curve.images.sum(dim=1)


def fit_temperature(
    probabilities: Tensor,  # [N, K] in [0, 1], of validation images
    labels: Tensor,  # [N, K]: 1, 0, NaN where unknown
    *,
    minimum: int = 5,
) -> Tensor:  # [K] float64
    """The temperature T of every class that minimises the mean of ``−log p(label)`` with ``p = σ(logit / T)``.

    Guo et al. 2017, Eq. 9, with one T per class, because every class is a separate binary decision. The problem is
    convex in 1/T with derivative ``Σ z (σ(z/T) − y)``, so bisection finds the minimum. T lies in [0.01, 100].

    Returns:
        NaN for a class with fewer than ``minimum`` positives or negatives.
    """
    probabilities, labels = _check(probabilities, labels)
    known = ~labels.isnan()
    logits = torch.where(known, _logit(probabilities), 0.0)  # 0 adds nothing to the derivative
    target = labels.nan_to_num(0.0)
    low = torch.full((probabilities.shape[1],), 1 / HOTTEST, dtype=torch.float64).log()
    high = torch.full_like(low, 1 / COLDEST).log()
    for _ in range(60):
        middle = (low + high) / 2
        slope = (logits * (torch.sigmoid(logits * middle.exp()) - target)).sum(dim=0)
        low, high = torch.where(slope < 0, middle, low), torch.where(slope < 0, high, middle)
    enough = torch.minimum((labels == 1).sum(dim=0), (labels == 0).sum(dim=0)) >= minimum
    return torch.where(enough, (-(low + high) / 2).exp(), torch.nan)


def calibrate(
    probabilities: Tensor,  # [N, K] in [0, 1]
    temperature: Tensor,  # [K]
) -> Tensor:  # [N, K] float64
    """``σ(logit(p) / T)``, the output ``prob_calibrated``; NaN where T is NaN. The order of images is unchanged."""
    return torch.sigmoid(_logit(probabilities.detach().cpu().double()) / temperature.double())


def negative_log_likelihood(
    probabilities: Tensor,  # [N, K] in [0, 1]
    labels: Tensor,  # [N, K]: 1, 0, NaN where unknown
) -> Tensor:  # [K] float64
    """Mean of ``−log p(label)``, which :func:`fit_temperature` minimises."""
    probabilities, labels = _check(probabilities, labels)
    loss = F.binary_cross_entropy_with_logits(_logit(probabilities), labels.nan_to_num(0.0), reduction="none")
    return torch.where(labels.isnan(), torch.nan, loss).nanmean(dim=0)


def _logit(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(_EPSILON, 1 - _EPSILON).logit()


def _check(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if probabilities.dim() != 2 or probabilities.shape != labels.shape:
        raise ValueError(
            f"expected probabilities and labels [N, K], got {list(probabilities.shape)} and {list(labels.shape)}"
        )
    probabilities, labels = probabilities.detach().cpu().double().contiguous(), labels.detach().cpu().double()
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        wrong = probabilities[~((probabilities >= 0) & (probabilities <= 1))][0].item()
        raise ValueError(f"expected probabilities in [0, 1], got {wrong}; pass scores through a sigmoid first")
    return probabilities, labels
