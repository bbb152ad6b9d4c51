"""Time, memory and error of calls. Compared calls are interleaved, so changes of clock speed affect all equally."""

import ctypes
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cxrfast.benchmarks.case import FORWARD, Function, Problem, random

Call = Callable[[], Any]

_SHORTEST = 1e-3  # minimum seconds of one timing; shorter calls are repeated
_FLUSH_BYTES = 256 * 2**20


def make_call(function: Function, inputs: Sequence[torch.Tensor], passes: str, dtype: torch.dtype) -> Call:
    """A call that runs a forward pass, or a forward and backward pass, and returns the results and any gradients."""
    if passes == FORWARD:
        detached = [x.detach() for x in inputs]

        def forward() -> Any:
            with torch.no_grad():
                return function(*detached)

        return forward

    leaves = [x for x in inputs if x.requires_grad]
    gradients: list[torch.Tensor] = []

    def both() -> tuple[Any, ...]:
        outputs = [x for x in _tensors(function(*inputs)) if x.requires_grad]
        if not gradients:  # rounded to the operator's dtype, so that the float64 reference gets the same values
            noise = (random(*x.shape, device=x.device, dtype=dtype, grad=False) for x in outputs)
            gradients.extend(torch.empty_like(x).copy_(n) for x, n in zip(outputs, noise, strict=True))
        return (*outputs, *torch.autograd.grad(outputs, leaves, gradients, allow_unused=True))

    return both


def _tensors(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def difference(a: Any, b: Any) -> float:
    """max |a − b| / max |b|, the maximum over the tensors of two results; inf if their shapes differ."""
    pairs = list(zip(_tensors(a), _tensors(b), strict=False))
    if len(_tensors(a)) != len(_tensors(b)) or any(x.shape != y.shape for x, y in pairs):
        return math.inf
    return max((_difference(x.detach(), y.detach()) for x, y in pairs if x.numel()), default=0.0)


def _difference(x: torch.Tensor, y: torch.Tensor) -> float:
    if x.numel() < 2**20:
        x, y = x.double(), y.double()
    scale = float(y.abs().max())
    return float((x - y.to(x.dtype)).abs().max()) / (scale or 1.0)


def error_to_float64(problem: Problem, passes: str, dtype: torch.dtype) -> float:
    """The error of the operator against its reference in float64."""
    wide = tuple(
        x.detach().double().requires_grad_(x.requires_grad) if x.is_floating_point() else x for x in problem.inputs
    )
    ours = make_call(problem.ours, problem.inputs, passes, dtype)()
    return difference(ours, make_call(problem.reference, wide, passes, dtype)())


@dataclass
class Clock:
    """Times calls on one device: on a GPU with CUDA events, and with a cold cache before each call."""

    device: torch.device
    _flush: torch.Tensor | None = field(default=None, repr=False)

    def seconds(self, call: Call, repeats: int = 1) -> float:
        if self.device.type == "cuda" and repeats == 1:
            return self._on_gpu(call)
        self.synchronize()
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        self.synchronize()
        return (time.perf_counter() - started) / repeats

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _on_gpu(self, call: Call) -> float:
        if self._flush is None:
            self._flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device=self.device)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        start.record()
        call()
        end.record()
        self.synchronize()
        return start.elapsed_time(end) / 1e3


def in_turns(
    calls: dict[str, Call], clock: Clock, budget: float, at_most: int, launches: bool
) -> dict[str, list[float]]:
    """Seconds of every call in every round. The order of the calls is reversed in every second round.

    The number of rounds of a call follows from `budget`, the seconds for each call. It is at least five, or three for
    calls of over two seconds, and at most `at_most`. With `launches`, a timing contains many calls even on a GPU, which
    measures the overhead of a call.
    """
    times = {name: [clock.seconds(call)] for name, call in calls.items()}
    rounds, repeats = {}, {}
    for name, (once,) in times.items():
        rounds[name] = min(at_most, max(int(budget / max(once, _SHORTEST)), 5 if once < 2 else 3))
        repeats[name] = max(1, math.ceil(_SHORTEST / max(once, 1e-6))) if clock.device.type == "cpu" or launches else 1
    for turn in range(1, max(rounds.values())):
        for name in list(calls)[:: -1 if turn % 2 else 1]:
            if turn < rounds[name]:
                times[name].append(clock.seconds(calls[name], repeats[name]))
    return times


def extra_memory(call: Call, device: torch.device) -> int | None:
    """Peak memory of a call in bytes, including its results and excluding memory allocated before; None if unknown.

    On the CPU this is the growth of the process's resident memory. Memory cached by the allocator is released first.
    Memory that an implementation keeps between calls is not included.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not os.access("/proc/self/clear_refs", os.W_OK):
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, VmHWM
    before = _resident("VmRSS")
    call()
    return max(_resident("VmHWM") - before, 0)


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def free_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    lines = meminfo.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
