"""Reductions of a patch map over a region and its complement, used by the losses of Li et al. 2018 and Rozenberg et al.
2019 (:mod:`cxrfast.losses`)."""

from typing import Any

import torch

from cxrfast._operator_results import RegionSums
from cxrfast.ops._layout import in_layout_of
from cxrfast.ops._mask import accumulate_dtype, check_region
from cxrfast.ops._registration import call, register
from cxrfast.ops._transforms import Batching, Shared
from cxrfast.ops._validation import is_number


def region_sums(
    logits: torch.Tensor,  # [B, K, H, W]
    mask: torch.Tensor,  # [B, K, H, W] bool, or broadcastable to it
) -> RegionSums:
    """Sums of `z = σ(logit)` inside and outside a region, in one pass.

    The results are Σ_{i∈b} z, Σ_{i∉b} z, |b| and |b̄| of Rozenberg et al. 2019, Eq. 9 to 12. The first two add up to
    Σ_i z over the whole map.

    Args:
        logits: float16, bfloat16, float32 or float64, any strides.
        mask: true inside the region. A mask shared by images or classes (`[B, 1, H, W]`) is not copied.

    Returns:
        :class:`RegionSums` of `[B, K]` tensors in float32 (float64 for float64 logits), because half precision is too
        coarse for sums over 400 patches. The counts are numbers of patches in the same dtype, without a gradient. The
        gradient of the sums is `z·(1 − z)`, accurate in both tails. Deterministic. There is no double backward.

    Raises:
        TypeError: logits not floating-point, or mask not boolean.
        ValueError: logits not `[B, K, H, W]`, or a mask that does not broadcast to them.

    Example:
        >>> mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
        >>> mask[..., :2, :2] = True
        >>> sums = region_sums(torch.zeros(1, 1, 4, 4), mask)  # z = 0.5 everywhere
        >>> sums.inside.item(), sums.outside.item(), sums.inside_count.item(), sums.outside_count.item()
        (2.0, 6.0, 4.0, 12.0)
    """
    rows = check_region(logits, mask)
    inside, outside, inside_count, outside_count = call(torch.ops.cxrfast.region_sums, logits.flatten(2), rows)
    return RegionSums(inside, outside, inside_count.detach(), outside_count.detach())


def box_log_likelihood(
    logits: torch.Tensor,  # [B, K, H, W]
    mask: torch.Tensor,  # [B, K, H, W] bool, or broadcastable to it
    *,
    floor: float = 0.0,
) -> torch.Tensor:  # [B, K]
    """The log-probability that exactly the patches of a box are positive (Li et al. 2018, Eq. 1):
    `log p(y | x, box) = Σ_{j∈box} log p_j + Σ_{j∉box} log(1 − p_j)` with `p = σ(logit)`.

    The paper avoids underflow of the product by mapping p and 1 − p from [0, 1] to [floor, 1] with floor = 0.98, so
    that a patch contributes `log(floor + (1 − floor)·p)`. In log space this is not necessary. With an empty mask the
    result is `log Π (1 − p_j)`, the complement of the noisy-OR of Eq. 2.

    Args:
        logits: float16, bfloat16, float32 or float64, any strides.
        mask: true inside the box. A mask shared by images or classes (`[B, 1, H, W]`) is not copied.
        floor: in [0, 1).

    Returns:
        `[B, K]` in float32 (float64 for float64 logits). Value and gradient are accurate for logits of ±1000.
        Deterministic. There is no double backward.

    Raises:
        TypeError: logits not floating-point, mask not boolean, or floor not a number.
        ValueError: logits not `[B, K, H, W]`, a mask that does not broadcast to them, or floor out of range.

    Example:
        >>> mask = torch.zeros(2, 14, 20, 20, dtype=torch.bool)
        >>> mask[:, :, 5:10, 5:10] = True
        >>> box_log_likelihood(torch.randn(2, 14, 20, 20), mask).shape
        torch.Size([2, 14])
    """
    rows = check_region(logits, mask)
    check_floor(floor)
    return call(torch.ops.cxrfast.box_log_likelihood, logits.flatten(2), rows, float(floor))


def check_floor(floor: float) -> None:
    """Raise unless floor is a number in [0, 1)."""
    if not is_number(floor):
        raise TypeError(f"floor: expected a number, got {floor!r}")
    if not 0 <= floor < 1:
        raise ValueError(f"floor: expected at least 0 and below 1, got {floor}")


def _empty_sums(logits: torch.Tensor) -> torch.Tensor:
    return logits.new_empty((logits.shape[0], logits.shape[1]), dtype=accumulate_dtype(logits.dtype))


def _fake_sums(logits: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(_empty_sums(logits) for _ in range(4))


def _fake_sums_backward(
    grad_inside: torch.Tensor, grad_outside: torch.Tensor, logits: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    return logits.new_empty(logits.shape)


def _setup_sums(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _backward_sums(ctx: Any, grad_inside: torch.Tensor, grad_outside: torch.Tensor, *counts: Any) -> tuple[Any, ...]:
    logits, mask = ctx.saved_tensors
    grad = call(torch.ops.cxrfast._region_sums_backward, grad_inside, grad_outside, logits, mask)
    return in_layout_of(logits, grad), None


def _jvp_sums(inputs: list[Any], tangents: tuple[Any, ...]) -> tuple[torch.Tensor, ...]:
    logits, mask = inputs
    ones = torch.ones_like(_empty_sums(logits))
    slopes = call(torch.ops.cxrfast._region_sums_backward, ones, ones, logits, mask)
    change = slopes.to(ones.dtype) * tangents[0]
    inside, outside = (torch.where(kept, change, 0).sum(2) for kept in (mask, ~mask))
    return inside, outside, torch.zeros_like(inside), torch.zeros_like(outside)


def _fake_likelihood(logits: torch.Tensor, mask: torch.Tensor, floor: float) -> torch.Tensor:
    return _empty_sums(logits)


def _fake_likelihood_backward(
    grad: torch.Tensor, logits: torch.Tensor, mask: torch.Tensor, floor: float
) -> torch.Tensor:
    return logits.new_empty(logits.shape)


def _setup_likelihood(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    logits, mask, ctx.floor = inputs
    ctx.save_for_backward(logits, mask)


def _backward_likelihood(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    logits, mask = ctx.saved_tensors
    grad_logits = call(torch.ops.cxrfast._box_log_likelihood_backward, grad, logits, mask, ctx.floor)
    return in_layout_of(logits, grad_logits), None, None


def _jvp_likelihood(inputs: list[Any], tangents: tuple[Any, ...]) -> torch.Tensor:
    logits, mask, floor = inputs
    ones = torch.ones_like(_empty_sums(logits))
    slopes = call(torch.ops.cxrfast._box_log_likelihood_backward, ones, logits, mask, floor)
    return (slopes.to(ones.dtype) * tangents[0]).sum(2)


# No autocast: the kernels read half-precision logits directly, and all results are float32.
register(
    "region_sums",
    fake=_fake_sums,
    backward=_backward_sums,
    setup_context=_setup_sums,
    jvp=_jvp_sums,
    batching=[Batching((0, Shared(0)), (0, 0, 0, 0))],
)
register("_region_sums_backward", fake=_fake_sums_backward, batching=[Batching((0, 0, 0, Shared(0)))])
register(
    "box_log_likelihood",
    fake=_fake_likelihood,
    backward=_backward_likelihood,
    setup_context=_setup_likelihood,
    jvp=_jvp_likelihood,
    batching=[Batching((0, Shared(0), None))],
)
register("_box_log_likelihood_backward", fake=_fake_likelihood_backward, batching=[Batching((0, 0, Shared(0), None))])
