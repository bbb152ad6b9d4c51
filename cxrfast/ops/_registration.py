"""Registers the Python side of every operator in the C++ schema: fake kernel, autograd formula or error, autocast."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from cxrfast import _library
from cxrfast.ops._transforms import Batching, batched, transform_active, transformable

_cuda_refusals = torch.library.Library("cxrfast", "IMPL")

# torch's own Python operators use these private functions. If one is missing, `call` takes the slower path.
_SHORTCUT = ("_AutoDispatchBelowAutograd", "_any_requires_grad")
_BelowAutograd = torch._C._AutoDispatchBelowAutograd if all(hasattr(torch._C, name) for name in _SHORTCUT) else None

_functions: dict[str, type[torch.autograd.Function]] = {}  # by name, for transforms of torch.func
_autocast: dict[str, torch.dtype] = {}

OPERATORS: set[str] = set()
"""Registered names, without the namespace. A test compares them with the schema."""


def register(
    name: str,
    *,
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., Any] | None = None,
    autocast: torch.dtype | None = None,
    jvp: Callable[..., Any] | None = None,
    batching: Sequence[Batching] = (),
) -> None:
    """Register the Python side of operator `cxrfast::name`.

    Args:
        fake: returns empty outputs of the right shape, dtype, device and strides.
        backward, setup_context: as in `torch.library.register_autograd`. Without them, differentiating the operator is
            an error. Gradient operators `_<op>_backward` are registered without them.
        autocast: dtype that inputs are cast to inside an autocast region. None means no cast.
        jvp, batching: forward-mode derivative and vmap, as in :func:`cxrfast.ops._transforms.transformable`. Without
            jvp, forward mode is an error.
    """
    qualified = f"cxrfast::{name}"
    OPERATORS.add(name)
    derivative = backward or _refusal(qualified)
    torch.library.register_fake(qualified, fake)
    torch.library.register_autograd(qualified, derivative, setup_context=setup_context)
    operator = getattr(torch.ops.cxrfast, name)
    if batching:  # for vmap inside torch.compile, and of torch.ops.cxrfast.*
        torch.library.register_vmap(qualified, functools.partial(batched, operator, batching))
    _functions[name] = transformable(operator, qualified, derivative, setup_context, jvp, batching)
    if autocast is not None:
        _autocast[name] = autocast
        for device in ("cpu", "cuda"):
            torch.library.register_autocast(qualified, device, autocast)
    if (error := _library.cuda_error()) is not None:
        _cuda_refusals.impl(name, _cuda_refusal(qualified, error), "CUDA")


def call(operator: Callable[..., Any], *args: Any) -> Any:
    """operator(*args), in a form that the active transforms of torch.func and forward mode can differentiate and batch.
    Without a transform and if no gradient is needed, torch's Python autograd wrapper is skipped, because on very small
    tensors it takes most of the time."""
    if torch.compiler.is_compiling():
        if forward_ad._current_level >= 0:  # torch would drop the tangent, and the derivative would be zero
            raise RuntimeError("cxrfast's operators have no forward-mode derivative inside torch.compile")
        return operator(*args)
    if transform_active():
        name = operator.__name__
        return _functions[name].apply(*_autocast_inputs(name, args))
    if _BelowAutograd is None or (torch.is_grad_enabled() and torch._C._any_requires_grad(*args)):
        return operator(*args)
    with _BelowAutograd():
        return operator(*args)


def _autocast_inputs(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with the dtype to which autocast would cast them, so that their gradients have their own."""
    dtype, device = _autocast.get(name), args[0].device.type
    if dtype is None or device not in ("cpu", "cuda") or not torch.is_autocast_enabled(device):
        return args
    return tuple(
        x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() and x.dtype != torch.float64 else x
        for x in args
    )


def _refusal(qualified: str) -> Callable[..., Any]:
    reason = ": double backward is not supported" if qualified.endswith("_backward") else ""

    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(f"{qualified} has no derivative{reason}")

    return backward


def _cuda_refusal(qualified: str, error: str) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"{qualified}: {error}")

    return kernel
