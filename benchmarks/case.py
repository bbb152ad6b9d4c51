"""Data classes of a benchmark: the case, its problem on one device, the minimum work, and the compared
implementations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

FORWARD = "forward"
BOTH = "forward+backward"

Function = Callable[..., Any]  # of a problem's inputs


@dataclass(frozen=True)
class Problem:
    """The operator and its reference implementation, both functions of `inputs`."""

    inputs: tuple[torch.Tensor, ...]  # those that require a gradient get one in the backward pass
    ours: Function
    reference: Function  # receives floating-point inputs in float64


@dataclass(frozen=True)
class Work:
    """The minimum number of values and bytes read and written by a call, and of multiplications and additions."""

    values: int = 0  # of the case's dtype
    other_bytes: int = 0
    operations: int = 0

    def bytes(self, dtype: torch.dtype) -> int:
        return self.values * dtype.itemsize + self.other_bytes


@dataclass(frozen=True)
class Peer:
    """An implementation that the operator is compared with."""

    library: str  # a row of cxrfast.benchmarks.peers.LIBRARIES
    make: Callable[[Problem], Function]  # imports the library; returns a function of the problem's inputs
    variant: str = ""
    compile: bool = False  # compile the function with torch.compile
    same_as: Function | None = None  # our call with the same result, if not the case's own
    differs: str = ""  # why none of our calls has the same result
    compare: Callable[[Any, Any], float] | None = None  # (ours, peer's) -> error, if no tensors
    memory: Mapping[str, int] = field(default_factory=dict)  # pass -> known memory use in bytes, if large
    devices: tuple[str, ...] = ("cpu", "cuda")

    @property
    def name(self) -> str:
        return f"{self.library} ({self.variant})" if self.variant else self.library


@dataclass(frozen=True)
class Goal:
    """The performance targets of a pass."""

    ratios: Mapping[str, float] = field(default_factory=dict)  # compared implementation -> speed-up; "*": all others
    fraction: float | None = None  # of the machine's limit
    extra_megabytes: float | None = None

    def ratio(self, peer: Peer) -> float | None:
        found = (self.ratios[key] for key in (peer.name, peer.library, "*") if key in self.ratios)
        return next(found, None)


@dataclass(frozen=True)
class BenchmarkCase:
    name: str
    operator: str  # public name in cxrfast.ops
    shape: tuple[int, ...]
    small_shape: tuple[int, ...]  # for the comparison with float64, and for --quick
    make: Callable[[tuple[int, ...], torch.device, torch.dtype], Problem]
    work: Mapping[str, Work]  # pass -> minimum work
    limit: str = ""  # "copy", "fma", or "" for calls too small to be limited by either
    peers: tuple[Peer, ...] = ()
    goals: Mapping[str, Goal] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu", "cuda")


def random(
    *shape: int, device: torch.device, dtype: torch.dtype, scale: float = 1.0, shift: float = 0.0, grad: bool = True
) -> torch.Tensor:
    """Normally distributed values, the same in every run."""
    generator = torch.Generator().manual_seed(sum(shape))
    values = torch.randn(shape, generator=generator).mul_(scale).add_(shift)
    return values.to(device, dtype).requires_grad_(grad)
