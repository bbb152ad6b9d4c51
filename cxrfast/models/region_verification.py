"""Region verification (Zhang et al. 2020): a second classifier for the region that the first one attends to."""

import torch

from cxrfast.models.cam import normalize_maps


def attended_region(
    maps: torch.Tensor,  # [B, C, h, w]: class activation maps, or sums of them
    level: float,
) -> torch.Tensor:  # [B, C, h, w] bool
    """The rectangle described after Eq. 7, around all positions where the min-max normalised map exceeds `level`. It is
    one rectangle even for several components. For a constant map it is the whole map."""
    over = normalize_maps(maps) > level
    return enclosing_rectangle(over | ~over.any(dim=-1, keepdim=True).any(dim=-2, keepdim=True))


def enclosing_rectangle(mask: torch.Tensor) -> torch.Tensor:  # [..., h, w] bool -> the same
    """The smallest rectangle that contains all true positions of a mask; empty for an empty mask."""
    rows, columns = _span(mask.any(dim=-1)), _span(mask.any(dim=-2))
    return rows[..., :, None] & columns[..., None, :]


def _span(line: torch.Tensor) -> torch.Tensor:  # [..., n] bool -> the same
    """True from the first to the last true position."""
    n = line.shape[-1]
    place = torch.arange(n, device=line.device)
    first = torch.where(line, place, n).amin(dim=-1, keepdim=True)
    last = torch.where(line, place, -1).amax(dim=-1, keepdim=True)
    return (place >= first) & (place <= last)


def region_logits(
    maps: torch.Tensor,  # [B, K, h, w]: Σ_d v_kd g_d, the class activation maps of V
    region: torch.Tensor,  # [B, 1, h, w] bool, or [B, K, h, w]: one per class
    bias: torch.Tensor | None,  # [K] of V, if it has one
) -> torch.Tensor:  # [B, K]
    """Eq. 8: V f′, where f′ averages g over all positions, with those outside the region set to zero.

    Because averaging is linear, V's K maps are masked and averaged instead of the D maps g. Separate regions per class
    therefore cost no more than one common region.
    """
    logits = (maps * region).mean(dim=(-2, -1))
    return logits if bias is None else logits + bias
