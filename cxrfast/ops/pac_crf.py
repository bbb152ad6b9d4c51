"""Pixel-adaptive convolution and the mean-field CRF built on it (Su et al. 2019, "Pixel-Adaptive Convolutional Neural
Networks"), without unfolding the image."""

from typing import Any

import torch

from cxrfast.ops._registration import register
from cxrfast.ops._validation import check_floating, check_integer, check_same, check_shape, choose

ACTIVATIONS = {"softmax": 0, "sigmoid": 1}


def pac_conv2d(
    x: torch.Tensor,  # [B, C, H, W]
    guide: torch.Tensor,  # [B, G, H, W]
    weight: torch.Tensor,  # [O, C, k, k] | [1, 1, k, k]
    bias: torch.Tensor | None = None,  # [O]
    *,
    dilation: int = 1,
) -> torch.Tensor:  # [B, O, H, W]
    """Convolution whose weights are scaled by how alike the guide is at both pixels (Su et al. 2019, Eq. 3).

    `out_i = Σ_{j∈Ω(i)} exp(−½‖f_i − f_j‖²) · W[p_i − p_j] · x_j + b`, with f the guide, Ω(i) the k×k window around i,
    and zeros outside the image. Offsets and orientation are `torch.nn.functional.conv2d`'s (cross-correlation), so that
    a constant guide gives exactly a convolution with "same" padding. The window may be larger than the image.

    Args:
        x: float16, bfloat16, float32 or float64, any strides.
        guide: G features per pixel, of x's dtype; G = 0 makes all affinities 1. Their scale decides how far the window
            reaches: independent features of unit variance are |f_i − f_j|² ≈ 2G apart, an affinity of e^(−G).
        weight: k odd. [1, 1, k, k] filters every channel alike, which gives O = C channels.
        bias: one number per output channel.
        dilation: distance between the window's taps, 1 or more.

    Returns:
        Contiguous tensor of x's dtype. float16 and bfloat16 are computed in float32 and rounded once; autocast casts to
        float32, since half precision would lose the distances. Nothing of size C·k²·H·W is allocated: the CPU works
        on as many images at a time as take 96 MB (CUDA: whose affinities take 64 MB); of a single one that takes more,
        affinities are computed again and again in groups of 16 MB (CUDA: rows of the window), or of one tap.
        Deterministic for any number of threads, like the gradients with
        respect to all four tensors. There is no second derivative.

    Raises:
        TypeError: an argument is not a floating-point tensor, their dtypes differ (outside autocast), or dilation is
            not an integer.
        ValueError: shapes do not match, k is even, dilation < 1, or the devices differ.
    """
    _check_image("x", x, guide, weight, dilation)
    channels = x.shape[1]
    if weight.shape[:2] != (1, 1) and weight.shape[1] != channels:
        raise ValueError(f"weight: expected [O, {channels}, k, k] or [1, 1, k, k], got shape {tuple(weight.shape)}")
    if bias is not None:
        outputs = channels if weight.shape[:2] == (1, 1) else weight.shape[0]
        _check_operand("bias", bias, "x", x)
        if bias.shape != (outputs,):
            raise ValueError(f"bias: expected shape ({outputs},), got {tuple(bias.shape)}")
    return torch.ops.cxrfast.pac_conv2d(x, guide, weight, bias, dilation)


def pac_crf(
    unary: torch.Tensor,  # [B, K, H, W]
    guide: torch.Tensor,  # [B, G, H, W]
    weight: torch.Tensor,  # [K, K, k, k] | [1, 1, k, k]
    compatibility: torch.Tensor | None = None,  # [K, K]
    *,
    steps: int = 5,
    unary_weight: float | torch.Tensor = 1.0,
    dilation: int = 1,
    activation: str = "softmax",
) -> torch.Tensor:  # [B, K, H, W]
    """Mean-field inference in a CRF with a pixel-adaptive convolution as pairwise term; all steps in one operator.

    `logit⁰ = unary`, `logit^{t+1} = unary_weight · unary − compatibility · pac_conv2d(q(logit^t), guide, weight)`,
    where q is the softmax over the K labels, or the sigmoid of each.

    Signs, and the paper: Su et al. 2019 (Sec. 5) minimise E(l) = Σ_i ψ_u(l_i) + Σ_ij ψ_p(l_i, l_j) with
    ψ_p = K(f_i, f_j) · W_{l_i l_j}[p_i − p_j], and their mean-field update is
    Q^{t+1}_i(l) ∝ exp(−ψ_u(l) − Σ_{l'} Σ_{j∈Ω(i)} K(f_i, f_j) W_{l l'}[p_i − p_j] Q^t_j(l')).
    Here `unary` is −ψ_u, a score that is high for a likely label, and what is subtracted is an energy: a positive
    weight from label l' to label l is a *penalty* for l where neighbours are l', a negative one an attraction.
    With `activation="softmax"`, `unary_weight=1` and the same weights this is the published update, and
    `softmax(result)` is Q after `steps` steps (Q⁰ = softmax(unary)). `activation="sigmoid"` treats each label as a
    binary field of its own, because a patch of an X-ray may show several diseases; the weight couples the fields.

    The sum over the window contains the pixel itself, as the published code's does: a centre tap of 0 leaves it out.

    Args:
        unary: float16, bfloat16, float32 or float64, any strides.
        guide: features that decide which pixels talk to each other; see :func:`pac_conv2d`.
        weight: [K, K, k, k], every pair of labels with its own spatial filter (its first index is the label that
            receives), or [1, 1, k, k], one filter for all. k odd.
        compatibility: [K, K], multiplied to the message from the left; None is the identity. Potts is a [1, 1, k, k]
            weight with a compatibility of 1 off the diagonal and 0 on it
            (:func:`cxrfast.nn.potts_compatibility`).
        steps: mean-field steps; 0 returns unary.
        unary_weight: a number, or a tensor of one element (which then gets a gradient).
        dilation: distance between the window's taps, 1 or more.
        activation: "softmax" or "sigmoid".

    Returns:
        The logits after the last step, contiguous, of unary's dtype. float16 and bfloat16 are computed in float32
        through all steps and rounded once; autocast casts to float32. The memory is that of :func:`pac_conv2d`; the
        backward computes the steps again and keeps `steps`·K·H·W activations of each image in work. Deterministic for
        any number of threads, like the gradients with respect to all tensors. There is no second derivative.

    Raises:
        TypeError: an argument is not a floating-point tensor, their dtypes differ (outside autocast), steps or dilation
            is not an integer, or unary_weight is neither a number nor a floating-point tensor.
        ValueError: shapes do not match, k is even, steps < 0, dilation < 1, an unknown activation, or the devices
            differ.
    """
    _check_image("unary", unary, guide, weight, dilation)
    labels = unary.shape[1]
    if weight.shape[:2] not in ((1, 1), (labels, labels)):
        expected = f"[{labels}, {labels}, k, k] or [1, 1, k, k]"
        raise ValueError(f"weight: expected {expected}, got shape {tuple(weight.shape)}")
    if compatibility is not None:
        _check_operand("compatibility", compatibility, "unary", unary)
        if compatibility.shape != (labels, labels):
            raise ValueError(f"compatibility: expected shape ({labels}, {labels}), got {tuple(compatibility.shape)}")
    check_integer("steps", steps, 0)
    mode = choose("activation", activation, ACTIVATIONS)
    scale = _as_scalar_tensor("unary_weight", unary_weight, unary)
    return torch.ops.cxrfast.pac_crf(unary, guide, weight, compatibility, scale, steps, dilation, mode)


def _check_image(name: str, x: torch.Tensor, guide: torch.Tensor, weight: torch.Tensor, dilation: int) -> None:
    check_floating(name, x)
    check_shape(name, x, "[B, C, H, W]", 4)
    _check_operand("guide", guide, name, x)
    check_shape("guide", guide, "[B, G, H, W]", 4)
    batch, _, height, width = x.shape
    if (guide.shape[0], *guide.shape[2:]) != (batch, height, width):
        raise ValueError(f"guide: expected shape ({batch}, G, {height}, {width}), got {tuple(guide.shape)}")
    _check_operand("weight", weight, name, x)
    check_shape("weight", weight, "[O, C, k, k]", 4)
    kernel = weight.shape[2]
    if weight.shape[3] != kernel or kernel % 2 == 0:
        raise ValueError(f"weight: expected a square window of odd size, got shape {tuple(weight.shape)}")
    check_integer("dilation", dilation, 1)


def _check_operand(name: str, operand: torch.Tensor, image_name: str, image: torch.Tensor) -> None:
    check_floating(name, operand)
    # Autocast, which meta tensors do not have, makes the dtypes equal, if none is float64.
    if not image.is_meta and torch.is_autocast_enabled(image.device.type):
        operand, image = operand.to(_accumulated(operand)), image.to(_accumulated(image))
    check_same(name, operand, image_name, image)


def _accumulated(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _as_scalar_tensor(name: str, value: float | torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Zero-dimensional, in the dtype that image is accumulated in, so that a half image does not round it."""
    if isinstance(value, torch.Tensor):
        check_floating(name, value)
        if value.numel() != 1:
            raise ValueError(f"{name}: expected one element, got shape {tuple(value.shape)}")
        return value.reshape(()).to(device=image.device, dtype=_accumulated(image))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number or a tensor of one element, got {value!r}")
    # By way of float64, because torch.full refuses what float32 turns into infinity.
    return torch.full((), value, dtype=torch.float64, device=image.device).to(_accumulated(image))


def _conv_fake(
    x: torch.Tensor, guide: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, dilation: int
) -> torch.Tensor:
    outputs = x.shape[1] if weight.shape[0] == 1 and weight.shape[1] == 1 else weight.shape[0]
    return x.new_empty((x.shape[0], outputs, x.shape[2], x.shape[3]))


def _conv_fake_backward(
    grad: torch.Tensor, x: torch.Tensor, guide: torch.Tensor, weight: torch.Tensor, dilation: int
) -> tuple[torch.Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (x, guide, weight))


def _conv_setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, guide, weight, _, ctx.dilation = inputs
    ctx.save_for_backward(x, guide, weight)


def _conv_backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    grads = torch.ops.cxrfast._pac_conv2d_backward(grad, *ctx.saved_tensors, ctx.dilation)
    grad_bias = grad.sum((0, 2, 3)) if ctx.needs_input_grad[3] else None
    return *grads, grad_bias, None


def _crf_fake(
    unary: torch.Tensor,
    guide: torch.Tensor,
    weight: torch.Tensor,
    compatibility: torch.Tensor | None,
    unary_weight: torch.Tensor,
    steps: int,
    dilation: int,
    activation: int,
) -> torch.Tensor:
    return unary.new_empty(unary.shape)


def _crf_fake_backward(
    grad: torch.Tensor,
    unary: torch.Tensor,
    guide: torch.Tensor,
    weight: torch.Tensor,
    compatibility: torch.Tensor | None,
    unary_weight: torch.Tensor,
    steps: int,
    dilation: int,
    activation: int,
) -> tuple[torch.Tensor, ...]:
    matrix = unary.new_empty((0,)) if compatibility is None else compatibility.new_empty(compatibility.shape)
    unary_, guide_, weight_ = (t.new_empty(t.shape) for t in (unary, guide, weight))
    return unary_, guide_, weight_, matrix, unary_weight.new_empty(unary_weight.shape)


def _crf_setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.options = inputs[5:]
    ctx.save_for_backward(*inputs[:5])


def _crf_backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    tensors = ctx.saved_tensors  # unpacked once: under activation checkpointing a second time is an error
    grads = list(torch.ops.cxrfast._pac_crf_backward(grad, *tensors, *ctx.options))
    if tensors[3] is None:
        grads[3] = None
    return *grads, None, None, None


# float32 in an autocast region: squared distances and logits lose their differences in half precision.
register(
    "pac_conv2d", fake=_conv_fake, backward=_conv_backward, setup_context=_conv_setup_context, autocast=torch.float32
)
register("_pac_conv2d_backward", fake=_conv_fake_backward)
register("pac_crf", fake=_crf_fake, backward=_crf_backward, setup_context=_crf_setup_context, autocast=torch.float32)
register("_pac_crf_backward", fake=_crf_fake_backward)
