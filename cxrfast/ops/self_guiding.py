"""The instance-level sums of the self-guiding loss of Seibold et al. 2020 (:class:`cxrfast.losses.SelfGuidingLoss`),
whose instance targets are derived from the predictions in the same bag."""

from typing import Any, Literal

import torch

from cxrfast._operator_results import SelfGuidedSums
from cxrfast.ops._layout import in_layout_of
from cxrfast.ops._mask import accumulate_dtype, mask_rows
from cxrfast.ops._registration import call, register
from cxrfast.ops._transforms import Batching, Shared
from cxrfast.ops._validation import check_floating, check_offsets, check_shape, choose, is_number
from cxrfast.ops.mil_pool import MILPoolMode, kernel_options

Median = Literal["lower", "mean"]  # of an even number of values: the lower of the two middle values, or their mean
MEDIANS: dict[Median, int] = {"lower": 0, "mean": 1}
_SUMS, _STATISTICS = 4, 6  # rows of the kernels' results: fields with a gradient, and fields without


def self_guided_sums(
    logits: torch.Tensor,  # [B, K, *]
    positive: torch.Tensor,  # [B, K] bool
    *,
    delta: float = 0.3,
    rescale: bool = True,
    median: Median = "lower",
    mask: torch.Tensor | None = None,  # bool, broadcastable to logits
) -> SelfGuidedSums:
    """Instance losses against targets derived from the predictions in the same bag (Seibold et al. 2020, Eq. 5 to 8),
    in one pass.

    With `p = σ(logit)` over the instances of a bag, `y = positive`, δ_l = delta and δ_h = 1 − delta::

        Eq. 5   θ = (p − min p) / (max p − min p)
        Eq. 6   M = 0 where θ < δ_l or y = 0,   θ where δ_l ≤ θ ≤ δ_h,   1 where θ > δ_h
        Eq. 7   BCE(p, M) = −M·log p − (1 − M)·log(1 − p), summed over each kind of M
        Eq. 8   α = max(max p − median p, 1 − y)

    θ is computed from logits, so it stays accurate when all predictions of a bag are close to 1 or to 0: values and
    gradients are accurate for logits of ±50 and more. M and α are treated as constants: the gradient of BCE is p − M.

    For a positive bag whose logits are all equal (for example a bag of one instance) Eq. 5 is 0/0. Such a bag has no
    targets, and its sums and counts are 0. A bag without instances has sums and counts of 0, minimum and maximum NaN,
    and α = 1 − y.

    Args:
        logits: float16, bfloat16, float32 or float64, any strides.
        positive: y, the bag's label.
        delta: δ_l, in [0, 0.5].
        rescale: False uses θ = p instead of Eq. 5.
        median: of an even number of predictions: "lower", the lower of the two middle values as in `torch.median`, or
            their "mean".
        mask: true for instances that belong to the bag; `[B, 1, *]` and `[1, 1, *]` are not copied.

    Returns:
        :class:`SelfGuidedSums` of `[B, K]` tensors in float32 (float64 for float64 logits). The first four have a
        gradient but no double backward and no forward mode. Minimum and maximum are logits. Deterministic. A NaN in a
        bag makes its sums NaN.

    Raises:
        TypeError: logits not floating-point, positive or mask not boolean, or delta not a number.
        ValueError: logits without an instance dimension, positive not `[B, K]` or on another device, delta out of
            range, an unknown median, or a mask that does not broadcast.

    Example:
        >>> logits = torch.tensor([-2.0, 0.0, 2.0]).reshape(1, 1, 3)  # one positive bag of three instances
        >>> sums = self_guided_sums(logits, torch.tensor([[True]]), delta=0.3)
        >>> sums.negative_count.item(), sums.soft_count.item(), sums.positive_count.item()  # θ = 0, 0.5 and 1
        (1.0, 1.0, 1.0)
    """
    return _named(*stacked_sums(logits, positive, None, mask, delta, rescale, median))


def self_guided_sums_ragged(
    logits: torch.Tensor,  # [N, K]
    offsets: torch.Tensor,  # [B + 1] int64
    positive: torch.Tensor,  # [B, K] bool
    *,
    delta: float = 0.3,
    rescale: bool = True,
    median: Median = "lower",
) -> SelfGuidedSums:
    """:func:`self_guided_sums` for bags of different sizes: bag b holds the instances
    `logits[offsets[b]:offsets[b + 1]]`.

    Args:
        logits: the instances of all bags, concatenated.
        offsets: int64, from 0 to N, never decreasing; two equal consecutive offsets are an empty bag.
        positive, delta, rescale, median: as in :func:`self_guided_sums`.

    Returns:
        As :func:`self_guided_sums`.

    Raises:
        TypeError, ValueError: as :func:`self_guided_sums`, and for invalid offsets. (Inside `torch.compile`
            the values of the offsets are checked by the kernel, which raises RuntimeError.)

    Example:
        >>> logits = torch.tensor([[-2.0], [0.0], [2.0], [1.0]])  # a positive bag of three, a negative bag of one
        >>> positive = torch.tensor([[True], [False]])
        >>> self_guided_sums_ragged(logits, torch.tensor([0, 3, 4]), positive).negative_count.tolist()
        [[1.0], [1.0]]
    """
    return _named(*stacked_sums(logits, positive, offsets, None, delta, rescale, median))


def stacked_sums(
    logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
    positive: torch.Tensor,  # [B, K] bool
    offsets: torch.Tensor | None,  # [B + 1] int64
    mask: torch.Tensor | None,  # bool, broadcastable to logits
    delta: float,
    rescale: bool,
    median: Median,
) -> tuple[torch.Tensor, torch.Tensor]:  # [4, B, K], [6, B, K]
    """:class:`SelfGuidedSums` as two tensors: the fields with a gradient, and those without."""
    check_floating("logits", logits)
    check_delta(delta)
    middle = choose("median", median, MEDIANS)
    where: tuple[torch.Tensor | None, ...]
    operator: Any
    if offsets is not None:
        check_shape("logits", logits, "[N, K]", 2)
        check_offsets(offsets, "logits", logits)
        _check_positive(positive, logits, offsets.shape[0] - 1)
        operator, where = torch.ops.cxrfast.self_guided_sums_ragged, (offsets, positive)
    else:
        if logits.dim() < 3:
            raise ValueError(f"logits: expected [B, K, *] with instance dimensions, got shape {tuple(logits.shape)}")
        _check_positive(positive, logits, logits.shape[0])
        operator = torch.ops.cxrfast.self_guided_sums
        where = (positive, None if mask is None else mask_rows(mask, logits))
        logits = logits if logits.dim() == 3 else logits.flatten(2)
    sums, statistics = call(operator, logits, *where, float(delta), bool(rescale), middle)
    return sums, statistics.detach()


def pooled_and_stacked_sums(
    logits: torch.Tensor,  # [B, K, *]
    positive: torch.Tensor,  # [B, K] bool
    mask: torch.Tensor | None,  # bool, broadcastable to logits
    mode: MILPoolMode,
    sharpness: float | None,
    delta: float,
    rescale: bool,
    median: Median,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # [B, K], [4, B, K], [6, B, K]
    """:func:`cxrfast.ops.mil_pool` and :func:`stacked_sums` of the same bags in one operator, with a common gradient
    map."""
    check_floating("logits", logits)
    check_delta(delta)
    _check_positive(positive, logits, logits.shape[0])
    middle = choose("median", median, MEDIANS)
    code, per_class = kernel_options(logits, mode, sharpness)
    rows = None if mask is None else mask_rows(mask, logits)
    x = logits if logits.dim() == 3 else logits.flatten(2)
    operator = torch.ops.cxrfast.self_guided_pool
    pooled, sums, statistics = call(operator, x, positive, rows, per_class, code, float(delta), bool(rescale), middle)
    return pooled, sums, statistics.detach()


def check_delta(delta: float) -> None:
    """Raise unless delta is a number in [0, 0.5]."""
    if not is_number(delta):
        raise TypeError(f"delta: expected a number, got {delta!r}")
    if not 0 <= delta <= 0.5:
        raise ValueError(f"delta: expected at least 0 and at most 0.5, got {delta}")


def _check_positive(positive: torch.Tensor, logits: torch.Tensor, bags: int) -> None:
    if not isinstance(positive, torch.Tensor) or positive.dtype != torch.bool:
        raise TypeError(
            f"positive: expected a boolean tensor, got {getattr(positive, 'dtype', type(positive).__name__)}"
        )
    if positive.shape != (bags, logits.shape[1]):
        raise ValueError(f"positive: expected {[bags, logits.shape[1]]}, got {list(positive.shape)}")
    if positive.device != logits.device:
        raise ValueError(f"positive: expected logits' device {logits.device}, got {positive.device}")


def _named(sums: torch.Tensor, statistics: torch.Tensor) -> SelfGuidedSums:
    return SelfGuidedSums(*sums.unbind(), *statistics.unbind())


def _empty_results(logits: torch.Tensor, bags: int) -> tuple[torch.Tensor, torch.Tensor]:
    dtype, classes = accumulate_dtype(logits.dtype), logits.shape[1]
    sums, statistics = (logits.new_empty((rows, bags, classes), dtype=dtype) for rows in (_SUMS, _STATISTICS))
    return sums, statistics


def _fake(
    logits: torch.Tensor, positive: torch.Tensor, mask: torch.Tensor | None, delta: float, rescale: bool, median: int
) -> tuple[torch.Tensor, torch.Tensor]:
    return _empty_results(logits, logits.shape[0])


def _fake_ragged(
    logits: torch.Tensor, offsets: torch.Tensor, positive: torch.Tensor, delta: float, rescale: bool, median: int
) -> tuple[torch.Tensor, torch.Tensor]:
    return _empty_results(logits, offsets.shape[0] - 1)


def _fake_backward(grad: torch.Tensor, logits: torch.Tensor, *others: Any) -> torch.Tensor:
    return logits.new_empty(logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    *tensors, ctx.delta, ctx.rescale, _ = inputs
    ctx.save_for_backward(*tensors, output[1])


def _backward(ctx: Any, grad: torch.Tensor, operator: Any) -> tuple[torch.Tensor | None, ...]:
    saved = ctx.saved_tensors
    grad_logits = call(operator, grad, *saved, ctx.delta, ctx.rescale)
    if grad_logits.dim() == 3:
        grad_logits = in_layout_of(saved[0], grad_logits)
    return grad_logits, None, None, None, None, None


def _backward_dense(ctx: Any, grad: torch.Tensor, grad_statistics: Any) -> tuple[torch.Tensor | None, ...]:
    return _backward(ctx, grad, torch.ops.cxrfast._self_guided_sums_backward)


def _backward_ragged(ctx: Any, grad: torch.Tensor, grad_statistics: Any) -> tuple[torch.Tensor | None, ...]:
    return _backward(ctx, grad, torch.ops.cxrfast._self_guided_sums_ragged_backward)


def _fake_pool(
    logits: torch.Tensor, positive: torch.Tensor, *others: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (logits.new_empty(positive.shape), *_empty_results(logits, logits.shape[0]))


def _fake_pool_backward(
    grad_pooled: torch.Tensor, grad_sums: torch.Tensor, logits: torch.Tensor, *others: Any
) -> torch.Tensor:
    return logits.new_empty(logits.shape)


def _setup_pool_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    *tensors, ctx.mode, ctx.delta, ctx.rescale, _ = inputs
    ctx.save_for_backward(*tensors, output[2])


def _backward_pool(
    ctx: Any, grad_pooled: torch.Tensor, grad_sums: torch.Tensor, grad_statistics: Any
) -> tuple[torch.Tensor | None, ...]:
    operator = torch.ops.cxrfast._self_guided_pool_backward
    options = ctx.mode, ctx.delta, ctx.rescale
    saved = ctx.saved_tensors
    grad_logits = call(operator, grad_pooled, grad_sums, *saved, *options)
    return in_layout_of(saved[0], grad_logits), *[None] * 7


# No autocast: the kernels read half-precision logits directly, and all results are float32.
register(
    "self_guided_sums",
    fake=_fake,
    backward=_backward_dense,
    setup_context=_setup_context,
    batching=[Batching((0, 0, Shared(0), None, None, None), (1, 1))],
)
register(
    "self_guided_sums_ragged",
    fake=_fake_ragged,
    backward=_backward_ragged,
    setup_context=_setup_context,
    batching=[Batching((1, None, 1, None, None, None), (2, 2))],
)
register(
    "_self_guided_sums_backward",
    fake=_fake_backward,
    batching=[Batching((1, 0, 0, Shared(0), 1, None, None))],
)
register(
    "_self_guided_sums_ragged_backward",
    fake=_fake_backward,
    batching=[Batching((2, 1, None, 1, 2, None, None), (1,))],
)
register(
    "self_guided_pool",
    fake=_fake_pool,
    backward=_backward_pool,
    setup_context=_setup_pool_context,
    batching=[Batching((0, 0, Shared(0), *[None] * 5), (0, 1, 1))],
)
register(
    "_self_guided_pool_backward",
    fake=_fake_pool_backward,
    batching=[Batching((0, 1, 0, 0, Shared(0), None, 1, *[None] * 3))],
)
