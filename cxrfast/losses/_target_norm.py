"""The norm of a bag's instance targets M, one of two interpretations of the L2 penalty in Seibold et al. 2020."""

import torch

from cxrfast.losses._bags import counted, present_bags
from cxrfast.losses.unknown import mean_of_known
from cxrfast.ops._mask import mask_rows


def mean_target_norm(
    logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
    positive: torch.Tensor,  # [B, K] bool, false where unknown
    known: torch.Tensor | None,  # [B, K] bool; None: all
    mask: torch.Tensor | None,  # bool, broadcastable to logits
    offsets: torch.Tensor | None,  # [B + 1] int64
    delta: float,
    rescale: bool,
) -> torch.Tensor:  # []
    """Mean over bags and classes of ‖M‖₂ = √(Σ_j M_j²), with the gradient of θ where M = θ (Eq. 5 and 6).

    Pairs of bag and class with an unknown label are excluded.
    0 for a bag whose M is 0: negative, empty, or with predictions that are all equal.
    """
    present = present_bags(logits, mask, offsets)
    if offsets is not None:
        squares = _ragged_squares(logits, positive, offsets, delta, rescale)
    else:
        inside = None if mask is None else mask_rows(mask, logits)
        squares = _dense_squares(logits.flatten(2), positive, inside, delta, rescale)
    found = squares > 0
    norms = torch.where(found, torch.where(found, squares, 1).sqrt(), 0)  # √ has an infinite gradient at 0
    if present is None:
        return mean_of_known(norms.sum() / max(norms.numel(), 1), known)
    return norms.sum() / counted(norms, present, known).sum().clamp(min=1)


def _dense_squares(
    x: torch.Tensor,  # [B, K, N]
    positive: torch.Tensor,  # [B, K] bool
    inside: torch.Tensor | None,  # [B or 1, K or 1, N] bool
    delta: float,
    rescale: bool,
) -> torch.Tensor:  # [B, K]
    if not x.shape[2]:
        return x.sum(2)
    keep = torch.ones_like(x, dtype=torch.bool) if inside is None else inside.expand_as(x)
    least = torch.where(keep, x, torch.inf).amin(2, keepdim=True)
    most = torch.where(keep, x, -torch.inf).amax(2, keepdim=True)
    guided = keep & positive[..., None]
    return _squares(x, least.expand_as(x), most.expand_as(x), guided, delta, rescale).sum(2)


def _ragged_squares(
    x: torch.Tensor,  # [N, K]
    positive: torch.Tensor,  # [B, K] bool
    offsets: torch.Tensor,  # [B + 1] int64
    delta: float,
    rescale: bool,
) -> torch.Tensor:  # [B, K]
    sizes = offsets.diff()

    def of_instances(of_bags: torch.Tensor) -> torch.Tensor:  # [B, K] -> [N, K]
        return of_bags.repeat_interleave(sizes, 0, output_size=x.shape[0])

    least, most = (of_instances(torch.segment_reduce(x, kind, lengths=sizes)) for kind in ("min", "max"))
    squares = _squares(x, least, most, of_instances(positive), delta, rescale)
    return torch.segment_reduce(squares, "sum", lengths=sizes)


def _squares(
    x: torch.Tensor,  # any shape, as all others
    least: torch.Tensor,  # of the instance's bag
    most: torch.Tensor,
    guided: torch.Tensor,  # bool: an instance of a positive bag
    delta: float,
    rescale: bool,
) -> torch.Tensor:
    """M² of every instance."""
    if rescale:
        guided = guided & (most > least)  # else Eq. 5 is 0/0
        # Elsewhere use 0, -1 and 1: they give finite values, and the last line drops their gradient.
        x, least, most = (torch.where(guided, v, other) for v, other in ((x, 0.0), (least, -1.0), (most, 1.0)))
        theta = _difference(x, least) / _difference(most, least)  # Eq. 5
    else:
        theta = torch.where(guided, x, 0).sigmoid()
    target = torch.where(theta > 1 - delta, 1, torch.where(theta < delta, 0, theta))  # Eq. 6
    return torch.where(guided, target, 0).square()


def _difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """σ(a) − σ(b) for a ≥ b, without cancellation if both are close to 1."""
    return a.sigmoid() * (-b).sigmoid() * -torch.expm1(b - a)
