"""Cluster bootstrap: intervals and paired tests from resamples of patients, because images of one patient are
correlated.

A resample is a weight for every image: how many times its patient was drawn. A statistic is a function of such weights,
so that one call computes it for many resamples.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.special import stdtr, stdtrit  # Student's t: distribution and quantile
from torch import Tensor

from cxrfast.metrics.classification import check_scores


@dataclass(frozen=True)
class Statistic:
    """A number in [0, 1] for each of K classes, as a function of the weights of N images."""

    compute: Callable[[Tensor], Tensor]
    """Weights float64 [R, N] -> float64 [R, K]; NaN where the number is undefined in a resample."""

    needs: tuple[Tensor, ...]
    """bool [N, K] each: the groups of images that the statistic needs, such as positives and negatives."""

    def __call__(self, weights: Tensor) -> Tensor:
        return self.compute(weights)


_CHUNK = 300_000  # weights per chunk
_DEFINED = 0.95  # smallest share of the resamples that must have the statistic


class Interval(NamedTuple):
    """Values of a statistic, for K classes or for means over classes, with intervals. NaN: there is no interval."""

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
    """Interval of a statistic, from its standard error over resamples of patients.

    Each resample draws as many patients as there are, with replacement, and takes all images of each (the cluster
    bootstrap). The interval is ``logit θ ± t · √(n/(n−1)) · se(logit θ*)``, which stays within [0, 1], with Student's t
    for n − 1 degrees of freedom. n is the number of patients behind the statistic: those with positives or those with
    negatives, whichever are fewer. If a resample has a θ* of 0 or 1, se(logit θ*) is replaced by se(θ*) / (θ (1 − θ)).
    Percentile intervals are simpler, but too narrow (docs/evaluation.md). For a θ of 0 or 1 the resamples do not vary;
    the other end of the interval is then the share that n patients would miss with probability (1 − level)/2.

    An unknown label (NaN) is left out of its class in every resample. A patient without a known label of a class is
    still drawn, and n does not count this patient.

    NaN for a statistic of fewer than two patients, or one that is undefined in more than 5 % of the resamples, such as
    the AUROC of a class with two patients. The same patients, number of resamples and seed give the same resamples for
    every statistic.
    """
    return bootstrap_interval_with_mean(statistic, patients, resamples=resamples, level=level, seed=seed)[0]


def bootstrap_interval_with_mean(
    statistic: Statistic,
    patients: Sequence[str],  # [N]
    *,
    rows: int = 1,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Interval, Interval]:
    """Intervals of the K classes, as :func:`bootstrap_interval`, and of their mean, from the same resamples.

    The mean is over the m classes that have a value. It has three parts: the classes with a value within (0, 1), those
    at 0, and those at 1; for the latter two, resamples do not vary. The mean of the first part is a statistic θ with an
    interval [l, u] like that of a class, where n is the number of patients behind any of its classes, but Student's t
    has Satterthwaite's degrees of freedom. With v the squares of the classes' standard errors and n_jk the number of
    patients behind both j and k, they are::

        ν = (Σ_k v_k)² / Σ_jk v_j v_k n_jk / √(n_j (n_j − 1) n_k (n_k − 1))

    For classes at 0, b₀ is the largest Σ_k p_k that their patients would miss with probability (1 − level)/2:
    ``max Σ_k p_k where Σ_k n'_k log(1 − p_k) = log((1 − level)/2)``. In n', a patient behind c of these classes counts
    1/c in each. b₁ is the same for classes at 1. The parts are combined as independent (Zou and Donner 2008)::

        high = mean + √((f (u − θ))² + (b₀ / m)²)        low = mean − √((f (θ − l))² + (b₁ / m)²)

    where f is the first part's share of the classes. The interval stays within [0, 1]; for one class it is the interval
    of the class. In a resample without images of a class, the class has its mean over the other resamples.

    Args:
        rows: the K columns are split into this many equal parts, one after the other, and each part has a mean.

    Returns:
        Intervals of the classes [K] and of the means [rows]. A mean without classes is NaN. Its low and high are NaN if
        one of its classes has fewer than two patients, or more than 5 % of the resamples have none of its classes.
    """
    behind = _patients_behind(statistic, patients)
    number = behind.sum(dim=0)
    value = statistic(torch.ones(1, len(patients), dtype=torch.float64))[0]
    drawn = resample_patients(statistic, patients, resamples, seed)
    low, high = _limits(value, drawn, number, _student(number - 1, level))
    share = ((1 - level) / 2) ** (1 / number)
    low, high = torch.where(value == 1, share, low), torch.where(value == 1, 1.0, high)
    low, high = torch.where(value == 0, 0.0, low), torch.where(value == 0, 1 - share, high)
    enough = _often(drawn) & (number > 1)
    low, high = torch.where(enough, low, torch.nan), torch.where(enough, high, torch.nan)
    values, draws, patients_behind = (table.tensor_split(rows, dim=-1) for table in (value, drawn, behind))
    means = [_mean_interval(*row, level) for row in zip(values, draws, patients_behind, strict=True)]
    return Interval(value, low, high), Interval(*torch.tensor(means, dtype=torch.float64).T)


def paired_bootstrap(
    first: Statistic,
    second: Statistic,
    patients: Sequence[str],  # [N]
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Test whether the statistics of two runs on the same N images differ, on the same resamples for both.

    The interval is ``d ± t · √(n/(n−1)) · se(d*)``. The p-value is from the same t distribution: it is below 0.05
    exactly where the 95 % interval excludes 0. n is as for :func:`bootstrap_interval`. There is no correction for
    multiple testing.
    """
    return paired_bootstrap_with_mean(first, second, patients, resamples=resamples, level=level, seed=seed)[0]


def paired_bootstrap_with_mean(
    first: Statistic,
    second: Statistic,
    patients: Sequence[str],  # [N]
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[PairedDifference, PairedDifference]:
    """Differences of the K classes, as :func:`paired_bootstrap`, and of their mean [1], from the same resamples.

    The mean is over the classes that both runs have a value for. Its interval is ``d̄ ± t · √(n/(n−1)) · se(d̄*)``,
    with n the number of patients behind any of the classes, and t as for :func:`bootstrap_interval_with_mean`.
    """
    both = Statistic(lambda weights: first(weights) - second(weights), (*first.needs, *second.needs))
    behind = _patients_behind(both, patients)
    number = behind.sum(dim=0)
    value = both(torch.ones(1, len(patients), dtype=torch.float64))[0]
    drawn = resample_patients(both, patients, resamples, seed)
    kept = ~value.isnan()
    mean = _Mean.of(drawn[:, kept], behind[:, kept])
    cases = ((value, drawn, number, number - 1), (value[kept].mean()[None], mean.drawn, mean.number, mean.degrees))
    classes, of_mean = (
        _difference(of, torch.where(_often(draws), _error(draws, n), torch.nan), degrees, level)
        for of, draws, n, degrees in cases
    )
    return classes, of_mean


def _difference(value: Tensor, error: Tensor, degrees: Tensor, level: float) -> PairedDifference:  # [K] each
    t = _student(degrees, level)
    ratio = torch.where(error > 0, value / error, torch.where(value == 0, 0.0, value.sign() * torch.inf))
    p_value = 2 * torch.from_numpy(stdtr(degrees.clamp(min=1).numpy(), -ratio.abs().numpy()))
    return PairedDifference(value, value - t * error, value + t * error, torch.where(error.isnan(), torch.nan, p_value))


def weighted_auroc(
    scores: Tensor,  # [N, K]
    labels: Tensor,  # [N, K]: 1, 0, NaN where unknown
) -> Statistic:
    """AUROC of every class, where image n counts ``weights[:, n]`` times; NaN without positives or negatives."""
    scores, labels, _ = check_scores(scores, labels)
    columns = _columns(scores, labels)

    def statistic(weights: Tensor) -> Tensor:  # [R, N]
        areas, table = [], weights_by_image(weights)
        for column in columns:
            positive, negative = column.weigh(table)
            below = negative.cumsum(dim=1)
            # Negatives below a positive's score, and half of those with the same score
            wins = (positive * (below[:, :-1:2] + below[:, 1::2]).double()).sum(dim=1) / 2
            areas.append(wins / (positive.sum(dim=1).double() * below[:, -1]))
        return _stack(areas, weights)

    return Statistic(statistic, (labels == 1, labels == 0))


def weighted_average_precision(
    scores: Tensor,  # [N, K]
    labels: Tensor,  # [N, K]: 1, 0, NaN where unknown
) -> Statistic:
    """Average precision of every class, where image n counts ``weights[:, n]`` times; NaN without positives."""
    scores, labels, _ = check_scores(scores, labels)
    columns = _columns(scores, labels)

    def statistic(weights: Tensor) -> Tensor:  # [R, N]
        values, table = [], weights_by_image(weights)
        for column in columns:
            positive, negative = (count.flip(1).cumsum(dim=1).double() for count in column.weigh(table))
            false = negative[:, 1::2]  # with at least each positive's score, from the highest down
            gain = positive.diff(dim=1, prepend=torch.zeros(len(positive), 1))
            # Where nothing is called positive yet, the gain is 0 as well.
            precision = positive / (positive + false).clamp(min=1)
            values.append((gain * precision).sum(dim=1) / positive[:, -1:].sum(dim=1))
        return _stack(values, weights)

    return Statistic(statistic, (labels == 1,))


def weighted_mean(
    values: Tensor,  # [N, K], NaN where image n has no value for class k
) -> Statistic:
    """Weighted mean over the values that are not NaN. For hits (1) and misses (0), it is the localisation accuracy."""
    present = (~values.isnan()).double()
    filled = values.double().nan_to_num(0.0)

    def statistic(weights: Tensor) -> Tensor:  # [R, N]
        return (weights @ filled) / (weights @ present)

    return Statistic(statistic, (~values.isnan(),))


class _Column(NamedTuple):
    """The known images of one class, grouped by score. Only the m distinct scores of positives matter: positives have a
    group for each of them, negatives 2m + 1 groups, in ascending order: below, equal to and between these scores."""

    positive: Tensor  # [n+] int64: images, group by group
    positive_start: Tensor  # [m] int64
    negative: Tensor  # [n-] int64
    negative_start: Tensor  # [2m + 1] int64

    def weigh(self, table: Tensor) -> tuple[Tensor, Tensor]:  # [N, R] -> [R, m], [R, 2m + 1]
        """Weight of each group. It is exact in float32, because it is a number of images."""
        positive, negative = (
            F.embedding_bag(images, table, start, mode="sum").T.contiguous()
            for images, start in ((self.positive, self.positive_start), (self.negative, self.negative_start))
        )
        return positive, negative


def _columns(scores: Tensor, labels: Tensor) -> list[_Column]:
    return [_column(scores[:, k], labels[:, k]) for k in range(scores.shape[1])]


def _column(scores: Tensor, labels: Tensor) -> _Column:  # [N], [N]
    order = scores.argsort(stable=True)
    positive, negative = order[labels[order] == 1], order[labels[order] == 0]
    values, size = scores[positive].unique_consecutive(return_counts=True)
    # Group 2j is below values[j], group 2j + 1 equal to it.
    bag = torch.searchsorted(values, scores[negative]) + torch.searchsorted(values, scores[negative], right=True)
    start = torch.searchsorted(bag, torch.arange(2 * len(values) + 1))
    return _Column(positive, size.cumsum(0) - size, negative, start)


def weights_by_image(weights: Tensor) -> Tensor:  # [R, N] -> [N, R]
    return weights.float().T.contiguous()


def _stack(columns: list[Tensor], weights: Tensor) -> Tensor:
    """K columns [R] -> [R, K], also for K = 0."""
    return torch.stack(columns, dim=1) if columns else weights.new_zeros(len(weights), 0)


def resample_patients(statistic: Statistic, patients: Sequence[str], resamples: int, seed: int) -> Tensor:  # [R, K]
    patient, number = _numbers(patients)
    generator = torch.Generator().manual_seed(seed)
    results = []
    step = max(1, _CHUNK // len(patients))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = torch.randint(number, (count, number), generator=generator)
        times = torch.zeros(count, number, dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        results.append(statistic(times[:, patient]))
    return torch.cat(results)


def _numbers(patients: Sequence[str]) -> tuple[Tensor, int]:
    """Every image's patient as a number, and the number of patients."""
    if not len(patients):
        raise ValueError("patients: expected the patient of every image, got none")
    number = {name: index for index, name in enumerate(sorted(set(patients)))}  # independent of the order of the images
    return torch.tensor([number[name] for name in patients]), len(number)


def _patients_behind(statistic: Statistic, patients: Sequence[str]) -> Tensor:  # [patients, K] float64
    """1 for the patients behind the statistic: those with an image in the group that has the fewest patients."""
    patient, number = _numbers(patients)
    if any(len(group) != len(patients) for group in statistic.needs):
        raise ValueError(f"patients: expected one for each of {len(statistic.needs[0])} images, got {len(patients)}")
    groups = torch.stack(
        [
            torch.zeros(number, group.shape[1], dtype=torch.float64).index_add(0, patient, group.cpu().double())
            for group in statistic.needs
        ]
    )
    present = (groups > 0).double()  # [groups, patients, K]
    fewest = present.sum(dim=1).argmin(dim=0)
    return present[fewest, :, torch.arange(len(fewest))].T


def _error(drawn: Tensor, number: Tensor) -> Tensor:  # [R, K], [K] -> [K]
    """Standard error over the resamples that have the statistic; NaN for fewer than two patients."""
    defined = ~drawn.isnan()
    deviation = torch.where(defined, drawn - drawn.nanmean(dim=0), 0.0)
    variance = deviation.square().sum(dim=0) / (defined.sum(dim=0) - 1).clamp(min=1)
    return torch.where(number > 1, (variance * number / (number - 1)).sqrt(), torch.nan)


def _often(drawn: Tensor) -> Tensor:  # [R, K] -> [K]
    """Whether nearly all resamples have the statistic."""
    return (~drawn.isnan()).double().mean(dim=0) >= _DEFINED


def _limits(value: Tensor, drawn: Tensor, number: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Ends of the intervals of values in (0, 1); [K], [R, K], [K], [K] -> [K], [K]."""
    error = _error(drawn, number)
    inside = ((drawn > 0) & (drawn < 1) | drawn.isnan()).all(dim=0)
    spread = t * torch.where(inside, _error(drawn.logit(), number), error / (value * (1 - value)))
    return (value.logit() - spread).sigmoid(), (value.logit() + spread).sigmoid()


def _student(degrees: Tensor, level: float) -> Tensor:
    """Quantile of Student's t for the two-sided interval."""
    if not 0 < level < 1:
        raise ValueError(f"expected a level in (0, 1), got {level}")
    return torch.from_numpy(stdtrit(degrees.clamp(min=1).numpy(), (1 + level) / 2))


class _Mean(NamedTuple):
    """A mean over classes as one statistic."""

    drawn: Tensor  # [R, 1] float64; NaN where a resample has none of the classes
    number: Tensor  # [1] float64: patients behind any class
    degrees: Tensor  # [1] float64, of freedom; NaN if one of the classes has fewer than two patients

    @classmethod
    def of(cls, drawn: Tensor, behind: Tensor) -> "_Mean":  # [R, K], [patients, K] of the classes in the mean
        filled = torch.where(drawn.isnan() & ~drawn.isnan().all(dim=1, keepdim=True), drawn.nanmean(dim=0), drawn)
        number = behind.sum(dim=0)
        variance = _error(drawn, number).square()
        if not variance.sum():  # no spread: any will do
            variance = torch.ones_like(variance)
        each = variance / (number * (number - 1)).sqrt()
        degrees = variance.sum().square() / (each @ (behind.T @ behind) @ each)
        return cls(filled.mean(dim=1, keepdim=True), behind.any(dim=1).sum()[None], degrees[None])


def _mean_interval(
    value: Tensor,  # [K]
    drawn: Tensor,  # [R, K]
    behind: Tensor,  # [patients, K]
    level: float,
) -> tuple[float, float, float]:
    """Mean, low and high, as :func:`bootstrap_interval_with_mean` describes it."""
    kept = ~value.isnan()
    value, drawn, behind = value[kept], drawn[:, kept], behind[:, kept]
    mean = value.mean()
    often = _often(torch.where(drawn.isnan().all(dim=1), torch.nan, 0.0)[:, None])
    if not len(value) or not often or (behind.sum(dim=0) < 2).any():
        return mean.item(), math.nan, math.nan
    down, up = (_missed(behind[:, value == end], (1 - level) / 2) / len(value) for end in (1, 0))
    within = (value > 0) & (value < 1)
    if within.any():
        part, centre = _Mean.of(drawn[:, within], behind[:, within]), value[within].mean()
        low, high = _limits(centre[None], part.drawn, part.number, _student(part.degrees, level))
        share = within.double().mean()
        down, up = (share * (centre - low)).hypot(down), (share * (high - centre)).hypot(up)
    return mean.item(), (mean - down).item(), (mean + up).item()


def _missed(behind: Tensor, chance: float) -> Tensor:  # [patients, K] -> []
    """The largest sum of K shares that patients miss altogether with this chance: its shares have 1 − p ∝ 1 / n or 0.

    With λ the factor, ``Σ_k n_k log(1 − p_k) = log(chance)`` over the classes of the fewest patients, down to p ≥ 0.
    """
    if not behind.shape[1]:
        return torch.zeros((), dtype=torch.float64)
    number = (behind / behind.sum(dim=1, keepdim=True).clamp(min=1)).sum(dim=0).sort().values
    total = number.cumsum(0)
    factor = ((math.log(chance) - (number * number.log()).cumsum(0)) / total).exp()
    sums = torch.arange(1, len(number) + 1) - factor * total
    return sums[factor * number <= 1].amax()
