"""Multiple-instance pooling in log space: the logit of a bag from the logits of its instances."""

from typing import Any, Literal, NamedTuple

import torch

from cxrfast.ops._layout import in_layout_of
from cxrfast.ops._mask import accumulate_dtype, mask_rows
from cxrfast.ops._registration import call, register
from cxrfast.ops._transforms import Batching, Shared
from cxrfast.ops._validation import check_floating, check_offsets, check_shape, choose, filled, is_number


class PoolingMode(NamedTuple):
    code: int  # MilPool in csrc/math/mil_pool.h
    sharpness: float | None  # the default; None if the mode has no sharpness


MILPoolMode = Literal["noisy_or", "mean", "max", "lse", "softmax", "linear_softmax", "auto", "generalized_mean"]
MODES: dict[MILPoolMode, PoolingMode] = {
    "noisy_or": PoolingMode(0, None),
    "mean": PoolingMode(1, None),
    "max": PoolingMode(2, None),
    "lse": PoolingMode(3, 10.0),
    "softmax": PoolingMode(4, 1.0),
    "linear_softmax": PoolingMode(5, None),
    "auto": PoolingMode(4, 1.0),
    "generalized_mean": PoolingMode(6, 3.0),
}


def mil_pool(
    logits: torch.Tensor,  # [B, K, *]
    mode: MILPoolMode = "noisy_or",
    *,
    sharpness: float | torch.Tensor | None = None,  # scalar or [K]
    mask: torch.Tensor | None = None,  # bool, broadcastable to logits
) -> torch.Tensor:  # [B, K]
    """The logit of P(bag) for every bag (for example an image) and class, from the logits of its instances.

    With instance probabilities `p = σ(logit)` and sums over the instances of a bag:

    ==================  =============================  ====================================================
    mode                P(bag)                         source; default `sharpness`
    ==================  =============================  ====================================================
    noisy_or            `1 − Π (1 − p)`                Li et al. 2018, Eq. 2 (Maron & Lozano-Pérez 1998)
    mean                `mean p`
    max                 `max p`                        gradient to the first maximal instance
    lse                 `1/r · log mean exp(r p)`      Pinheiro & Collobert 2015, Wang et al. 2017 on
                                                       probabilities; r = 10
    softmax             `Σ p exp(s p) / Σ exp(s p)`    Seibold et al. 2020; s = 1
    linear_softmax      `Σ p² / Σ p`                   Wang, Li & Metze 2019
    auto                `Σ p exp(α p) / Σ exp(α p)`    McFee et al. 2018, α learnt per class; α = 1
    generalized_mean    `(mean p^r)^(1/r)`             Radenović et al. 2019; r = 3
    ==================  =============================  ====================================================

    The kernels compute with log p and log(1 − p), for example `logit = log(expm1(Σ softplus(x)))` for noisy-OR, and
    never subtract a probability from 1. So values and gradients stay accurate for bags of thousands of instances and
    for logits of ±1000.

    For a bag without instances (empty or fully masked), noisy_or and max give −inf. The other modes are averages and
    give NaN. Masked instances have a gradient of 0, even if the bag's gradient is NaN.

    Args:
        logits: float16, bfloat16, float32 or float64, any strides. Elements are computed in float32 (float64 for
            float64) and rounded once at the end; under autocast the result is float32.
        mode: a row of the table.
        sharpness: r, s or α of the table: a finite number, or a differentiable tensor with one value for all classes or
            one per class. Larger values approach the maximum, negative ones the minimum; 0 is the limit, which is the
            arithmetic mean (the geometric mean for generalized_mean). The values of a tensor are not checked, nor is a
            number inside `torch.compile`, where another number needs no compilation.
        mask: true for instances that belong to the bag; `[B, 1, *]` and `[1, 1, *]` are not copied.

    Returns:
        `[B, K]` of logits' dtype; `torch.sigmoid` of it is P(bag). Forward and backward are deterministic. There is no
        double backward. There is a forward mode, but not for ragged bags. For infinite logits the value is the limit
        and the gradient is undefined; NaN gives NaN.

    Raises:
        TypeError: logits not floating-point, mask not boolean, or sharpness not a number or floating-point tensor.
        ValueError: logits without an instance dimension, an unknown mode, a sharpness for a mode that has none, a
            sharpness of the wrong shape or not finite, or a mask that does not broadcast.

    Example:
        >>> logits = torch.zeros(2, 14, 20, 20)  # p = 0.5 for 14 classes on 20×20 patches of two images
        >>> mil_pool(logits, "mean").sigmoid()[0, 0].item()
        0.5
        >>> mil_pool(torch.randn(8, 14, 20, 20), "lse", sharpness=5.0).shape
        torch.Size([8, 14])
    """
    check_floating("logits", logits)
    if logits.dim() < 3:
        raise ValueError(f"logits: expected [B, K, *] with instance dimensions, got shape {tuple(logits.shape)}")
    code, per_class = kernel_options(logits, mode, sharpness)
    rows = None if mask is None else mask_rows(mask, logits)
    return call(torch.ops.cxrfast.mil_pool, logits if logits.dim() == 3 else logits.flatten(2), rows, per_class, code)


def mil_pool_ragged(
    logits: torch.Tensor,  # [N, K]
    offsets: torch.Tensor,  # [B + 1] int64
    mode: MILPoolMode = "noisy_or",
    *,
    sharpness: float | torch.Tensor | None = None,  # scalar or [K]
) -> torch.Tensor:  # [B, K]
    """:func:`mil_pool` for bags of different sizes: bag b holds the instances `logits[offsets[b]:offsets[b + 1]]`.

    Args:
        logits: the instances of all bags, concatenated; as in :func:`mil_pool`.
        offsets: int64, from 0 to N, never decreasing; two equal consecutive offsets are an empty bag.
        mode, sharpness: as in :func:`mil_pool`.

    Returns:
        `[B, K]` of logits' dtype, as :func:`mil_pool`.

    Raises:
        TypeError, ValueError: as :func:`mil_pool`, and for invalid offsets. (Inside `torch.compile` the values of the
        offsets are checked by the kernel, which raises RuntimeError.)

    Example:
        >>> logits = torch.tensor([[1.0], [3.0], [2.0]])  # bags of two instances and of one
        >>> mil_pool_ragged(logits, torch.tensor([0, 2, 3]), "max").tolist()
        [[3.0], [2.0]]
    """
    check_floating("logits", logits)
    check_shape("logits", logits, "[N, K]", 2)
    check_offsets(offsets, "logits", logits)
    code, per_class = kernel_options(logits, mode, sharpness)
    return call(torch.ops.cxrfast.mil_pool_ragged, logits, offsets, per_class, code)


def kernel_options(
    logits: torch.Tensor, mode: MILPoolMode, sharpness: float | torch.Tensor | None
) -> tuple[int, torch.Tensor | None]:
    """The mode's code in the kernels, and the sharpness per class."""
    chosen = choose("mode", mode, MODES)
    if chosen.sharpness is None:
        if sharpness is not None:
            raise ValueError(f"sharpness: expected None, because mode {mode!r} has none, got {sharpness!r}")
        return chosen.code, None
    classes, dtype = logits.shape[1], accumulate_dtype(logits.dtype)
    if isinstance(sharpness, torch.Tensor):
        check_floating("sharpness", sharpness)
        if sharpness.device != logits.device:
            raise ValueError(f"sharpness: expected logits' device {logits.device}, got {sharpness.device}")
        if sharpness.shape not in ((), (classes,)):
            raise ValueError(f"sharpness: expected a scalar or [{classes}], got shape {tuple(sharpness.shape)}")
        return chosen.code, sharpness.to(dtype).expand(classes)
    value = chosen.sharpness if sharpness is None else sharpness
    check_sharpness(value)
    return chosen.code, filled((classes,), value, dtype, logits.device)


def check_sharpness(value: float) -> None:
    """Raise unless value is a number that is finite in float32."""
    if not is_number(value):
        raise TypeError(f"sharpness: expected a number or a floating-point tensor, got {value!r}")
    if torch.compiler.is_compiling():  # a comparison would make the number a constant of the compiled code
        return
    if not abs(float(value)) <= torch.finfo(torch.float32).max:
        raise ValueError(f"sharpness: expected a finite number, got {value}")


def _fake(logits: torch.Tensor, mask: torch.Tensor | None, sharpness: torch.Tensor | None, mode: int) -> torch.Tensor:
    return logits.new_empty((logits.shape[0], logits.shape[1]))


def _fake_ragged(
    logits: torch.Tensor, offsets: torch.Tensor, sharpness: torch.Tensor | None, mode: int
) -> torch.Tensor:
    return logits.new_empty((offsets.shape[0] - 1, logits.shape[1]))


def _fake_backward(
    grad: torch.Tensor,
    logits: torch.Tensor,
    mask_or_offsets: torch.Tensor | None,
    sharpness: torch.Tensor | None,
    mode: int,
    sharpness_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    bags = grad.shape[0] if sharpness_gradient and sharpness is not None else 0
    per_bag = logits.new_empty((bags, logits.shape[1]), dtype=accumulate_dtype(logits.dtype))
    return logits.new_empty(logits.shape), per_bag


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    *tensors, ctx.mode = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: torch.Tensor, operator: Any) -> tuple[torch.Tensor | None, ...]:
    logits, mask_or_offsets, sharpness = ctx.saved_tensors
    wanted = bool(ctx.needs_input_grad[2])
    grad_logits, per_bag = call(operator, grad, logits, mask_or_offsets, sharpness, ctx.mode, wanted)
    if logits.dim() == 3:
        grad_logits = in_layout_of(logits, grad_logits)
    return grad_logits, None, per_bag.sum(0) if wanted else None, None


def _backward_dense(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return _backward(ctx, grad, torch.ops.cxrfast._mil_pool_backward)


def _backward_ragged(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return _backward(ctx, grad, torch.ops.cxrfast._mil_pool_ragged_backward)


def _jvp(inputs: list[Any], tangents: tuple[Any, ...]) -> torch.Tensor:
    """Every result depends on the instances of one bag and class only, so the derivatives of the results with respect
    to them are the gradient for ones."""
    logits, mask, sharpness, mode = inputs
    ones = logits.new_ones(logits.shape[:2])
    wanted = tangents[2] is not None
    slopes, per_bag = call(torch.ops.cxrfast._mil_pool_backward, ones, logits, mask, sharpness, mode, wanted)
    change = per_bag * tangents[2] if wanted else torch.zeros((), device=logits.device)
    if tangents[0] is not None:
        change = change + (slopes.to(accumulate_dtype(logits.dtype)) * tangents[0]).sum(2)
    return change.to(logits.dtype)


_BATCHED = [Batching((0, Shared(0), None, None)), Batching((1, Shared(1), 0, None), (1,))]
_BATCHED_BACKWARD = [
    Batching((0, 0, Shared(0), None, None, None), (0, 0)),
    Batching((1, 1, Shared(1), 0, None, None), (1, 1)),
]
_BATCHED_RAGGED = [Batching((1, None, 0, None), (1,))]
_BATCHED_RAGGED_BACKWARD = [Batching((1, 1, None, 0, None, None), (1, 1))]

# Autocast computes in float32, because the logit of a thousand confident instances overflows half precision.
register(
    "mil_pool",
    fake=_fake,
    backward=_backward_dense,
    setup_context=_setup_context,
    autocast=torch.float32,
    jvp=_jvp,
    batching=_BATCHED,
)
register(
    "mil_pool_ragged",
    fake=_fake_ragged,
    backward=_backward_ragged,
    setup_context=_setup_context,
    autocast=torch.float32,
    batching=_BATCHED_RAGGED,
)
register("_mil_pool_backward", fake=_fake_backward, batching=_BATCHED_BACKWARD)
register("_mil_pool_ragged_backward", fake=_fake_backward, batching=_BATCHED_RAGGED_BACKWARD)
