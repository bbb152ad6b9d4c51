"""Multiple-instance pooling: the logit of a bag from the logits of its instances, exactly, in log space."""

from typing import Any, NamedTuple

import torch

from cxrfast.ops._mask import accumulate_dtype, mask_rows
from cxrfast.ops._registration import call, register
from cxrfast.ops._validation import check_floating, check_offsets, check_shape, choose


class PoolingMode(NamedTuple):
    code: int  # MilPool in csrc/math/mil_pool.h
    sharpness: float | None  # the default; None where the mode has none


MODES = {
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
    mode: str = "noisy_or",
    *,
    sharpness: float | torch.Tensor | None = None,  # scalar or [K]
    mask: torch.Tensor | None = None,  # bool, broadcastable to logits
) -> torch.Tensor:  # [B, K]
    """The logit of P(bag) for every image and class, from the instances of its map.

    With instance probabilities `p = σ(logit)` and sums over the instances of a bag:

    ==================  =============================  ====================================================
    mode                P(bag)                         source; default `sharpness`
    ==================  =============================  ====================================================
    noisy_or            `1 − Π (1 − p)`                Li et al. 2018, Eq. 2 (Maron & Lozano-Pérez 1998)
    mean                `mean p`
    max                 `max p`                        gradient to the first of equal instances
    lse                 `1/r · log mean exp(r p)`      Pinheiro & Collobert 2015, Wang et al. 2017 on
                                                       probabilities; r = 10
    softmax             `Σ p exp(s p) / Σ exp(s p)`    Seibold et al. 2020; s = 1
    linear_softmax      `Σ p² / Σ p`                   Wang, Li & Metze 2019
    auto                `Σ p exp(α p) / Σ exp(α p)`    McFee et al. 2018, α learnt per class; α = 1
    generalized_mean    `(mean p^r)^(1/r)`             Radenović et al. 2019; r = 3
    ==================  =============================  ====================================================

    No probability is ever subtracted from one: the kernels carry log p and log(1 − p) through the pooling, for example
    `logit = log(expm1(Σ softplus(x)))` for noisy-OR, so bags of thousands of instances and logits of ±1000 keep their
    digits and their gradients.

    A bag without instances (empty, or masked out) supports nothing: noisy_or and max give −inf. An average over nothing
    does not exist: the other modes give NaN. No gradient flows into instances that are masked out, whatever the bag's.

    Args:
        logits: float16, bfloat16, float32 or float64, any strides. Elements are computed in float32 (float64 for
            float64) and rounded once at the end; under autocast the result is float32.
        mode: a row of the table.
        sharpness: r, s or α of the table: any finite number, or a tensor with one for all or one per class, which
            receives a gradient. Greater is closer to the maximum, negative goes towards the minimum; 0 is the limit,
            the arithmetic mean (geometric for generalized_mean). A tensor's values are not checked.
        mask: true where an instance counts; `[B, 1, *]` and `[1, 1, *]` are not copied.

    Returns:
        `[B, K]` of logits' dtype; `torch.sigmoid` of it is P(bag). Deterministic; the gradient is too, and it has no
        derivative of its own. Infinite logits have their limit as the value but no defined gradient; NaN gives NaN.

    Raises:
        TypeError: logits not floating-point, mask not boolean, or sharpness not a number or floating-point tensor.
        ValueError: logits without an instance dimension, an unknown mode, a sharpness for a mode that has none, of a
            wrong shape or not finite, or a mask that does not broadcast.
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
    mode: str = "noisy_or",
    *,
    sharpness: float | torch.Tensor | None = None,  # scalar or [K]
) -> torch.Tensor:  # [B, K]
    """:func:`mil_pool` for bags of different sizes: bag b holds the instances `logits[offsets[b]:offsets[b + 1]]`.

    Args:
        logits: the instances of all bags, one after the other; as in :func:`mil_pool`.
        offsets: int64, from 0 to N, never decreasing; equal neighbours are an empty bag.
        mode, sharpness: as in :func:`mil_pool`.

    Returns:
        `[B, K]` of logits' dtype, as :func:`mil_pool`.

    Raises:
        TypeError, ValueError: as :func:`mil_pool`, and for offsets that are not as described. (Inside `torch.compile`
        the offsets' values are seen by the kernel only, which raises RuntimeError.)
    """
    check_floating("logits", logits)
    check_shape("logits", logits, "[N, K]", 2)
    check_offsets(offsets, "logits", logits)
    code, per_class = kernel_options(logits, mode, sharpness)
    return call(torch.ops.cxrfast.mil_pool_ragged, logits, offsets, per_class, code)


def kernel_options(
    logits: torch.Tensor, mode: str, sharpness: float | torch.Tensor | None
) -> tuple[int, torch.Tensor | None]:
    """The kernel's mode and the sharpness of every class."""
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
    return chosen.code, torch.full((classes,), value, dtype=dtype, device=logits.device)


def check_sharpness(value: float) -> None:
    """Raise unless value is a finite number, in float32 too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"sharpness: expected a number or a floating-point tensor, got {value!r}")
    if not abs(value) <= torch.finfo(torch.float32).max:
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
    grad_logits, per_bag = operator(grad, logits, mask_or_offsets, sharpness, ctx.mode, wanted)
    return grad_logits, None, per_bag.sum(0) if wanted else None, None


def _backward_dense(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return _backward(ctx, grad, torch.ops.cxrfast._mil_pool_backward)


def _backward_ragged(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return _backward(ctx, grad, torch.ops.cxrfast._mil_pool_ragged_backward)


# In half precision a bag of a thousand confident instances overflows, so autocast computes bags in float32.
register("mil_pool", fake=_fake, backward=_backward_dense, setup_context=_setup_context, autocast=torch.float32)
register(
    "mil_pool_ragged",
    fake=_fake_ragged,
    backward=_backward_ragged,
    setup_context=_setup_context,
    autocast=torch.float32,
)
register("_mil_pool_backward", fake=_fake_backward)
register("_mil_pool_ragged_backward", fake=_fake_backward)
