"""Region verification (Zhang et al. 2020): what one classifier looks at, seen alone by a second one."""

import torch

from cxrfast.models.cam import normalize_maps


def attended_region(
    maps: torch.Tensor,  # [B, C, h, w]: class activation maps, or sums of them
    level: float,
) -> torch.Tensor:  # [B, C, h, w] bool
    """What follows Eq. 7: the rectangle around the positions where a map, min–max normalised, is over `level`. One
    rectangle, also where they have several components. Of a constant map, which points nowhere, everything."""
    over = normalize_maps(maps) > level
    return enclosing_rectangle(over | ~over.any(dim=-1, keepdim=True).any(dim=-2, keepdim=True))


def enclosing_rectangle(mask: torch.Tensor) -> torch.Tensor:  # [..., h, w] bool -> the same
    """The smallest rectangle that contains all true positions of a mask; nothing where it has none."""
    rows, columns = _span(mask.any(dim=-1)), _span(mask.any(dim=-2))
    return rows[..., :, None] & columns[..., None, :]


def _span(line: torch.Tensor) -> torch.Tensor:  # [..., n] bool -> the same
    """From the first to the last true position."""
    n = line.shape[-1]
    place = torch.arange(n, device=line.device)
    first = torch.where(line, place, n).amin(dim=-1, keepdim=True)
    last = torch.where(line, place, -1).amax(dim=-1, keepdim=True)
    return (place >= first) & (place <= last)


def region_logits(
    maps: torch.Tensor,  # [B, K, h, w]: Σ_d v_kd g_d, the class activation maps of V
    region: torch.Tensor,  # [B, 1, h, w] bool, or [B, K, h, w]: of every class its own
    bias: torch.Tensor | None,  # [K] of V, if it has one
) -> torch.Tensor:  # [B, K]
    """Eq. 8: V f′, where f′ averages g over all positions, with those outside the region set to zero.

    Averaging is linear, so V's maps are masked and averaged in place of g: K maps instead of D, and regions of all
    classes cost no more than one.
    """
    logits = (maps * region).mean(dim=(-2, -1))
    return logits if bias is None else logits + bias
