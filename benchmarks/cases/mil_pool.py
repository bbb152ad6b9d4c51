"""mil_pool and its ragged form, compared with compiled PyTorch one-liners."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from cxrfast import ops, reference
from cxrfast.benchmarks.case import BOTH, FORWARD, BenchmarkCase, Goal, Peer, Problem, Work, random
from cxrfast.ops.mil_pool import MILPoolMode


def _noisy_or(x: torch.Tensor) -> torch.Tensor:
    total = F.softplus(x).sum(-1)
    return total + torch.log(-torch.expm1(-total))


def _weighted(weight: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    def pool(x: torch.Tensor) -> torch.Tensor:
        p = x.sigmoid()
        w = weight(p)
        return torch.logit((w * p).sum(-1) / w.sum(-1))

    return pool


ONE_LINERS: dict[MILPoolMode, Callable[[torch.Tensor], torch.Tensor]] = {  # on [B, K, N]
    "noisy_or": _noisy_or,
    "mean": lambda x: torch.logit(x.sigmoid().mean(-1)),
    "max": lambda x: x.amax(-1),
    "lse": lambda x: torch.logit(((10 * x.sigmoid()).logsumexp(-1) - math.log(x.shape[-1])) / 10),
    "softmax": _weighted(torch.exp),
    "linear_softmax": _weighted(lambda p: p),
    "auto": _weighted(torch.exp),
    "generalized_mean": lambda x: torch.logit(x.sigmoid().pow(3).mean(-1).pow(1 / 3)),
}


def _problem(mode: MILPoolMode) -> Any:
    def make(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Problem:
        x = random(*shape, device=device, dtype=dtype, scale=2, shift=-3)
        return Problem((x,), lambda x: ops.mil_pool(x, mode), lambda x: reference.mil_pool(x, mode))

    return make


def _case(mode: MILPoolMode, shape: tuple[int, ...], goal: Goal) -> BenchmarkCase:
    one_liner = ONE_LINERS[mode]
    bags, values = math.prod(shape[:2]), math.prod(shape)
    return BenchmarkCase(
        name=f"mil_pool/{mode}/{'x'.join(map(str, shape))}",
        operator="mil_pool",
        shape=shape,
        small_shape=(2, 3, 16, 16),
        make=_problem(mode),
        work={FORWARD: Work(values + bags), BOTH: Work(3 * values + 2 * bags)},
        limit="copy",
        peers=(
            Peer("compiled", lambda problem: lambda x: one_liner(x.flatten(2)), compile=True),
            Peer("aten", lambda problem: lambda x: one_liner(x.flatten(2)), variant="eager"),
        ),
        goals={FORWARD: goal, BOTH: goal},
    )


def _ragged_problem(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Problem:
    bags, instances, classes = shape  # instances: average per bag
    logits = random(bags * instances, classes, device=device, dtype=dtype, scale=2, shift=-3)
    ends = torch.rand(bags - 1, generator=torch.Generator().manual_seed(0)).mul(bags * instances).long().sort().values
    offsets = torch.cat([torch.tensor([0]), ends, torch.tensor([bags * instances])]).to(device)
    return Problem((logits, offsets), ops.mil_pool_ragged, reference.mil_pool_ragged)


def _add_by_bag(logits: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    sizes = offsets.diff()
    bag = torch.repeat_interleave(torch.arange(len(sizes), device=logits.device), sizes, output_size=len(logits))
    total = logits.new_zeros(len(sizes), logits.shape[1]).index_add(0, bag, F.softplus(logits))
    return total + torch.log(-torch.expm1(-total))


def _ragged_case(shape: tuple[int, ...]) -> BenchmarkCase:
    values, bags = math.prod(shape), shape[0] * shape[2]
    return BenchmarkCase(
        name=f"mil_pool_ragged/noisy_or/{'x'.join(map(str, shape))}",
        operator="mil_pool_ragged",
        shape=shape,
        small_shape=(4, 30, 3),
        make=_ragged_problem,
        work={FORWARD: Work(values + bags), BOTH: Work(3 * values + 2 * bags)},
        limit="copy",
        peers=(Peer("aten", lambda problem: _add_by_bag, variant="index_add"),),
    )


LARGE = (1024, 14, 64, 64)
CASES = [
    _case("noisy_or", LARGE, Goal({"compiled": 2.0}, fraction=0.6)),
    _case("noisy_or", (48, 14, 20, 20), Goal({"*": 1.0})),
    *(_case(mode, LARGE, Goal({"compiled": 2.0})) for mode in ONE_LINERS if mode != "noisy_or"),
    _ragged_case((1024, 400, 14)),
]
