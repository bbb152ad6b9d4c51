"""mil_pool in plain PyTorch: bag after bag, in float64, each mode as its formula over probabilities. Only `1 − p` is
never computed from p, because float64 has no digits left for it beyond logits of 37."""

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F

_EMPTY = {True: -torch.inf, False: torch.nan}  # nothing supports the class; there is no average

Pooling = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (logits [N], sharpness []) -> bag logit []


def mil_pool(
    logits: torch.Tensor,  # [B, K, *]
    mode: str = "noisy_or",
    *,
    sharpness: float | torch.Tensor | None = None,  # scalar or [K]
    mask: torch.Tensor | None = None,  # bool, broadcastable to logits
) -> torch.Tensor:  # [B, K]
    """The specification of :func:`cxrfast.ops.mil_pool`, for logits up to ±600 and |sharpness| up to about 20."""
    keep = torch.ones_like(logits, dtype=torch.bool) if mask is None else mask.expand_as(logits)
    bags = [[x[kept] for x, kept in zip(*row, strict=True)] for row in zip(logits, keep, strict=True)]
    return _pool_all(bags, logits, mode, sharpness)


def mil_pool_ragged(
    logits: torch.Tensor,  # [N, K]
    offsets: torch.Tensor,  # [B + 1] int64
    mode: str = "noisy_or",
    *,
    sharpness: float | torch.Tensor | None = None,  # scalar or [K]
) -> torch.Tensor:  # [B, K]
    """The specification of :func:`cxrfast.ops.mil_pool_ragged`."""
    ends = offsets.tolist()
    bags = [list(logits[a:b].unbind(1)) for a, b in itertools.pairwise(ends)]
    return _pool_all(bags, logits, mode, sharpness)


def lse_lba_pool(
    logits: torch.Tensor,  # [B, K, *]
    beta: torch.Tensor,  # [] or [K]
    r0: float,
    *,
    mask: torch.Tensor | None = None,  # bool, broadcastable to logits
) -> torch.Tensor:  # [B, K]
    """The specification of :class:`cxrfast.nn.LSELBAPool` with the parameter β: `1/r · log mean exp(r·p)` with
    `r = r₀ + exp(β)`, as a logit."""
    return mil_pool(logits, "lse", sharpness=r0 + beta.double().exp(), mask=mask)


def _pool_all(
    bags: list[list[torch.Tensor]], logits: torch.Tensor, mode: str, sharpness: float | torch.Tensor | None
) -> torch.Tensor:
    pooling, default = _MODES[mode]
    classes = logits.shape[1]
    per_class = torch.as_tensor(default if sharpness is None else sharpness, dtype=torch.float64).expand(classes)
    pooled = [
        pooling(x.double(), r) if x.numel() else x.double().sum() + _EMPTY[mode in ("noisy_or", "max")]
        for row in bags
        for x, r in zip(row, per_class, strict=True)
    ]
    result = torch.stack(pooled) if pooled else logits.flatten()[:0]
    return result.reshape(len(bags), classes).to(logits.dtype)


def _noisy_or(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    log_none = F.logsigmoid(-x).sum()  # log Π (1 − p)
    return (-torch.expm1(log_none)).log() - log_none


def _max(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    return x[x.argmax()]  # the gradient goes to the first of equal instances


def _weighted_mean(weight: Pooling) -> Pooling:
    def pool(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        w = weight(x, r)
        if not w.any():  # linear_softmax: all p = 0
            return x.amax()
        return (w * x.sigmoid()).sum().log() - (w * (-x).sigmoid()).sum().log()

    return pool


def _exponential_mean(c: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """1/r · log mean exp(r·c)"""
    if r == 0:
        return c.mean()
    growth = torch.expm1(r * c).mean()
    if -0.5 < growth < 1:
        return torch.log1p(growth) / r
    return (torch.logsumexp(r * c, 0) - torch.tensor(float(c.numel())).double().log()) / r


def _lse(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    return _exponential_mean(x.sigmoid(), r).log() - _exponential_mean((-x).sigmoid(), -r).log()


def _generalized_mean(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    log_p = -_exponential_mean(-F.logsigmoid(x), -r)  # log (mean p^r)^(1/r)
    return log_p - (-torch.expm1(log_p)).log()


_MODES: dict[str, tuple[Pooling, float]] = {
    "noisy_or": (_noisy_or, 0.0),
    "mean": (_weighted_mean(lambda x, r: torch.ones_like(x)), 0.0),
    "max": (_max, 0.0),
    "lse": (_lse, 10.0),
    "softmax": (_weighted_mean(lambda x, r: (r * x.sigmoid()).exp()), 1.0),
    "linear_softmax": (_weighted_mean(lambda x, r: x.sigmoid()), 0.0),
    "auto": (_weighted_mean(lambda x, r: (r * x.sigmoid()).exp()), 1.0),
    "generalized_mean": (_generalized_mean, 3.0),
}
