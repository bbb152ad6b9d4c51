"""region_sums and box_log_likelihood in plain PyTorch; float16 and bfloat16 are computed in float32."""

import torch
import torch.nn.functional as F

from cxrfast._operator_results import RegionSums


def region_sums(
    logits: torch.Tensor,  # [B, K, H, W]
    mask: torch.Tensor,  # [B, K, H, W] bool, or broadcastable to it
) -> RegionSums:
    """The specification of :func:`cxrfast.ops.region_sums`."""
    z = _wide(logits).sigmoid()
    inside = mask.expand_as(z)
    sums = [torch.where(kept, z, 0).sum((2, 3)) for kept in (inside, ~inside)]
    return RegionSums(*sums, *(kept.sum((2, 3)).to(z.dtype) for kept in (inside, ~inside)))


def box_log_likelihood(
    logits: torch.Tensor,  # [B, K, H, W]
    mask: torch.Tensor,  # [B, K, H, W] bool, or broadcastable to it
    *,
    floor: float = 0.0,
) -> torch.Tensor:  # [B, K]
    """The specification of :func:`cxrfast.ops.box_log_likelihood`."""
    x = _wide(logits)
    signed = torch.where(mask.expand_as(x), x, -x)
    if floor == 0:
        return F.logsigmoid(signed).sum((2, 3))
    return (floor + (1 - floor) * signed.sigmoid()).log().sum((2, 3))


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float64 else x.float()
