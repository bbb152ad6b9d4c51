"""Input validation of the losses."""

import torch

from cxrfast.ops._validation import check_floating, check_shape


def check_patch_inputs(
    logits: torch.Tensor,  # [B, K, P, P]
    labels: torch.Tensor,  # [B, K]
    annotated: torch.Tensor,  # [B, K] bool
    region: torch.Tensor,  # [B, K, P, P] bool, or broadcastable to it
) -> None:
    """Raise TypeError or ValueError unless shapes and dtypes match. (The operators check the region's shape.)"""
    check_floating("logits", logits)
    check_shape("logits", logits, "[B, K, P, P]", 4)
    for name, per_pair in (("labels", labels), ("annotated", annotated)):
        if per_pair.shape != logits.shape[:2]:
            raise ValueError(f"{name}: expected {list(logits.shape[:2])}, got {list(per_pair.shape)}")
    for name, mask in (("annotated", annotated), ("region", region)):
        if mask.dtype != torch.bool:
            raise TypeError(f"{name}: expected a boolean tensor, got {mask.dtype}")


def check_labels(
    logits: torch.Tensor,  # [B, K]
    labels: torch.Tensor,  # [B, K]
) -> None:
    """Raise TypeError or ValueError unless shapes and dtypes match."""
    check_floating("logits", logits)
    check_shape("logits", logits, "[B, K]", 2)
    if labels.shape != logits.shape:
        raise ValueError(f"labels: expected {list(logits.shape)}, got {list(labels.shape)}")


def check_weight(name: str, value: float) -> None:
    """Raise unless value is a number and not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")
