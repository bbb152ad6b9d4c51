"""Intervals and tests that know that images of one patient are alike: whole patients are drawn, never single images.

A resample is a weight for every image: how many times its patient was drawn. A statistic is a function of such weights,
so one call computes it for many resamples at once.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Statistic = Callable[[Tensor], Tensor]
"""Weights float64 [R, N] -> the statistic of every resample, float64 [R, K]; NaN where a resample has none."""

_CHUNK = 300_000  # entries of the weights at a time
_DEFINED = 0.95  # share of the resamples that must have the statistic


class Interval(NamedTuple):
    """A statistic of K classes with its interval; low and high are NaN where the data cannot carry one."""

    value: Tensor  # [K] float64
    low: Tensor  # [K] float64
    high: Tensor  # [K] float64


class PairedDifference(NamedTuple):
    """Statistic of one run minus that of another on the same images."""

    difference: Tensor  # [K] float64
    low: Tensor  # [K] float64
    high: Tensor  # [K] float64
    p_value: Tensor  # [K] float64, two-sided, of "no difference"


def bootstrap_interval(
    statistic: Statistic,
    patients: Sequence[str],  # [N]
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a statistic over resamples of patients.

    Each resample draws as many patients as there are, with replacement, and takes all images of each
    (Field and Welsh 2007, "cluster bootstrap"). A statistic that more than 5 % of the resamples do not have, as the
    AUROC of a class that two patients have, has no interval.

    The same patients, resamples and seed give the same resamples, whatever the statistic.
    """
    value = statistic(torch.ones(1, len(patients), dtype=torch.float64))[0]
    return Interval(value, *_percentiles(_resample(statistic, patients, resamples, seed), level))


def paired_bootstrap(
    first: Statistic,
    second: Statistic,
    patients: Sequence[str],  # [N]
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Is the statistic of one run larger than that of another on the same N images? Both see the same resamples.

    The p-value is the share of the resamples whose difference lies on the other side of 0, doubled:
    ``2 · min(#{d ≤ 0} + 1, #{d ≥ 0} + 1) / (R + 1)``, at most 1; so it agrees with the interval, and is never 0.
    Nothing corrects for looking at many classes.
    """

    def difference(weights: Tensor) -> Tensor:
        return first(weights) - second(weights)

    value = difference(torch.ones(1, len(patients), dtype=torch.float64))[0]
    drawn = _resample(difference, patients, resamples, seed)
    low, high = _percentiles(drawn, level)
    defined = (~drawn.isnan()).sum(dim=0)
    tail = torch.minimum((drawn <= 0).sum(dim=0), (drawn >= 0).sum(dim=0)) + 1
    p_value = (2 * tail / (defined + 1)).clamp(max=1).double()
    return PairedDifference(value, low, high, torch.where(low.isnan(), torch.nan, p_value))


def weighted_auroc(
    scores: Tensor,  # [N, K]
    labels: Tensor,  # [N, K]: 1, 0, NaN where unknown
) -> Statistic:
    """AUROC of every class where image n counts ``weights[:, n]`` times; NaN without positives or negatives."""
    columns = _columns(scores, labels)

    def statistic(weights: Tensor) -> Tensor:  # [R, N]
        areas, table = [], _table(weights)
        for column in columns:
            positive, negative = column.count(table)
            below = negative.cumsum(dim=1)
            # Up to the gap below a positive's score, and half of those that share the score
            wins = (positive * (below[:, :-1:2] + below[:, 1::2]).double()).sum(dim=1) / 2
            areas.append(wins / (positive.sum(dim=1).double() * below[:, -1]))
        return _stack(areas, weights)

    return statistic


def weighted_average_precision(
    scores: Tensor,  # [N, K]
    labels: Tensor,  # [N, K]: 1, 0, NaN where unknown
) -> Statistic:
    """Average precision of every class where image n counts ``weights[:, n]`` times; NaN without positives."""
    columns = _columns(scores, labels)

    def statistic(weights: Tensor) -> Tensor:  # [R, N]
        values, table = [], _table(weights)
        for column in columns:
            positive, negative = (count.flip(1).cumsum(dim=1).double() for count in column.count(table))
            false = negative[:, 1::2]  # at or over each positive's score, from the highest down
            gain = positive.diff(dim=1, prepend=torch.zeros(len(positive), 1))
            # Where nothing is called yet, nothing is gained either.
            precision = positive / (positive + false).clamp(min=1)
            values.append((gain * precision).sum(dim=1) / positive[:, -1:].sum(dim=1))
        return _stack(values, weights)

    return statistic


def weighted_mean(
    values: Tensor,  # [N, K], NaN where image n has no value for class k
) -> Statistic:
    """Mean over the values that are there, weighted; with hits (1) and misses (0), localisation accuracy."""
    present = (~values.isnan()).double()
    filled = values.double().nan_to_num(0.0)

    def statistic(weights: Tensor) -> Tensor:  # [R, N]
        return (weights @ filled) / (weights @ present)

    return statistic


class _Column(NamedTuple):
    """One class's known images in bags by their score. Only the m distinct scores of positives matter: a bag for each,
    and for the negatives 2m + 1 bags, those in the gaps between them and those that share one, in ascending order."""

    positive: Tensor  # [n+] int64: images, bag by bag
    positive_start: Tensor  # [m] int64
    negative: Tensor  # [n-] int64
    negative_start: Tensor  # [2m + 1] int64

    def count(self, table: Tensor) -> tuple[Tensor, Tensor]:  # [N, R] -> [R, m], [R, 2m + 1]
        """Weight of each bag: exact in float32, for they are numbers of images."""
        positive, negative = (
            F.embedding_bag(images, table, start, mode="sum").T.contiguous()
            for images, start in ((self.positive, self.positive_start), (self.negative, self.negative_start))
        )
        return positive, negative


def _columns(scores: Tensor, labels: Tensor) -> list[_Column]:
    if scores.dim() != 2 or scores.shape != labels.shape:
        raise ValueError(f"expected scores and labels [N, K], got {list(scores.shape)} and {list(labels.shape)}")
    scores, labels = scores.detach().cpu(), labels.detach().cpu()
    return [_column(scores[:, k], labels[:, k]) for k in range(scores.shape[1])]


def _column(scores: Tensor, labels: Tensor) -> _Column:  # [N], [N]
    order = scores.argsort(stable=True)
    positive, negative = order[labels[order] == 1], order[labels[order] == 0]
    values, size = scores[positive].unique_consecutive(return_counts=True)
    # Gap or equal: 2j below values[j], 2j + 1 equal to it.
    bag = torch.searchsorted(values, scores[negative]) + torch.searchsorted(values, scores[negative], right=True)
    start = torch.searchsorted(bag, torch.arange(2 * len(values) + 1))
    return _Column(positive, size.cumsum(0) - size, negative, start)


def _table(weights: Tensor) -> Tensor:  # [R, N] -> [N, R]
    return weights.float().T.contiguous()


def _stack(columns: list[Tensor], weights: Tensor) -> Tensor:
    """K columns [R] -> [R, K], also for K = 0."""
    return torch.stack(columns, dim=1) if columns else weights.new_zeros(len(weights), 0)


def _resample(statistic: Statistic, patients: Sequence[str], resamples: int, seed: int) -> Tensor:  # [R, K]
    if resamples < 1 or not len(patients):
        raise ValueError(f"expected resamples and patients, got {resamples} and {len(patients)}")
    number = {name: index for index, name in enumerate(dict.fromkeys(patients))}
    patient = torch.tensor([number[name] for name in patients])
    generator = torch.Generator().manual_seed(seed)
    results = []
    step = max(1, _CHUNK // len(patients))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = torch.randint(len(number), (count, len(number)), generator=generator)
        times = torch.zeros(count, len(number), dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        results.append(statistic(times[:, patient]))
    return torch.cat(results)


def _percentiles(drawn: Tensor, level: float) -> tuple[Tensor, Tensor]:  # [R, K] -> [K], [K]
    if not 0 < level < 1:
        raise ValueError(f"expected a level in (0, 1), got {level}")
    low, high = drawn.nanquantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64), dim=0)
    enough = (~drawn.isnan()).double().mean(dim=0) >= _DEFINED
    return torch.where(enough, low, torch.nan), torch.where(enough, high, torch.nan)
