"""Boolean masks over maps, and the accumulation dtype of sums over them."""

import torch

from cxrfast.ops._validation import check_floating, check_shape


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which the kernels accumulate values of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def mask_rows(
    mask: torch.Tensor,  # bool, broadcastable to logits
    logits: torch.Tensor,  # [B, K, *]
) -> torch.Tensor:  # [B or 1, K or 1, N]
    """The mask over flattened maps. A mask broadcast over images or classes is not expanded."""
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"mask: expected a boolean tensor, got {getattr(mask, 'dtype', type(mask).__name__)}")
    if mask.device != logits.device:
        raise ValueError(f"mask: expected logits' device {logits.device}, got {mask.device}")
    if mask.shape == logits.shape:
        return mask.flatten(2)
    missing = logits.dim() - mask.dim()
    shape = (1,) * missing + tuple(mask.shape)
    if missing < 0 or any(m not in (1, n) for m, n in zip(shape, logits.shape, strict=True)):
        raise ValueError(
            f"mask: expected a shape that broadcasts to logits' {tuple(logits.shape)}, got {tuple(mask.shape)}"
        )
    return mask.reshape(shape).expand(*shape[:2], *logits.shape[2:]).flatten(2)


def check_region(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Validate a score map and its region, and return the region's rows."""
    check_floating("logits", logits)
    check_shape("logits", logits, "[B, K, H, W]", 4)
    return mask_rows(mask, logits)
