"""The self-guiding loss with fused sums, compared with the same loss in plain PyTorch under torch.compile."""

import math

import torch
import torch.nn.functional as F

from cxrfast.benchmarks.case import BOTH, FORWARD, BenchmarkCase, Function, Goal, Peer, Problem, Work, random
from cxrfast.losses import SelfGuidingLoss

DELTA, LAMBDA = 0.3, 20.0


def _plain(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Eq. 4 to 9 of Seibold et al. 2020 with softmax pooling, one line per equation."""
    x = logits.flatten(2)
    p, y = x.sigmoid(), labels[..., None]
    weight = p.exp()
    pooled = torch.logit((weight * p).sum(2) / weight.sum(2))
    bag = F.binary_cross_entropy_with_logits(pooled, labels.to(x.dtype))
    fixed = p.detach()
    least, most = fixed.amin(2, keepdim=True), fixed.amax(2, keepdim=True)
    theta = (fixed - least) / (most - least)
    zero, one = (theta < DELTA) | ~y, (theta > 1 - DELTA) & y
    target = torch.where(zero, 0.0, torch.where(one, 1.0, theta))
    alpha = torch.where(y, most - fixed.median(2, keepdim=True).values, 1.0)
    bce = torch.exp2(alpha - 1) * F.binary_cross_entropy_with_logits(x, target, reduction="none")
    kinds = (zero, one, ~zero & ~one)
    instance = sum((bce * kind).sum() / kind.sum().clamp(min=1) for kind in kinds)
    return bag + LAMBDA * instance


def _problem(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Problem:
    logits = random(*shape, device=device, dtype=dtype, scale=2, shift=-3)
    labels = torch.rand(shape[:2], generator=torch.Generator().manual_seed(0)) < 0.5  # negatives are less work for us
    return Problem((logits, labels.to(device)), SelfGuidingLoss("softmax", DELTA, LAMBDA), _plain)


def _specification(problem: Problem) -> Function:
    return problem.reference


def _case(shape: tuple[int, ...]) -> BenchmarkCase:
    values = math.prod(shape)
    return BenchmarkCase(
        name=f"self_guiding_loss/{'x'.join(map(str, shape))}",
        operator="self_guided_sums",
        shape=shape,
        small_shape=(4, 3, 16, 16),
        make=_problem,
        work={FORWARD: Work(values), BOTH: Work(3 * values)},
        limit="copy",
        peers=(
            Peer("compiled", _specification, compile=True),
            Peer("aten", _specification, variant="eager"),
        ),
        goals={BOTH: Goal({"compiled": 3.0})},
    )


CASES = [_case((48, 14, 16, 16)), _case((64, 14, 64, 64))]
