"""Sums over the ternary mask with which a bag guides itself: what the loss of Seibold et al. 2020 is made of."""

from typing import NamedTuple

import torch

MEDIANS = {"lower": 0, "mean": 1}  # of an even number of values: the lower of the two in the middle, or their mean


class SelfGuidedSums(NamedTuple):
    """Per bag and class: Σ BCE(p, M) over the instances with M = 0, M = θ and M = 1, Σ p² over those with M ≠ 0, how
    many there are of each kind, the least and the greatest logit, and the certainty α."""

    negative: torch.Tensor  # [B, K]
    soft: torch.Tensor  # [B, K]
    positive: torch.Tensor  # [B, K]
    squares: torch.Tensor  # [B, K]
    negative_count: torch.Tensor  # [B, K]
    soft_count: torch.Tensor  # [B, K]
    positive_count: torch.Tensor  # [B, K]
    minimum: torch.Tensor  # [B, K]
    maximum: torch.Tensor  # [B, K]
    certainty: torch.Tensor  # [B, K]


def check_delta(delta: float) -> None:
    """Raise unless delta is a number in [0, 0.5]."""
    if isinstance(delta, bool) or not isinstance(delta, int | float):
        raise TypeError(f"delta: expected a number, got {delta!r}")
    if not 0 <= delta <= 0.5:
        raise ValueError(f"delta: expected at least 0 and at most 0.5, got {delta}")
