"""Test inputs whose memory layout is never trivial."""

from collections.abc import Sequence

import torch

LAYOUTS = ("contiguous", "sliced", "transposed", "channels_last")
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def tensor(
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    layout: str = "sliced",
    seed: int = 0,
    scale: float = 1.0,
) -> torch.Tensor:
    """Normal random numbers with the given shape: cut out of a larger tensor ("sliced"), with its last two dimensions
    swapped in memory ("transposed"), or channels_last."""
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randn(tuple(shape), generator=generator, dtype=torch.float64) * scale).to(dtype)
    return laid_out(values, layout)


def laid_out(values: torch.Tensor, layout: str) -> torch.Tensor:
    """A copy of `values` with another memory layout."""
    if layout == "sliced":
        outside = float("nan") if values.is_floating_point() else 1
        larger = torch.full([n + 3 for n in values.shape], outside, dtype=values.dtype)
        view = larger[tuple(slice(1, 1 + n) for n in values.shape)]
        return view.copy_(values)
    if layout == "transposed" and values.dim() >= 2:
        return values.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "channels_last" and values.dim() == 4:
        return values.contiguous(memory_format=torch.channels_last)
    return values.contiguous()
