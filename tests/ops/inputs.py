"""Test inputs whose memory layout is never trivial."""

from collections.abc import Callable, Sequence
from typing import Any

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
    values = random(torch.randn, tuple(shape), seed=seed, dtype=torch.float64) * scale
    return laid_out(values.to(dtype), layout)


def random(sample: Callable[..., torch.Tensor], *args: Any, seed: int, **options: Any) -> torch.Tensor:
    """`sample(*args)`, torch.rand for example, on the default device: the same numbers on every device."""
    generator = torch.Generator().manual_seed(seed)
    return sample(*args, generator=generator, device="cpu", **options).to(torch.get_default_device())


def random_mask(shape: Sequence[int], density: float = 0.5, seed: int = 0) -> torch.Tensor:
    """A mask in which each element is true with probability `density`."""
    return random(torch.rand, tuple(shape), seed=seed) < density


def laid_out(values: torch.Tensor, layout: str) -> torch.Tensor:
    """A copy of `values` with another memory layout."""
    if layout == "sliced":
        outside = float("nan") if values.is_floating_point() else 1
        larger = torch.full([n + 3 for n in values.shape], outside, dtype=values.dtype, device=values.device)
        view = larger[tuple(slice(1, 1 + n) for n in values.shape)]
        return view.copy_(values)
    if layout == "transposed" and values.dim() >= 2:
        return values.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "channels_last" and values.dim() == 4:
        return values.contiguous(memory_format=torch.channels_last)
    return values.contiguous()
