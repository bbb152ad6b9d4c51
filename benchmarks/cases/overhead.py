"""Call overhead: every operator on tiny inputs, compared with a native operator of torch."""

from typing import Any

import torch
import torch.nn.functional as F

from cxrfast import ops, reference
from cxrfast.benchmarks.case import BOTH, FORWARD, BenchmarkCase, Function, Goal, Peer, Problem, Work, random

SHAPE = (1, 2, 4, 4)  # B, K, H, W


def _extra_inputs(operator: str, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    if operator in ("pac_conv2d", "pac_crf"):
        return random(*SHAPE, device=device, dtype=dtype), random(2, 2, 3, 3, device=device, dtype=dtype)
    if operator in ("region_sums", "box_log_likelihood"):
        return (torch.ones(SHAPE, dtype=torch.bool, device=device),)
    if operator == "self_guided_sums":
        return (torch.ones(SHAPE[:2], dtype=torch.bool, device=device),)
    return ()


def _problem(operator: str, options: dict[str, Any]) -> Any:
    ours, specification = getattr(ops, operator), getattr(reference, operator)

    def make(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Problem:
        x = random(*shape, device=device, dtype=dtype)
        inputs: tuple[torch.Tensor, ...] = (x, *_extra_inputs(operator, device, dtype))
        if operator == "connected_components":
            inputs = (x.detach() > 0,)
        elif operator in ("component_boxes", "component_boxes_static"):
            inputs = (x.detach(),)
        elif operator == "mil_pool_ragged":
            inputs = (random(8, 2, device=device, dtype=dtype), torch.tensor([0, 3, 8], device=device))
        elif operator == "self_guided_sums_ragged":
            offsets, positive = (
                torch.tensor([0, 3, 8], device=device),
                torch.ones(2, 2, dtype=torch.bool, device=device),
            )
            inputs = (random(8, 2, device=device, dtype=dtype), offsets, positive)
        elif operator == "hamming_topk":
            inputs = (torch.arange(4, device=device), torch.arange(8, device=device))
        return Problem(inputs, lambda *i: ours(*i, **options), lambda *i: specification(*i, **options))

    return make


def _case(operator: str, native: Function, name: str, passes: tuple[str, ...], **options: Any) -> BenchmarkCase:
    return BenchmarkCase(
        name=f"overhead/{operator}",
        operator=operator,
        shape=SHAPE,
        small_shape=SHAPE,
        make=_problem(operator, options),
        work={each: Work() for each in passes},
        peers=(Peer("aten", lambda problem: native, name, differs="a native operator, for its overhead"),),
        goals=dict.fromkeys(passes, Goal({"*": 0.25})),
    )


_EACH = (FORWARD, BOTH)
CASES = [
    _case("blur_pool2d", lambda x: F.avg_pool2d(x, 2), "avg_pool2d", _EACH),
    _case("max_blur_pool2d", lambda x: F.max_pool2d(x, 2), "max_pool2d", _EACH),
    _case("mil_pool", lambda x: x.logsumexp((2, 3)), "logsumexp", _EACH),
    _case("mil_pool_ragged", lambda x, offsets: x.logsumexp(0), "logsumexp", _EACH),
    _case("region_sums", lambda x, mask: x.sum((2, 3)), "sum", _EACH),
    _case("box_log_likelihood", lambda x, mask: x.sum((2, 3)), "sum", _EACH),
    _case("self_guided_sums", lambda x, positive: x.sum((2, 3)), "sum", _EACH),
    _case("self_guided_sums_ragged", lambda x, offsets, positive: x.sum(0), "sum", _EACH),
    _case("pac_conv2d", lambda x, guide, weight: F.conv2d(x, weight, padding=1), "conv2d", _EACH),
    _case("pac_crf", lambda x, guide, weight: F.conv2d(x, weight, padding=1), "conv2d", _EACH, steps=1),
    _case("connected_components", lambda mask: mask.nonzero(), "nonzero", (FORWARD,)),
    _case("hamming_topk", lambda queries, hashes: hashes.topk(4), "topk", (FORWARD,), k=4),
    _case("component_boxes", lambda scores: scores.nonzero(), "nonzero", (FORWARD,), threshold=0.5),
    _case(
        "component_boxes_static",
        lambda scores: torch.nonzero_static(scores, size=8),
        "nonzero_static",
        (FORWARD,),
        threshold=0.5,
        capacity=8,
    ),
]
