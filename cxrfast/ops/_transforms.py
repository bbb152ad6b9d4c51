"""The operators under torch.func and in forward mode.

torch's `register_autograd` supports neither. While a transform is active, :func:`cxrfast.ops._registration.call` uses
an autograd.Function instead, with the same derivative, a batching rule for vmap and, where there is one, a forward-mode
derivative.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch._C._functorch import TransformType, peek_interpreter_stack
from torch.autograd import forward_ad


class Shared(NamedTuple):
    """A dimension that may have size 1, and is then shared by all elements of the batch."""

    dim: int


Dim = int | Shared | None


class Batching(NamedTuple):
    """The dimension of every argument, and of every result, into which vmap's dimension can be merged. None: the
    argument is no tensor, or must be the same for all elements of vmap's dimension."""

    inputs: tuple[Dim, ...]
    outputs: tuple[int, ...] = (0,)


def transform_active() -> bool:
    """Whether a transform of torch.func, or a level of forward-mode differentiation, is active."""
    if forward_ad._current_level >= 0:
        return True
    if not torch._C._are_functorch_transforms_active():
        return False
    return bool(peek_interpreter_stack().key() != TransformType.Functionalize)  # it keeps operators as they are


def transformable(
    operator: Callable[..., Any],
    qualified: str,
    backward: Callable[..., Any],
    setup_context: Callable[..., Any] | None,
    jvp: Callable[..., Any] | None,
    batching: Sequence[Batching],
) -> type[torch.autograd.Function]:
    """The operator as an autograd.Function that torch.func can transform.

    Args:
        backward, setup_context: as in `torch.library.register_autograd`.
        jvp: `(inputs, tangents) -> tangents of the results`, where the tangent of an input may be None.
        batching: ways to merge vmap's dimension; the first that fits is used. If none does, the operator is called for
            each element.
    """

    class Transformable(torch.autograd.Function):
        @staticmethod
        def forward(*args: Any) -> Any:
            return operator(*args)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            if setup_context is not None:
                setup_context(ctx, inputs, output)
            ctx.set_materialize_grads(False)  # to tell a tangent that is missing from one that is zero
            results = output if isinstance(output, tuple) else (output,)
            ctx.empty_grads = [(x.shape, x.dtype, x.device) for x in results]
            ctx.is_tensor = [isinstance(x, torch.Tensor) for x in inputs]
            ctx.other_inputs = [None if isinstance(x, torch.Tensor) else x for x in inputs]
            ctx.save_for_forward(*(x for x in inputs if isinstance(x, torch.Tensor)))

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            filled = (
                torch.zeros(shape, dtype=dtype, device=device) if grad is None else grad
                for grad, (shape, dtype, device) in zip(grads, ctx.empty_grads, strict=True)
            )
            return backward(ctx, *filled)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            if jvp is None:
                raise RuntimeError(f"{qualified} has no forward-mode derivative")
            tensors = iter(ctx.saved_tensors)
            inputs = [
                next(tensors) if is_tensor else x for x, is_tensor in zip(ctx.other_inputs, ctx.is_tensor, strict=True)
            ]
            return jvp(inputs, tangents)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
            return batched(Transformable.apply, batching, info, in_dims, *args)

    Transformable.__name__ = Transformable.__qualname__ = qualified.partition("::")[2]
    return Transformable


def batched(
    apply: Callable[..., Any],
    batching: Sequence[Batching],
    info: Any,
    in_dims: tuple[int | None, ...],
    *args: Any,
) -> tuple[Any, Any]:
    """The batching rule of an operator: the results for all elements of vmap's dimension, and the dimension that it has
    in each. The arguments are those of `torch.library.register_vmap`."""
    size = info.batch_size
    for way in batching:
        if all(dim is None or merged is not None for dim, merged in zip(in_dims, way.inputs, strict=True)):
            merged_args = _merge(way, size, in_dims, args)
            results = apply(*merged_args)
            single = not isinstance(results, tuple)
            parts = tuple(
                result.unflatten(dim, (size, result.shape[dim] // size))
                for result, dim in zip((results,) if single else results, way.outputs, strict=True)
            )
            return (parts[0], way.outputs[0]) if single else (parts, way.outputs)
    each = [
        apply(*(x if dim is None else x.select(dim, i) for x, dim in zip(args, in_dims, strict=True)))
        for i in range(size)
    ]
    if isinstance(each[0], tuple):
        return tuple(torch.stack(part) for part in zip(*each, strict=True)), (0,) * len(each[0])
    return torch.stack(each), 0


def _merge(way: Batching, size: int, in_dims: tuple[int | None, ...], args: tuple[Any, ...]) -> list[Any]:
    length = 1  # of the dimension that vmap's is merged with
    for x, in_dim, merged in zip(args, in_dims, way.inputs, strict=True):
        if isinstance(merged, int) and isinstance(x, torch.Tensor):
            length = (x if in_dim is None else x.select(in_dim, 0)).shape[merged]
            break
    return [
        x if merged is None or not isinstance(x, torch.Tensor) else _merge_one(x, in_dim, merged, size, length)
        for x, in_dim, merged in zip(args, in_dims, way.inputs, strict=True)
    ]


def _merge_one(x: torch.Tensor, in_dim: int | None, merged: int | Shared, size: int, length: int) -> torch.Tensor:
    dim = merged.dim if isinstance(merged, Shared) else merged
    if in_dim is None:
        if isinstance(merged, Shared) and x.shape[dim] == 1:
            return x
        x = x.unsqueeze(dim).expand(*x.shape[:dim], size, *x.shape[dim:])
    else:
        x = x.movedim(in_dim, dim)
    if isinstance(merged, Shared):
        x = x.expand(*x.shape[: dim + 1], length, *x.shape[dim + 2 :])
    return x.flatten(dim, dim + 1)
