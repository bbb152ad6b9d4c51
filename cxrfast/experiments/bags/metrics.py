"""Overlap of predicted and positive instances."""

import torch
from torch import Tensor


def bag_iou(
    predicted: Tensor,  # [N] bool
    positive: Tensor,  # [N] bool
    offsets: Tensor,  # [B + 1] int64
) -> Tensor:  # [B] float64
    """Intersection over union of predicted and positive instances, for every bag.

    NaN for a bag without predicted or positive instances.

    Raises:
        ValueError: shapes that do not match.
    """
    if predicted.shape != positive.shape or predicted.dim() != 1 or offsets[-1] != len(positive):
        raise ValueError(
            f"predicted, positive, offsets: expected [N], [N] and offsets up to N, got {list(predicted.shape)}, "
            f"{list(positive.shape)} and offsets up to {int(offsets[-1])}"
        )
    return _sums(predicted & positive, offsets) / _sums(predicted | positive, offsets)


def _sums(
    mask: Tensor,  # [N] bool
    offsets: Tensor,  # [B + 1]
) -> Tensor:  # [B] float64
    running = torch.cat([mask.new_zeros(1, dtype=torch.int64), mask.cumsum(0)])
    return running[offsets].diff().double()
