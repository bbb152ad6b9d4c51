"""Blur-pool in plain PyTorch: pad, convolve with an outer product of binomial coefficients, subsample."""

import math

import torch
import torch.nn.functional as F

_PAD_MODES = {"reflect": "reflect", "replicate": "replicate", "zeros": "constant"}


def blur_pool2d(
    x: torch.Tensor,  # [B, C, H, W]
    *,
    filter_size: int = 4,
    stride: int = 2,
    padding_mode: str = "reflect",
) -> torch.Tensor:  # [B, C, (H-1)//stride+1, (W-1)//stride+1]
    """The specification of :func:`cxrfast.ops.blur_pool2d`; float16 and bfloat16 are computed in float32."""
    channels = x.shape[1]
    if x.numel() == 0:
        return x[..., ::stride, ::stride] * 1
    wide = x if x.dtype == torch.float64 else x.float()
    taps = torch.tensor(
        [math.comb(filter_size - 1, i) / 2 ** (filter_size - 1) for i in range(filter_size)],
        dtype=wide.dtype,
        device=x.device,
    )
    before = (filter_size - 1) // 2
    after = filter_size - 1 - before
    padded = F.pad(wide, (before, after, before, after), mode=_PAD_MODES[padding_mode])
    kernel = torch.outer(taps, taps).expand(channels, 1, filter_size, filter_size)
    return F.conv2d(padded, kernel, stride=stride, groups=channels).to(x.dtype)


def max_blur_pool2d(
    x: torch.Tensor,  # [B, C, H, W]
    *,
    kernel_size: int = 2,
    filter_size: int = 4,
    stride: int = 2,
    padding_mode: str = "reflect",
    padding: int = 0,
) -> torch.Tensor:  # [B, C, (H'-1)//stride+1, (W'-1)//stride+1], H' = H + 2*padding - kernel_size + 1
    """The specification of :func:`cxrfast.ops.max_blur_pool2d`; float16 and bfloat16 are computed in float32."""
    if x.numel() == 0:
        sizes = [0 if n == 0 else max(n + 2 * padding - kernel_size + 1, 0) for n in x.shape[2:]]
        return x.sum() + x.new_zeros(*x.shape[:2], *(-(-n // stride) for n in sizes))
    wide = x if x.dtype == torch.float64 else x.float()
    maxima = F.max_pool2d(wide, kernel_size, stride=1, padding=padding)
    return blur_pool2d(maxima, filter_size=filter_size, stride=stride, padding_mode=padding_mode).to(x.dtype)
