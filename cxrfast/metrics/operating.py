"""Operating points: the score from which a class is called present, how sure that choice is, and what it achieves."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cxrfast.metrics.bootstrap import (
    Interval,
    Statistic,
    bootstrap_interval,
    resample_patients,
    weighted_auroc,
    weighted_mean,
    weights_by_image,
)
from cxrfast.metrics.classification import check_scores

MINIMUM = 10
"""Smallest number of known positives, and of known negatives, from which an operating point is chosen.

With n positives, one image moves the sensitivity by 1/n: with ten, by ten points.
"""
_DEFINED = 0.95  # smallest share of the resamples that must have a threshold for an interval
_ROUNDING = 1e-9  # of a share of images


class Criterion(NamedTuple):
    """What an operating point is to achieve on the images that it is chosen on."""

    name: str  # "youden", "f1", "sensitivity" or "specificity"
    share: float | None = None  # the wanted sensitivity or specificity

    @classmethod
    def parse(cls, text: str) -> "Criterion":
        """From ``youden``, ``f1``, ``sensitivity=0.9`` or ``specificity=0.9``; ValueError for anything else."""
        name, equals, number = text.partition("=")
        if name in ("youden", "f1") and not equals:
            return cls(name)
        if name in ("sensitivity", "specificity"):
            try:
                share = float(number)
            except ValueError:
                share = math.nan
            if 0 < share <= 1:
                return cls(name, share)
        raise ValueError(f"expected youden, f1, sensitivity=0.9 or specificity=0.9 (a share in (0, 1]), got {text!r}")

    @property
    def separates(self) -> bool:
        """Whether it looks for the best separation, of which there is none at chance."""
        return self.share is None


class OperatingPoints(NamedTuple):
    """The operating points of K classes."""

    threshold: Tensor  # [K] float64; NaN: not chosen
    low: Tensor  # [K] float64: ends of the 95 % interval of the threshold; NaN: none
    high: Tensor  # [K] float64
    reason: tuple[str, ...]  # [K]: why none was chosen; "" if one was
    auroc: Interval  # [K], on the same images


class Rates(NamedTuple):
    """What K operating points achieve, each with an interval; NaN where there is no image to count."""

    sensitivity: Interval
    specificity: Interval
    ppv: Interval  # positive predictive value: share of the images called positive that are
    npv: Interval  # negative predictive value: share of the others that are negative
    called: tuple[int, ...]  # images with a known label that are called positive


def choose_operating_points(
    scores: Tensor,  # [N, K]
    labels: Tensor,  # [N, K]
    patients: Sequence[str] | None = None,  # [N]; None: every image is of another patient
    *,
    criterion: str = "youden",
    minimum: int = MINIMUM,
    resamples: int = 1000,
    seed: int = 0,
) -> OperatingPoints:
    """Choose the score threshold t of every class for "present where score ≥ t", where the data allow a choice.

    The criteria, on all images with a known label::

        youden          maximum of sensitivity + specificity − 1
        f1              maximum of 2 TP / (2 TP + FP + FN)
        sensitivity=x   the highest t with a sensitivity of at least x
        specificity=x   the lowest t with a specificity of at least x

    t lies halfway to the next lower score; of several maxima, the highest is taken. The interval of t holds the middle
    95 % of the thresholds that resamples of patients choose by the same criterion.

    No threshold is chosen, and ``reason`` says why, where a class

    - has fewer than ``minimum`` known positives or negatives;
    - is at chance, for ``youden`` and ``f1``: the 95 % interval of its AUROC, from the same resamples, is not entirely
      above 0.5. The best of many thresholds is then an accident of these images;
    - reaches the wanted specificity at no score.

    Args:
        scores: any real numbers but NaN.
        labels: 1, 0, or NaN where it is unknown, which is left out.

    Raises:
        ValueError: an unknown criterion; otherwise as for :func:`cxrfast.metrics.auroc`.

    Example::

        points = choose_operating_points(scores, labels, patients, criterion="sensitivity=0.9")
        present = scores >= points.threshold.nan_to_num(0.5)
    """
    wanted = Criterion.parse(criterion)
    scores, labels, _ = check_scores(scores, labels)
    patients = [str(n) for n in range(len(scores))] if patients is None else patients
    positives, negatives = (_counts(labels == value) for value in (1, 0))
    statistic = _thresholds(scores, labels, wanted)
    threshold = statistic(torch.ones(1, len(scores), dtype=torch.float64))[0]
    nothing = torch.full((scores.shape[1],), torch.nan, dtype=torch.float64)
    if not len(scores):
        none = (_too_few(0, 0, minimum),) * scores.shape[1]
        return OperatingPoints(nothing, nothing, nothing, none, Interval(nothing, nothing, nothing))
    area = bootstrap_interval(weighted_auroc(scores, labels), patients, resamples=resamples, seed=seed)
    reason = []
    for k in range(scores.shape[1]):
        why = _too_few(positives[k], negatives[k], minimum)
        if not why and wanted.separates and not area.low[k] > 0.5:
            why = f"AUROC {_words(area, k)} is not above chance"
        if not why and threshold[k].isnan():
            why = f"no score has a {wanted.name} of {wanted.share:g}"
        reason.append(why)
    chosen = torch.tensor([not why for why in reason], dtype=torch.bool)
    drawn = resample_patients(statistic, patients, resamples, seed)
    sure = chosen & ((~drawn.isnan()).double().mean(dim=0) >= _DEFINED)
    low, high = drawn.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return OperatingPoints(
        threshold.where(chosen, nothing), low.where(sure, nothing), high.where(sure, nothing), tuple(reason), area
    )


def _counts(chosen: Tensor) -> list[int]:  # [N, K] bool
    """Number of chosen images of every class."""
    return [int(n) for n in chosen.sum(dim=0).tolist()]


def _too_few(positives: int, negatives: int, minimum: int) -> str:
    for number, what in ((positives, "positive"), (negatives, "negative")):
        if number < minimum:
            return f"{number} known {what}{'' if number == 1 else 's'}, fewer than {minimum}"
    return ""


def _words(interval: Interval, k: int) -> str:
    value, low, high = (column[k].item() for column in interval)
    return f"{value:.2f}" + ("" if math.isnan(low) else f" (95 % {low:.2f}–{high:.2f})")


class _Levels(NamedTuple):
    """The scores of one class that can be the lowest one called positive."""

    score: Tensor  # [m] float64, ascending
    below: Tensor  # [m] float64: the next lower score of any image; of the lowest score, itself

    @classmethod
    def of(cls, scores: Tensor, labels: Tensor, criterion: Criterion) -> "_Levels":  # [N], [N]
        known = scores[~labels.isnan()].unique()
        # A lowest score that only negatives have is never the best one, but can be the first with a wanted specificity
        levels = known if criterion.name == "specificity" else scores[labels == 1].unique()
        return cls(levels, known[(torch.searchsorted(known, levels) - 1).clamp(min=0)])


def _thresholds(scores: Tensor, labels: Tensor, criterion: Criterion) -> Statistic:
    """The threshold of every class where image n counts ``weights[:, n]`` times; NaN where there is none."""
    scores = scores.double()
    levels = [_Levels.of(scores[:, k], labels[:, k], criterion) for k in range(scores.shape[1])]

    def statistic(weights: Tensor) -> Tensor:  # [R, N] -> [R, K]
        table, columns = weights_by_image(weights), []
        for k, of_class in enumerate(levels):
            if not len(of_class.score):
                columns.append(weights.new_full((len(weights),), torch.nan))
                continue
            groups = [(labels[:, k] == label).nonzero()[:, 0] for label in (1, 0)]
            found, false = (_called(scores[group, k], group, of_class.score, table) for group in groups)
            positives, negatives = (table[group].sum(dim=0).double()[:, None] for group in groups)
            columns.append(_best(criterion, found, false, positives, negatives, of_class))
        return torch.stack(columns, dim=1) if columns else weights.new_zeros(len(weights), 0)

    return Statistic(statistic, (labels == 1, labels == 0))


def _called(scores: Tensor, images: Tensor, levels: Tensor, table: Tensor) -> Tensor:  # [n], [n], [m], [N, R]
    """Weight of the images that score at least each level: [R, m] float64."""
    place = torch.searchsorted(levels, scores, right=True) - 1  # the highest level that the score reaches, or -1
    order = place.argsort(stable=True)[int((place < 0).sum()) :]
    start = torch.searchsorted(place[order], torch.arange(len(levels)))
    each = F.embedding_bag(images[order], table, start, mode="sum").T.double()  # exact: numbers of images
    return each.flip(1).cumsum(dim=1).flip(1)


def _best(
    criterion: Criterion,
    found: Tensor,  # [R, m]: positives called
    false: Tensor,  # [R, m]: negatives called
    positives: Tensor,  # [R, 1]
    negatives: Tensor,  # [R, 1]
    levels: _Levels,  # [m]
) -> Tensor:  # [R]
    last = len(levels.score) - 1
    exists = torch.ones(len(found), dtype=torch.bool)
    if criterion.share is not None:
        reached = found / positives if criterion.name == "sensitivity" else 1 - false / negatives
        enough = reached >= criterion.share - _ROUNDING
        exists = enough.any(dim=1)
        first = enough.double().argmax(dim=1)
        place = first if criterion.name == "specificity" else last - enough.flip(1).double().argmax(dim=1)
    elif criterion.name == "f1":
        place = last - (2 * found / (found + false + positives)).flip(1).argmax(dim=1)
    else:
        place = last - (found / positives - false / negatives).flip(1).argmax(dim=1)
    exists = exists & (positives[:, 0] > 0) & (negatives[:, 0] > 0)
    return torch.where(exists, (levels.score[place] + levels.below[place]) / 2, torch.nan)


def rates_at_operating_points(
    scores: Tensor,  # [N, K]
    labels: Tensor,  # [N, K]
    thresholds: Tensor,  # [K]
    patients: Sequence[str],  # [N]
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Rates:
    """Sensitivity, specificity and predictive values of "present where score ≥ threshold", with patient intervals.

    Intervals are those of :func:`cxrfast.metrics.bootstrap_interval`. They hold for these thresholds: that they were
    chosen on other images, by chance, is not in them. Predictive values hold for the share of positives among these
    images. Unknown labels (NaN) are left out. A rate without images is NaN.

    Raises:
        ValueError: as for :func:`cxrfast.metrics.auroc`.
    """
    scores, labels, known = check_scores(scores, labels)
    called = scores.double() >= thresholds.double().cpu()
    right = torch.where(known, (called == (labels == 1)).double(), torch.nan)
    groups = (labels == 1, labels == 0, known & called, known & ~called)
    columns = torch.cat([torch.where(group, right, torch.nan) for group in groups], dim=1)  # [N, 4K]
    found = bootstrap_interval(weighted_mean(columns), patients, resamples=resamples, seed=seed)
    value, low, high = (column.tensor_split(4) for column in found)
    sensitivity, specificity, ppv, npv = (Interval(*row) for row in zip(value, low, high, strict=True))
    return Rates(sensitivity, specificity, ppv, npv, tuple(_counts(known & called)))
