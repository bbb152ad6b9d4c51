"""Argument checks shared by the operators. Invalid arguments raise a one-line error before C++ is called."""

import itertools
import numbers
from collections.abc import Iterable, Mapping
from typing import TypeGuard, TypeVar

import torch

Key = TypeVar("Key", bound=str)
Value = TypeVar("Value")

_INT64_MAX = 2**63 - 1  # the largest integer that an operator accepts


def check_floating(name: str, x: torch.Tensor) -> None:
    """Raise TypeError unless x is a float16, bfloat16, float32 or float64 tensor."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if x.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(f"{name}: expected a floating-point tensor, got {x.dtype}")


def check_shape(name: str, x: torch.Tensor, expected: str, dims: int | Iterable[int]) -> None:
    """Raise ValueError unless x has one of the given numbers of dimensions; `expected` describes the shape."""
    allowed = (dims,) if isinstance(dims, int) else tuple(dims)
    if x.dim() not in allowed:
        raise ValueError(f"{name}: expected {expected}, got shape {tuple(x.shape)}")


def check_same(name: str, x: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    """Raise unless both tensors have the same dtype and device."""
    if x.dtype != other.dtype:
        raise TypeError(f"{name}: expected {other_name}'s dtype {other.dtype}, got {x.dtype}")
    if x.device != other.device:
        raise ValueError(f"{name}: expected {other_name}'s device {other.device}, got {x.device}")


def check_integer(name: str, value: int, low: int, high: int | None = None) -> None:
    """Raise unless value is an integer, of NumPy too, in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, numbers.Integral)):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    highest = _INT64_MAX if high is None else high
    if not low <= value <= highest:
        allowed = f"at least {low}" if high is None and value < low else f"in {low}..{highest}"
        raise ValueError(f"{name}: expected {allowed}, got {value}")


def is_number(value: object) -> TypeGuard[float]:
    """Whether value is a real number, of NumPy too."""
    return isinstance(value, (int, float, numbers.Real)) and not isinstance(value, bool)


def filled(
    shape: tuple[int, ...], value: float, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:  # of the given shape
    """A tensor filled with a number. Compiled code takes the number as an input, so that another one needs no
    compilation. (A number in `torch.full` is a constant of the compiled code.)"""
    if torch.compiler.is_compiling():
        return (torch.ones(shape, dtype=torch.float64, device=device) * value).to(dtype)
    if not isinstance(value, int | float):
        value = float(value)
    if dtype in (torch.float32, torch.float64) and abs(value) < 3e38:
        return torch.full(shape, value, dtype=dtype, device=device)
    # Through float64, because torch.full raises on values that overflow a narrower dtype.
    return torch.full(shape, value, dtype=torch.float64, device=device).to(dtype)


def check_offsets(offsets: torch.Tensor, name: str, instances: torch.Tensor) -> None:
    """Raise unless offsets are `[B + 1]` int64 on the instances' device, start at 0, end at their number and
    never decrease."""
    if not isinstance(offsets, torch.Tensor) or offsets.dtype != torch.int64:
        raise TypeError(f"offsets: expected an int64 tensor, got {getattr(offsets, 'dtype', type(offsets).__name__)}")
    if offsets.dim() != 1 or offsets.shape[0] < 1:
        raise ValueError(f"offsets: expected [B + 1], got shape {tuple(offsets.shape)}")
    if offsets.device != instances.device:
        raise ValueError(f"offsets: expected {name}' device {instances.device}, got {offsets.device}")
    if torch.compiler.is_compiling() or offsets.is_meta:  # the values are not known yet
        return
    values = offsets.tolist()
    if values[0] != 0 or values[-1] != instances.shape[0]:
        raise ValueError(f"offsets: expected to run from 0 to {instances.shape[0]}, got {values[0]} to {values[-1]}")
    if any(a > b for a, b in itertools.pairwise(values)):
        raise ValueError("offsets: expected values that never decrease")


def choose(name: str, value: str, choices: Mapping[Key, Value]) -> Value:
    """The entry of `choices` for the option `value`, or a ValueError that lists the options."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    return choices[value]  # type: ignore[index]
