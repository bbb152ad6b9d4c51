"""Registers the Python side of every operator in the C++ schema: fake kernel, autograd formula or error, autocast."""

from collections.abc import Callable
from typing import Any

import torch

from cxrfast import _library

_cuda_refusals = torch.library.Library("cxrfast", "IMPL")

# torch's own Python operators use these private functions. If one is missing, `call` takes the slower path.
_SHORTCUT = ("_AutoDispatchBelowAutograd", "_any_requires_grad", "_are_functorch_transforms_active")
_BelowAutograd = torch._C._AutoDispatchBelowAutograd if all(hasattr(torch._C, name) for name in _SHORTCUT) else None

OPERATORS: set[str] = set()
"""Registered names, without the namespace. A test compares them with the schema."""


def register(
    name: str,
    *,
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., Any] | None = None,
    autocast: torch.dtype | None = None,
) -> None:
    """Register the Python side of operator `cxrfast::name`.

    Args:
        fake: returns empty outputs of the right shape, dtype, device and strides.
        backward, setup_context: as in `torch.library.register_autograd`. Without them, differentiating the operator is
            an error. Gradient operators `_<op>_backward` are registered without them.
        autocast: dtype that inputs are cast to inside an autocast region. None means no cast.
    """
    qualified = f"cxrfast::{name}"
    OPERATORS.add(name)
    torch.library.register_fake(qualified, fake)
    torch.library.register_autograd(qualified, backward or _refusal(qualified), setup_context=setup_context)
    if autocast is not None:
        for device in ("cpu", "cuda"):
            torch.library.register_autocast(qualified, device, autocast)
    if (error := _library.cuda_error()) is not None:
        _cuda_refusals.impl(name, _cuda_refusal(qualified, error), "CUDA")


def call(operator: Callable[..., Any], *args: Any) -> Any:
    """operator(*args), without torch's Python autograd wrapper if no gradient is needed. On very small tensors that
    wrapper takes most of the time."""
    if _BelowAutograd is None or (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or (torch.is_grad_enabled() and torch._C._any_requires_grad(*args))
    ):
        return operator(*args)
    with _BelowAutograd():
        return operator(*args)


def _refusal(qualified: str) -> Callable[..., Any]:
    reason = ": double backward is not supported" if qualified.endswith("_backward") else ""

    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(f"{qualified} has no derivative{reason}")

    return backward


def _cuda_refusal(qualified: str, error: str) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"{qualified}: {error}")

    return kernel
