"""Anti-aliased downsampling: blur with a binomial filter, then subsample (Zhang 2019, "Making Convolutional Networks
Shift-Invariant Again")."""

from typing import Any

import torch

from cxrfast.ops._registration import register
from cxrfast.ops._validation import check_floating, check_integer, check_shape, choose

PADDING_MODES = {"reflect": 0, "replicate": 1, "zeros": 2}


def blur_pool2d(
    x: torch.Tensor,  # [B, C, H, W]
    *,
    filter_size: int = 4,
    stride: int = 2,
    padding_mode: str = "reflect",
) -> torch.Tensor:  # [B, C, (H-1)//stride+1, (W-1)//stride+1]
    """Blur every channel with a binomial filter and keep every `stride`-th pixel.

    `out[y, x] = Σ_{i,j} a_i a_j · padded[stride·y + i, stride·x + j]` with `a_i = C(f−1, i) / 2^(f−1)`, where
    `(f−1)//2` pixels are padded before the image and the rest after it. `filter_size=1` only subsamples.

    Args:
        x: float16, bfloat16, float32 or float64 image batch; contiguous or channels_last memory is kept, any other
            strides are copied. Sums are accumulated in float32 (float64 for float64). Autocast leaves the dtype alone.
        filter_size: f, 1 to 7.
        stride: 1 or more.
        padding_mode: "reflect" (without repeating the edge), "replicate" or "zeros".

    Returns:
        Tensor of x's dtype and memory format. Deterministic; the gradient is too.

    Raises:
        TypeError: x is not a floating-point tensor, or an option is not an integer.
        ValueError: wrong number of dimensions, an option out of range, or "reflect" on an image that is not larger than
            `filter_size // 2` in both directions.
    """
    check_floating("x", x)
    check_shape("x", x, "[B, C, H, W]", 4)
    check_integer("filter_size", filter_size, 1, 7)
    check_integer("stride", stride, 1)
    padding = choose("padding_mode", padding_mode, PADDING_MODES)
    check_reflects(x, filter_size, padding_mode)
    return torch.ops.cxrfast.blur_pool2d(x, filter_size, stride, padding)


def check_reflects(x: torch.Tensor, filter_size: int, padding_mode: str) -> None:
    """Reflection needs a pixel to reflect at; an image of no pixels has none to blur either."""
    height, width = x.shape[-2:]
    if padding_mode == "reflect" and min(height, width) <= filter_size // 2 and height * width > 0:
        raise ValueError(
            f"x: padding_mode 'reflect' with filter_size {filter_size} expected height and width over "
            f"{filter_size // 2}, got {height}x{width}; use 'replicate' or 'zeros'"
        )


def image_memory_format(x: torch.Tensor) -> torch.memory_format:
    """The format that the kernels keep: channels_last only where it differs from the default order."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def pooled_size(n: int, stride: int) -> int:
    return (n + stride - 1) // stride


def _empty(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    shape = (x.shape[0], x.shape[1], height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=image_memory_format(x))


def _fake(x: torch.Tensor, filter_size: int, stride: int, padding_mode: int) -> torch.Tensor:
    return _empty(x, pooled_size(x.shape[2], stride), pooled_size(x.shape[3], stride))


def _fake_backward(
    grad: torch.Tensor, height: int, width: int, filter_size: int, stride: int, padding_mode: int
) -> torch.Tensor:
    return _empty(grad, height, width)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, *ctx.options = inputs
    ctx.size = x.shape[2], x.shape[3]


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return torch.ops.cxrfast._blur_pool2d_backward(grad, *ctx.size, *ctx.options), None, None, None


register("blur_pool2d", fake=_fake, backward=_backward, setup_context=_setup_context)
register("_blur_pool2d_backward", fake=_fake_backward)
