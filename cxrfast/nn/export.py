"""Decompositions of the operators into standard ones, for exporters that know no custom operators (ONNX)."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from cxrfast.ops._mask import accumulate_dtype
from cxrfast.ops.blur_pool import PADDING_MODES
from cxrfast.ops.mil_pool import MODES
from cxrfast.ops.pac_crf import ACTIVATIONS

_PAD = {PADDING_MODES["reflect"]: "reflect", PADDING_MODES["replicate"]: "replicate"}
_PAD[PADDING_MODES["zeros"]] = "constant"
_FEW = -15.0  # below this logit softplus(x) is e^x in single precision


def export_decompositions() -> dict[torch._ops.OpOverload, Callable[..., Any]]:
    """Standard operators that compute the same, for `ExportedProgram.run_decompositions`.

    Contains `blur_pool2d`, `max_blur_pool2d`, `mil_pool` in every mode, `pac_conv2d`, `pac_crf`, `region_sums` and
    `box_log_likelihood`; not the ragged, self-guiding, component and Hamming operators, which have none. They work for
    dynamic batch, height and width, agree with the kernels to single precision for logits up to ±80, and take more
    memory: `pac_conv2d` unfolds the image. They are for inference.

    Example:
        >>> from torch.export import default_decompositions, export
        >>> class Net(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.ops.cxrfast.blur_pool2d(x, 4, 2, 0)
        >>> program = export(Net(), (torch.ones(1, 3, 8, 8),))
        >>> program = program.run_decompositions({**default_decompositions(), **export_decompositions()})
        >>> [node for node in program.graph.nodes if "cxrfast" in str(node.target)]
        []
    """
    operators = torch.ops.cxrfast
    return {
        operators.blur_pool2d.default: _blur,
        operators.max_blur_pool2d.default: _max_blur,
        operators.mil_pool.default: _mil_pool,
        operators.pac_conv2d.default: _pac_conv,
        operators.pac_crf.default: _pac_crf,
        operators.region_sums.default: _region_sums,
        operators.box_log_likelihood.default: _box_log_likelihood,
    }


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.to(accumulate_dtype(x.dtype))


def _blur(x: torch.Tensor, filter_size: int, stride: int, padding_mode: int) -> torch.Tensor:
    wide, channels = _wide(x), x.shape[1]
    coefficients = [math.comb(filter_size - 1, i) / 2 ** (filter_size - 1) for i in range(filter_size)]
    # Not torch.tensor, which is not functional.
    taps = torch.cat([torch.full((1,), tap, dtype=wide.dtype, device=x.device) for tap in coefficients])
    before = (filter_size - 1) // 2
    after = filter_size - 1 - before
    padded = F.pad(wide, (before, after, before, after), mode=_PAD[padding_mode]) if filter_size > 1 else wide
    kernel = torch.outer(taps, taps).expand(channels, 1, filter_size, filter_size)
    return F.conv2d(padded, kernel, stride=stride, groups=channels).to(x.dtype)


def _max_blur(
    x: torch.Tensor, kernel_size: int, filter_size: int, stride: int, padding_mode: int, padding: int
) -> torch.Tensor:
    maxima = F.max_pool2d(_wide(x), kernel_size, stride=1, padding=padding)
    return _blur(maxima, filter_size, stride, padding_mode).to(x.dtype)


def _region_sums(logits: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    z = _wide(logits).sigmoid()
    inside = mask.expand_as(z)
    outside = ~inside
    sums = [torch.where(kept, z, 0).sum(2) for kept in (inside, outside)]
    return (*sums, inside.to(z.dtype).sum(2), outside.to(z.dtype).sum(2))


def _box_log_likelihood(logits: torch.Tensor, mask: torch.Tensor, floor: float) -> torch.Tensor:
    x = _wide(logits)
    signed = torch.where(mask.expand_as(x), x, -x)
    if floor == 0:
        return F.logsigmoid(signed).sum(2)
    return (floor + (1 - floor) * signed.sigmoid()).log().sum(2)


def _mil_pool(
    logits: torch.Tensor,  # [B, K, N]
    mask: torch.Tensor | None,
    sharpness: torch.Tensor | None,  # [K]
    mode: int,
) -> torch.Tensor:  # [B, K]
    x = _wide(logits)
    keep = torch.ones_like(x, dtype=torch.bool) if mask is None else mask.expand_as(x)
    r = None if sharpness is None else sharpness.to(x.dtype)[None, :, None]
    return _POOLS[mode](x, keep, r).to(logits.dtype)


def _log_sum(x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    return torch.where(keep, x, -torch.inf).logsumexp(2)


def _noisy_or(x: torch.Tensor, keep: torch.Tensor, r: torch.Tensor | None) -> torch.Tensor:
    energy = torch.where(keep, -F.logsigmoid(-x), 0).sum(2)
    possible = energy + (-torch.expm1(-energy)).log()
    low = torch.where(keep, x, -torch.inf).amax(2) < _FEW
    return torch.where(low, _log_sum(x, keep), possible)


def _max(x: torch.Tensor, keep: torch.Tensor, r: torch.Tensor | None) -> torch.Tensor:
    return torch.where(keep, x, -torch.inf).amax(2)


def _weighted(log_weight: Callable[[torch.Tensor, Any], Any]) -> Callable[..., torch.Tensor]:
    def pool(x: torch.Tensor, keep: torch.Tensor, r: torch.Tensor | None) -> torch.Tensor:
        w = log_weight(x, r)
        log_p, log_q = _log_sum(w + F.logsigmoid(x), keep), _log_sum(w + F.logsigmoid(-x), keep)
        return torch.where((log_p == -torch.inf) & keep.any(2), log_p, log_p - log_q)

    return pool


def _log_exponential_mean(c: torch.Tensor, keep: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """log of 1/r · log mean exp(r·c), for numbers c ≥ 0."""
    count = keep.to(c.dtype).sum(2)
    growth = torch.where(keep, torch.expm1(r * c), 0).sum(2) / count
    rate = r.squeeze(2)
    near = torch.log1p(growth) / rate
    far = (_log_sum(r * c, keep) - count.log()) / rate
    mean = torch.where(keep, c, 0).sum(2) / count
    value = torch.where((growth > -0.5) & (growth < 1), near, far)
    return torch.where(rate.abs() < 1e-6, mean, value).log()


def _lse(x: torch.Tensor, keep: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    return _log_exponential_mean(x.sigmoid(), keep, r) - _log_exponential_mean((-x).sigmoid(), keep, -r)


def _generalized_mean(x: torch.Tensor, keep: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    surprise = _log_exponential_mean(-F.logsigmoid(x), keep, -r).exp()  # −log p̄
    return -surprise - (-torch.expm1(-surprise)).log()


_POOLS: dict[int, Callable[..., torch.Tensor]] = {
    MODES["noisy_or"].code: _noisy_or,
    MODES["mean"].code: _weighted(lambda x, r: 0),
    MODES["max"].code: _max,
    MODES["lse"].code: _lse,
    MODES["softmax"].code: _weighted(lambda x, r: r * x.sigmoid()),
    MODES["linear_softmax"].code: _weighted(lambda x, r: F.logsigmoid(x)),
    MODES["generalized_mean"].code: _generalized_mean,
}


def _affinities(guide: torch.Tensor, kernel: int, dilation: int) -> torch.Tensor:  # [B, k², H, W]
    difference = guide.unsqueeze(2) - _windows(guide, kernel, dilation)
    return torch.exp(-0.5 * difference.square().sum(1))


def _windows(x: torch.Tensor, kernel: int, dilation: int) -> torch.Tensor:  # [B, C, k², H, W]
    columns = F.unfold(x, kernel, dilation=dilation, padding=dilation * (kernel // 2))
    return columns.view(x.shape[0], x.shape[1], kernel**2, x.shape[2], x.shape[3])


def _convolve(x: torch.Tensor, affinity: torch.Tensor, weight: torch.Tensor, dilation: int) -> torch.Tensor:
    weighted = affinity.unsqueeze(1) * _windows(x, weight.shape[3], dilation)
    if weight.shape[0] == 1 and weight.shape[1] == 1:
        return torch.einsum("t,bcthw->bchw", weight.flatten(), weighted)
    return torch.einsum("oct,bcthw->bohw", weight.flatten(2), weighted)


def _pac_conv(
    x: torch.Tensor, guide: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, dilation: int
) -> torch.Tensor:
    affinity = _affinities(_wide(guide), weight.shape[3], dilation)
    out = _convolve(_wide(x), affinity, _wide(weight), dilation)
    return (out if bias is None else out + _wide(bias)[:, None, None]).to(x.dtype)


def _pac_crf(
    unary: torch.Tensor,
    guide: torch.Tensor,
    weight: torch.Tensor,
    compatibility: torch.Tensor | None,
    unary_weight: torch.Tensor,
    steps: int,
    dilation: int,
    activation: int,
) -> torch.Tensor:
    scores = logits = _wide(unary)
    affinity = _affinities(_wide(guide), weight.shape[3], dilation)
    for _ in range(steps):
        q = logits.softmax(1) if activation == ACTIVATIONS["softmax"] else logits.sigmoid()
        message = _convolve(q, affinity, _wide(weight), dilation)
        if compatibility is not None:
            message = torch.einsum("mk,bkhw->bmhw", _wide(compatibility), message)
        logits = unary_weight * scores - message
    return (logits * 1).to(unary.dtype)
