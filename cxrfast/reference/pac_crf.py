"""pac_conv2d and pac_crf in plain PyTorch: unfold image and guide, weigh, sum. Takes k² times the images' memory."""

import torch
import torch.nn.functional as F


def pac_conv2d(
    x: torch.Tensor,  # [B, C, H, W]
    guide: torch.Tensor,  # [B, G, H, W]
    weight: torch.Tensor,  # [O, C, k, k] | [1, 1, k, k]
    bias: torch.Tensor | None = None,  # [O]
    *,
    dilation: int = 1,
) -> torch.Tensor:  # [B, O, H, W]
    """The specification of :func:`cxrfast.ops.pac_conv2d`; float16 and bfloat16 are computed in float32."""
    out = _convolve(_wide(x), _wide(guide), _wide(weight), dilation)
    if bias is not None:
        out = out + _wide(bias)[:, None, None]
    return out.to(x.dtype)


def pac_crf(
    unary: torch.Tensor,  # [B, K, H, W]
    guide: torch.Tensor,  # [B, G, H, W]
    weight: torch.Tensor,  # [K, K, k, k] | [1, 1, k, k]
    compatibility: torch.Tensor | None = None,  # [K, K]
    *,
    steps: int = 5,
    unary_weight: float | torch.Tensor = 1.0,
    dilation: int = 1,
    activation: str = "softmax",
) -> torch.Tensor:  # [B, K, H, W]
    """The specification of :func:`cxrfast.ops.pac_crf`; float16 and bfloat16 are computed in float32."""
    scores = logits = _wide(unary)
    features, kernel = _wide(guide), _wide(weight)
    matrix = torch.eye(unary.shape[1]).to(scores) if compatibility is None else _wide(compatibility)
    for _ in range(steps):
        q = logits.softmax(1) if activation == "softmax" else logits.sigmoid()
        message = torch.einsum("mk,bkhw->bmhw", matrix, _convolve(q, features, kernel, dilation))
        logits = unary_weight * scores - message
    return (logits * 1).to(unary.dtype)


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _convolve(x: torch.Tensor, guide: torch.Tensor, weight: torch.Tensor, dilation: int) -> torch.Tensor:
    kernel = weight.shape[-1]
    neighbours = _windows(x, kernel, dilation)  # [B, C, k², H, W]
    difference = guide.unsqueeze(2) - _windows(guide, kernel, dilation)  # [B, G, k², H, W]
    affinity = torch.exp(-0.5 * difference.square().sum(1))  # [B, k², H, W]
    weighted = affinity.unsqueeze(1) * neighbours
    if weight.shape[:2] == (1, 1):
        return torch.einsum("t,bcthw->bchw", weight.flatten(), weighted)
    return torch.einsum("oct,bcthw->bohw", weight.flatten(2), weighted)


def _windows(x: torch.Tensor, kernel: int, dilation: int) -> torch.Tensor:  # [B, C, k², H, W]
    """Every pixel's k×k neighbourhood, zero outside the image: F.unfold, which refuses empty images."""
    batch, channels, height, width = x.shape
    if x.numel() == 0:
        return x.new_zeros(batch, channels, kernel**2, height, width) + 0 * x.sum()
    columns = F.unfold(x, kernel, dilation=dilation, padding=dilation * (kernel // 2))
    return columns.view(batch, channels, kernel**2, height, width)
