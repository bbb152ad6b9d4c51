"""Types of a benchmark: a case, its problem on one device, its work, and its peers (compared implementations)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

FORWARD = "forward"
BOTH = "forward+backward"

Function = Callable[..., Any]  # of a problem's inputs


@dataclass(frozen=True)
class Problem:
    """One call to measure: the operator and its reference, both functions of `inputs`."""

    inputs: tuple[torch.Tensor, ...]  # the backward pass computes gradients of those with requires_grad
    ours: Function
    reference: Function  # called with every floating-point input in float64


@dataclass(frozen=True)
class Work:
    """The minimum memory traffic of one call, and the number of multiplications and additions in its formula."""

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
    compile: bool = False  # whether to apply torch.compile to the result of `make`
    same_as: Function | None = None  # the call of cxrfast with the same result, if it is not that of the case
    differs: str = ""  # why no call of cxrfast has the same result
    compare: Callable[[Any, Any], float] | None = None  # (result, peer's) -> error, if types differ
    memory: Mapping[str, int] = field(default_factory=dict)  # pass -> bytes needed, if known to be large
    devices: tuple[str, ...] = ("cpu", "cuda")

    @property
    def name(self) -> str:
        return f"{self.library} ({self.variant})" if self.variant else self.library


@dataclass(frozen=True)
class Goal:
    """The performance targets of a pass."""

    ratios: Mapping[str, float] = field(default_factory=dict)  # peer -> required speed-up; "*": all others
    fraction: float | None = None  # required fraction of the machine's limit
    extra_megabytes: float | None = None

    def ratio(self, peer: Peer) -> float | None:
        found = (self.ratios[key] for key in (peer.name, peer.library, "*") if key in self.ratios)
        return next(found, None)


@dataclass(frozen=True)
class BenchmarkCase:
    name: str
    operator: str  # public name in cxrfast.ops
    shape: tuple[int, ...]
    small_shape: tuple[int, ...]  # for the error against float64, and for --quick
    make: Callable[[tuple[int, ...], torch.device, torch.dtype], Problem]
    work: Mapping[str, Work]  # pass -> its work
    limit: str = ""  # the limiting resource: "copy" (memory bandwidth), "fma", or "" for very small calls
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
