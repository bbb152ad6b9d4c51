"""pac_crf and pac_conv2d compared with the unfold formulation, the published code, a dense affinity, and related code.

The published PacCRF and ConvCRF cannot be installed, and are not part of cxrfast: `--peer-path` says where they lie.
"""

import importlib
import sys
import types
from collections.abc import Mapping
from typing import Any

import torch

from cxrfast import ops, reference
from cxrfast.benchmarks.case import BOTH, FORWARD, BenchmarkCase, Function, Goal, Peer, Problem, Work, random

STEPS = 5


def _inputs(
    shape: tuple[int, ...], shared: bool, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, ...]:  # unary, guide, weight and, for a shared filter, compatibility
    batch, labels, height, width, kernel, guides = shape
    place: dict[str, Any] = {"device": device, "dtype": dtype}
    unary = random(batch, labels, height, width, **place)
    guide = random(batch, guides, height, width, scale=0.5 * guides**-0.5, **place)
    if not shared:
        return unary, guide, random(labels, labels, kernel, kernel, scale=0.01, **place)
    weight = random(1, 1, kernel, kernel, scale=0.02, **place)
    return unary, guide, weight, random(labels, labels, scale=labels**-0.5, **place)


def _crf_problem(shared: bool) -> Any:
    def make(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Problem:
        return Problem(
            _inputs(shape, shared, device, dtype),
            lambda *inputs: ops.pac_crf(*inputs, steps=STEPS),
            lambda *inputs: reference.pac_crf(*inputs, steps=STEPS),
        )

    return make


def _convolution_problem(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Problem:
    inputs = _inputs(shape, True, device, dtype)[:3]
    return Problem(inputs, ops.pac_conv2d, reference.pac_conv2d)


def _published(module: str) -> Any:
    """A module of the published code. It imports a removed part of torch, which native_impl does not use."""
    sys.modules.setdefault("torch._thnn", types.SimpleNamespace(type2backend=None))  # type: ignore[arg-type]
    return importlib.import_module(module)


def _published_crf(problem: Problem) -> Function:
    published = _published("paccrf")

    unary, _, weight, *compatibility = problem.inputs
    kernel = {"kernel_size": weight.shape[-1], "compat_type": "2d" if compatibility else "4d", "spatial_filter": True}
    options = {"perturbed_init": False, "fixed_weighting": True, "native_impl": True}
    crf = published.PacCRF(unary.shape[1], STEPS, pairwise_kernels=kernel, **options)
    crf.to(unary.device, unary.dtype)

    def call(
        unary: torch.Tensor, guide: torch.Tensor, weight: torch.Tensor, matrix: torch.Tensor | None = None
    ) -> torch.Tensor:
        parameters = {"messengers.0.weight": weight}
        if matrix is not None:
            parameters["compat.0.weight"] = matrix[:, :, None, None]
        return torch.func.functional_call(crf, parameters, (unary, guide))

    return call


def _published_convolution(problem: Problem) -> Function:
    pac = _published("pac")
    kernel = problem.inputs[2].shape[-1]

    def call(x: torch.Tensor, guide: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        affinity, _ = pac.packernel2d(guide, kernel_size=kernel, padding=kernel // 2, native_impl=True)
        return pac.pacconv2d(x, affinity, weight, padding=kernel // 2, shared_filters=True, native_impl=True)

    return call


def _convcrf(problem: Problem) -> Function:
    from convcrf.convcrf import ConvCRF

    unary, _, weight, _ = problem.inputs
    crf = ConvCRF(
        tuple(unary.shape[2:]),
        unary.shape[1],
        {"logsoftmax": True, "softmax": True},
        filter_size=weight.shape[-1],
        norm="none",
        convcomp=True,
        final_softmax=False,
    ).to(unary.device, unary.dtype)

    def call(unary: torch.Tensor, guide: torch.Tensor, weight: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        crf.add_pairwise_energies([guide], [weight.sum()], merge=True)
        parameters = {"comp.weight": matrix[:, :, None, None]}
        return torch.func.functional_call(_Inference(crf), {f"crf.{k}": v for k, v in parameters.items()}, (unary,))

    return call


class _Inference(torch.nn.Module):
    """ConvCRF's entry point is not its forward."""

    def __init__(self, crf: Any) -> None:
        super().__init__()
        self.crf = crf

    def forward(self, unary: torch.Tensor) -> torch.Tensor:
        return self.crf.inference(unary, num_iter=STEPS)


def _dense(problem: Problem) -> Function:
    """All pairs of pixels as one matrix per image, so that a step is two matrix products."""
    unary, _, weight, _ = problem.inputs
    kernel, width = weight.shape[-1], unary.shape[3]
    pixel = torch.arange(unary.shape[2] * width, device=unary.device)
    dy = pixel // width - (pixel // width)[:, None] + kernel // 2
    dx = pixel % width - (pixel % width)[:, None] + kernel // 2
    inside = (dy >= 0) & (dy < kernel) & (dx >= 0) & (dx < kernel)
    tap = torch.where(inside, dy * kernel + dx, kernel**2)  # [HW, HW]; the last tap is 0

    def call(unary: torch.Tensor, guide: torch.Tensor, weight: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        features = guide.flatten(2)
        square = features.square().sum(1)
        distance = square[:, :, None] + square[:, None] - 2 * features.transpose(1, 2) @ features
        affinity = torch.exp(-0.5 * distance) * torch.cat([weight.flatten(), weight.new_zeros(1)])[tap]
        scores = logits = unary.flatten(2)
        for _ in range(STEPS):
            logits = scores - matrix @ torch.bmm(logits.softmax(1), affinity.transpose(1, 2))
        return logits.view_as(unary)

    return call


def _natten(problem: Problem) -> Function:
    from natten import na2d

    kernel = problem.inputs[2].shape[-1]

    def call(x: torch.Tensor, guide: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        query, value = (t.permute(0, 2, 3, 1).unsqueeze(3) for t in (guide, x))  # [B, H, W, 1 head, channels]
        return na2d(query, query, value, kernel_size=kernel, scale=1.0)

    return call


def _pairs(shape: tuple[int, ...]) -> int:
    """Pixels and neighbours that lie inside the image and the window, of one image."""
    height, width, kernel = shape[2:5]
    count = 1
    for length in (height, width):
        count *= sum(max(length - abs(offset), 0) for offset in range(-(kernel // 2), kernel // 2 + 1))
    return count


def _work(shape: tuple[int, ...], shared: bool, steps: int) -> dict[str, Work]:
    """Distances are symmetric: half of them, as a product. Backward, each product of the forward gives two gradients,
    of which that of the probabilities and that of the affinities share one; so a third of all is the forward's."""
    batch, labels, height, width, _, guides = shape
    pairs = batch * _pairs(shape)
    step = pairs * labels if shared else pairs * labels**2
    if shared and steps > 1:
        step += batch * height * width * labels**2  # the compatibility
    operations = 2 * (pairs * guides // 2 + steps * step)
    values = batch * height * width * (2 * labels + guides)
    return {FORWARD: Work(values, operations=operations), BOTH: Work(3 * values, operations=3 * operations)}


def _unfolded(shape: tuple[int, ...], steps: int) -> Mapping[str, int]:
    batch, labels, height, width, kernel, guides = shape
    column = 4 * batch * kernel**2 * height * width
    return {FORWARD: 2 * column * max(labels, guides), BOTH: column * (2 * steps * labels + 3 * guides)}


def _case(
    name: str, shape: tuple[int, ...], shared: bool, goals: Mapping[str, Goal], dense: bool = False
) -> BenchmarkCase:
    memory = _unfolded(shape, STEPS)

    def unfold(problem: Problem) -> Function:
        return problem.reference

    peers = [
        Peer("paccrf", _published_crf, memory=memory),
        Peer("unfold", unfold, memory=memory, devices=("cpu",)),
        Peer("unfold", unfold, "compiled", compile=True, memory=memory, devices=("cuda",)),
    ]
    if shared:
        why = "starts from log-probabilities, one weight for the whole window"
        peers.append(Peer("convcrf", _convcrf, differs=why, memory=memory))
    if dense:
        peers.append(Peer("compiled", _dense, variant="dense affinity", compile=True))
    size = "x".join(map(str, shape[:4]))
    return BenchmarkCase(
        name=f"pac_crf/{name}/{size}/k{shape[4]}",
        operator="pac_crf",
        shape=shape,
        small_shape=(1, shape[1], 12, 12, 9, 16),
        make=_crf_problem(shared),
        work=_work(shape, shared, STEPS),
        limit="fma",
        peers=tuple(peers),
        goals=goals,
    )


def _convolution_case(shape: tuple[int, ...]) -> BenchmarkCase:
    memory = _unfolded(shape, 1)
    return BenchmarkCase(
        name=f"pac_conv2d/shared/{'x'.join(map(str, shape[:4]))}/k{shape[4]}",
        operator="pac_conv2d",
        shape=shape,
        small_shape=(1, 32, 16, 16, 5, 32),
        make=_convolution_problem,
        work=_work(shape, True, 1),
        limit="fma",
        peers=(
            Peer("paccrf", _published_convolution, variant="pacconv2d", memory=memory),
            Peer("unfold", lambda problem: problem.reference, memory=memory),
            Peer("natten", _natten, differs="normalises, and shifts the window at the border"),
        ),
    )


PAPER = (48, 14, 20, 20, 19, 64)  # B, K, H, W, k, G
IMAGE = (2, 21, 64, 64, 11, 5)

_small = {"extra_megabytes": 120.0}
CASES: list[BenchmarkCase] = [
    _case(
        "full",
        PAPER,
        False,
        {
            FORWARD: Goal({"paccrf": 50.0, "unfold (compiled)": 20.0}, **_small),
            BOTH: Goal({"paccrf": 40.0, "unfold (compiled)": 20.0}, **_small),
        },
    ),
    _case(
        "shared",
        PAPER,
        True,
        dict.fromkeys((FORWARD, BOTH), Goal({"compiled (dense affinity)": 2.0}, **_small)),
        dense=True,
    ),
    _case("full", IMAGE, False, {BOTH: Goal({"paccrf": 25.0})}),
    _case("shared", IMAGE, True, {BOTH: Goal({"convcrf": 5.0})}),
    _convolution_case((8, 32, 64, 64, 7, 32)),
]
