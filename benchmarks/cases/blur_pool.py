"""blur_pool2d and max_blur_pool2d compared with other blur-pools, on the maps of a ResNet's first stages."""

import math
from typing import Any

import torch
import torch.nn.functional as F

from cxrfast import ops, reference
from cxrfast.benchmarks.case import BOTH, FORWARD, BenchmarkCase, Function, Goal, Peer, Problem, Work, random

FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


def _problem(operator: str, memory_format: torch.memory_format, **options: Any) -> Any:
    def make(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Problem:
        x = random(*shape, device=device, dtype=dtype, grad=False).contiguous(memory_format=memory_format)
        ours, specification = getattr(ops, operator), getattr(reference, operator)
        return Problem((x.requires_grad_(),), lambda x: ours(x, **options), lambda x: specification(x, **options))

    return make


def _layer(module: torch.nn.Module, x: torch.Tensor) -> torch.nn.Module:
    return module.to(x.device, x.dtype)


def _sum_of_slices(filter_size: int, x: torch.Tensor) -> torch.Tensor:
    taps = [math.comb(filter_size - 1, i) / 2 ** (filter_size - 1) for i in range(filter_size)]
    before = (filter_size - 1) // 2
    padded = F.pad(x, (before, filter_size - 1 - before) * 2, mode="reflect")
    height, width = (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2
    out: Any = 0
    for i, a in enumerate(taps):
        for j, b in enumerate(taps):
            out = out + a * b * padded[:, :, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2]
    return out


def _blur_peers(filter_size: int) -> tuple[Peer, ...]:
    def timm(problem: Problem) -> Function:
        from timm.layers import BlurPool2d

        (x,) = problem.inputs
        return _layer(BlurPool2d(x.shape[1], filt_size=filter_size, stride=2), x)

    def antialiased_cnns(problem: Problem) -> Function:
        from antialiased_cnns import BlurPool

        (x,) = problem.inputs
        return _layer(BlurPool(x.shape[1], filt_size=filter_size, stride=2), x)

    def kornia(problem: Problem) -> Function:
        from kornia.filters import BlurPool2D

        return BlurPool2D(filter_size, stride=2)

    even = filter_size % 2 == 0
    return (
        Peer("timm", timm, differs="pads an even filter by one pixel more" if even else ""),
        Peer("antialiased-cnns", antialiased_cnns),
        Peer("kornia", kornia, same_as=lambda x: ops.blur_pool2d(x, filter_size=filter_size, padding_mode="zeros")),
        Peer("compiled", lambda problem: lambda x: _sum_of_slices(filter_size, x), compile=True),
    )


def _max_blur_peers(filter_size: int) -> tuple[Peer, ...]:
    blur_peers = {peer.library: peer for peer in _blur_peers(filter_size)}

    def after_maximum(library: str) -> Any:
        def make(problem: Problem) -> Function:
            blur = blur_peers[library].make(problem)
            return lambda x: blur(F.max_pool2d(x, 2, stride=1))

        return make

    def kornia(problem: Problem) -> Function:
        from kornia.filters import MaxBlurPool2D

        return MaxBlurPool2D(filter_size, stride=2, max_pool_size=2)

    return (
        Peer("timm", after_maximum("timm")),
        Peer("antialiased-cnns", after_maximum("antialiased-cnns")),
        Peer("kornia", kornia, same_as=lambda x: ops.max_blur_pool2d(x, filter_size=filter_size, padding_mode="zeros")),
        Peer("compiled", after_maximum("compiled"), compile=True),
    )


def _work(shape: tuple[int, ...], filter_size: int, backward_reads_x: bool) -> dict[str, Work]:
    batch, channels, height, width = shape
    large = math.prod(shape)
    small = batch * channels * ((height + 1) // 2) * ((width + 1) // 2)
    sums = 2 * filter_size**2 * small
    backward = small + large * (2 if backward_reads_x else 1)
    return {FORWARD: Work(large + small, operations=sums), BOTH: Work(large + small + backward, operations=2 * sums)}


def _case(operator: str, shape: tuple[int, ...], filter_size: int, layout: str) -> BenchmarkCase:
    maximum = operator == "max_blur_pool2d"
    others = 5.0 if maximum else 4.0
    ratios = {"timm": others, "antialiased-cnns": others, "*": 1.0}
    if maximum:
        ratios |= {"kornia": others, "compiled": 1.5}
    goal = Goal(ratios, fraction=None if maximum else 0.6)
    return BenchmarkCase(
        name=f"{operator}/{'x'.join(map(str, shape))}/f{filter_size}/{layout}",
        operator=operator,
        shape=shape,
        small_shape=(2, 8, 32, 32),
        make=_problem(operator, FORMATS[layout], filter_size=filter_size),
        work=_work(shape, filter_size, backward_reads_x=maximum),
        limit="copy",
        peers=_max_blur_peers(filter_size) if maximum else _blur_peers(filter_size),
        goals={FORWARD: goal, BOTH: goal},
    )


CASES = [
    _case("blur_pool2d", shape, filter_size, layout)
    for shape in ((16, 64, 256, 256), (48, 256, 64, 64))
    for filter_size in (3, 4, 5)
    for layout in FORMATS
] + [_case("max_blur_pool2d", (48, 256, 64, 64), 3, layout) for layout in FORMATS]
