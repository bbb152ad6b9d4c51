"""The reductions of a patch map over a region, compared with their reference under torch.compile."""

import math
from typing import Any

import torch

from cxrfast import ops, reference
from cxrfast.benchmarks.case import BOTH, FORWARD, BenchmarkCase, Function, Peer, Problem, Work, random


def _problem(operator: str) -> Any:
    ours, specification = getattr(ops, operator), getattr(reference, operator)

    def make(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Problem:
        logits = random(*shape, device=device, dtype=dtype, scale=2, shift=-2)
        mask = torch.zeros(shape, dtype=torch.bool, device=device)
        mask[:, :, shape[2] // 4 : shape[2] // 2, shape[3] // 3 : shape[3] // 2] = True
        return Problem((logits, mask), ours, specification)

    return make


def _case(operator: str, shape: tuple[int, ...]) -> BenchmarkCase:
    values, bags = math.prod(shape), math.prod(shape[:2])
    results = 4 if operator == "region_sums" else 1

    def specification(problem: Problem) -> Function:
        return problem.reference

    return BenchmarkCase(
        name=f"{operator}/{'x'.join(map(str, shape))}",
        operator=operator,
        shape=shape,
        small_shape=(2, 3, 16, 16),
        make=_problem(operator),
        work={
            FORWARD: Work(values, other_bytes=values + 4 * results * bags),
            BOTH: Work(3 * values, other_bytes=2 * values + 8 * results * bags),
        },
        limit="copy",
        peers=(
            Peer("compiled", specification, compile=True),
            Peer("aten", specification, variant="eager"),
        ),
    )


CASES = [
    _case(operator, shape)
    for operator in ("region_sums", "box_log_likelihood")
    for shape in ((48, 14, 20, 20), (1024, 14, 64, 64))
]
