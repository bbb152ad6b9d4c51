"""self_guided_sums in plain PyTorch, computed in float64 over bags of one size, with a mask where they differ."""

import itertools

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from cxrfast._operator_results import SelfGuidedSums


def self_guided_sums(
    logits: torch.Tensor,  # [B, K, *]
    positive: torch.Tensor,  # [B, K] bool
    *,
    delta: float = 0.3,
    rescale: bool = True,
    median: str = "lower",
    mask: torch.Tensor | None = None,  # bool, broadcastable to logits
) -> SelfGuidedSums:
    """The specification of :func:`cxrfast.ops.self_guided_sums`."""
    keep = torch.ones_like(logits, dtype=torch.bool) if mask is None else mask.expand_as(logits)
    sums = _sums(logits.flatten(2).double(), keep.flatten(2), positive[..., None], delta, rescale, median)
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return SelfGuidedSums(*(each.to(dtype) for each in sums))


def self_guided_sums_ragged(
    logits: torch.Tensor,  # [N, K]
    offsets: torch.Tensor,  # [B + 1] int64
    positive: torch.Tensor,  # [B, K] bool
    *,
    delta: float = 0.3,
    rescale: bool = True,
    median: str = "lower",
) -> SelfGuidedSums:
    """The specification of :func:`cxrfast.ops.self_guided_sums_ragged`."""
    bags = [logits[a:b] for a, b in itertools.pairwise(offsets.tolist())]
    padded = pad_sequence(bags, batch_first=True).movedim(1, 2) if bags else logits.T[None][:0]  # [B, K, longest]
    present = torch.arange(padded.shape[2], device=logits.device) < offsets.diff()[:, None, None]
    return self_guided_sums(padded, positive, delta=delta, rescale=rescale, median=median, mask=present)


def _difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """σ(a) − σ(b) for a ≥ b, where both may be so close to 1 that no digit of the difference is left."""
    return a.sigmoid() * (-b).sigmoid() * -torch.expm1(torch.where(a == b, 0, b - a))


def _sums(
    logits: torch.Tensor,  # [B, K, N] float64
    keep: torch.Tensor,  # [B, K, N] bool
    positive: torch.Tensor,  # [B, K, 1] bool
    delta: float,
    rescale: bool,
    median: str,
) -> tuple[torch.Tensor, ...]:
    keep, x = F.pad(keep, (0, 1)), F.pad(logits, (0, 1))  # an instance that does not count: no bag is empty now
    x = torch.where(keep, x, 0)
    p = x.sigmoid()
    least = torch.where(keep, x, torch.inf).detach().amin(2, keepdim=True)
    most = torch.where(keep, x, -torch.inf).detach().amax(2, keepdim=True)

    theta = _difference(x, least) / _difference(most, least) if rescale else p  # Eq. 5
    theta = theta.detach().clamp(max=1)
    guided = keep & positive & (most != least if rescale else True)  # 0/0: the bag says nothing about its instances
    ones = guided & (theta > 1 - delta)  # Eq. 6
    zeros = keep & ~positive | guided & (theta < delta)
    soft = guided & ~ones & ~zeros
    target = torch.where(soft, theta, ones.double())
    # Infinite logits: a target of 0 or 1 leaves out the other term, which is 0·∞.
    bce = torch.where(target == 0, 0, -target * F.logsigmoid(x))
    bce = bce + torch.where(target == 1, 0, -(1 - target) * F.logsigmoid(-x))

    count = keep.sum(2, keepdim=True)
    ordered = torch.where(keep, p, torch.inf).detach().sort(2).values
    lower = ordered.gather(2, (count - 1).clamp(min=0) // 2)
    upper = ordered.gather(2, count // 2)
    middle = lower if median == "lower" else (lower + upper) / 2
    certainty = torch.where(positive, torch.where(count > 0, most.sigmoid() - middle, 0), 1.0)  # Eq. 8

    exists = torch.where(count > 0, 0.0, torch.nan)
    per_kind = [torch.where(kind, bce, 0).sum(2) for kind in (zeros, soft, ones)]
    squares = torch.where(soft | ones, p.square(), 0).sum(2)
    counts = [kind.sum(2) for kind in (zeros, soft, ones)]
    statistics = [each.squeeze(2) for each in (least + exists, most + exists, certainty)]
    return (*per_kind, squares, *counts, *statistics)
