"""Measures of classification: AUROC, average precision, operating points, means over classes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


def auroc(
    scores: Tensor,  # [N, K]
    labels: Tensor,  # [N, K]
) -> Tensor:  # [K] float64
    """Area under the ROC curve of every class: the probability that a positive image scores higher than a negative one.

    With midranks r (equal scores share the mean of their ranks), which counts a tie as one half:
    ``AUROC = (Σ_positive r − n₊(n₊+1)/2) / (n₊ n₋)``. Counts are integers until the last division, so the result is
    exact to the last bit of float64.

    Args:
        scores: any real dtype; only their order matters. Infinities are fine, NaN is not.
        labels: 1, 0, or NaN where the label is unknown; bool and integers too. An unknown entry is left out of its
        class.

    Returns:
        float64 on the CPU; NaN for a class without positives or without negatives, which has no ROC curve.

    Raises:
        ValueError: shapes differ, a score is NaN, a label is none of 0, 1 and NaN.
    """
    scores, labels, known = check_scores(scores, labels)
    areas = [_class_auroc(scores[known[:, k], k], labels[known[:, k], k] == 1) for k in range(scores.shape[1])]
    return torch.tensor(areas, dtype=torch.float64)


def average_precision(
    scores: Tensor,  # [N, K]
    labels: Tensor,  # [N, K]
) -> Tensor:  # [K] float64
    """Average precision of every class: ``AP = Σ_t (recall_t − recall_{t−1}) · precision_t`` over the distinct scores t
    from the highest down, without interpolation. Equal scores are one step, so that their order does not matter.

    Arguments and errors as for :func:`auroc`. NaN for a class without positives; 1 for one without negatives.
    """
    scores, labels, known = check_scores(scores, labels)
    values = [_class_precision(scores[known[:, k], k], labels[known[:, k], k] == 1) for k in range(scores.shape[1])]
    return torch.tensor(values, dtype=torch.float64)


def check_scores(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores and labels as tensors on the CPU, and which labels are known; ValueError as for :func:`auroc`."""
    scores, labels = torch.as_tensor(scores), torch.as_tensor(labels)
    if scores.dim() != 2 or scores.shape != labels.shape:
        raise ValueError(f"expected scores and labels [N, K], got {list(scores.shape)} and {list(labels.shape)}")
    scores, labels = scores.detach().cpu(), labels.detach().cpu().double()
    if scores.isnan().any():
        raise ValueError(f"expected numbers as scores, got NaN in {int(scores.isnan().sum())} of {scores.numel()}")
    known = ~labels.isnan()
    if not ((labels == 0) | (labels == 1) | ~known).all():
        raise ValueError(f"expected labels 0, 1 or NaN, got {labels[known & (labels != 0) & (labels != 1)][0].item()}")
    return scores, labels, known


def _class_auroc(
    scores: Tensor,  # [n]
    positive: Tensor,  # [n] bool
) -> float:
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    _, value, count = torch.unique(scores, return_inverse=True, return_counts=True)
    twice_midrank = 2 * count.cumsum(0) - count + 1
    twice_wins = int(twice_midrank[value][positive].sum()) - n_positive * (n_positive + 1)
    return twice_wins / (2 * n_positive * n_negative)


def _class_precision(
    scores: Tensor,  # [n]
    positive: Tensor,  # [n] bool
) -> float:
    if not positive.any():
        return float("nan")
    _, value, count = torch.unique(scores, return_inverse=True, return_counts=True)
    hits = torch.bincount(value[positive], minlength=len(count)).flip(0)
    precision = hits.cumsum(0) / count.flip(0).cumsum(0).double()
    return ((hits * precision).sum() / hits.sum()).item()


def operating_points(
    scores: Tensor,  # [N, K]
    labels: Tensor,  # [N, K]
    *,
    minimum: int = 5,
) -> Tensor:  # [K] float64
    """Score threshold of every class that maximises Youden's J = sensitivity + specificity − 1 for "present where
    score ≥ t". It lies halfway to the next lower score; of several maxima, the highest is taken.

    Args:
        scores: in [0, 1].
        labels: 1, 0, or NaN where the label is unknown. Unknown labels are left out.
        minimum: smallest number of positives and of negatives.

    Returns:
        NaN for a class with fewer than `minimum` positives or negatives.

    Raises:
        ValueError: as for :func:`auroc`.
    """
    scores, labels, _ = check_scores(scores, labels)
    scores, points = scores.double(), []
    for k in range(scores.shape[1]):
        positive, negative = scores[labels[:, k] == 1, k], scores[labels[:, k] == 0, k]
        if min(len(positive), len(negative)) < minimum:
            points.append(float("nan"))
            continue
        values = torch.cat([positive, negative]).unique()  # ascending
        youden = (positive[:, None] >= values).double().mean(0) - (negative[:, None] >= values).double().mean(0)
        best = len(values) - 1 - int(youden.flip(0).argmax())
        below = values[best - 1] if best > 0 else values[best]
        points.append(((values[best] + below) / 2).item())
    return torch.tensor(points, dtype=torch.float64)


class Mean(NamedTuple):
    """A mean over classes, with the classes that it leaves out."""

    value: float  # NaN if all classes are left out
    left_out: tuple[str, ...]
    interval: tuple[float, float] | None = None  # 95 %; NaN if the data do not allow one; None: not computed

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary for JSON, with None for NaN."""
        numbers: dict[str, Any] = {"value": _none(self.value), "left_out": list(self.left_out)}
        return numbers if self.interval is None else numbers | {"interval": [_none(end) for end in self.interval]}


def _none(value: float) -> float | None:
    return None if value != value else value


def mean_without_nan(
    values: Sequence[float] | Tensor,  # [K]
    names: Sequence[str],  # [K]
    interval: tuple[float, float] | None = None,  # of the mean
) -> Mean:
    """Mean of the values that are not NaN, and the names of those that are."""
    pairs = [(name, float(value)) for name, value in zip(names, values, strict=True)]
    present = [value for _, value in pairs if value == value]
    return Mean(
        value=sum(present) / len(present) if present else float("nan"),
        left_out=tuple(name for name, value in pairs if value != value),
        interval=interval,
    )
