"""Pixel-adaptive convolution and the mean-field CRF built on it (Su et al. 2019, "Pixel-Adaptive Convolutional Neural
Networks"), without unfolding the image."""

from typing import Any, Literal

import torch

from cxrfast.ops._layout import in_format_of
from cxrfast.ops._registration import call, register
from cxrfast.ops._transforms import Batching
from cxrfast.ops._validation import check_floating, check_integer, check_same, check_shape, choose, filled, is_number

Activation = Literal["softmax", "sigmoid"]
ACTIVATIONS: dict[Activation, int] = {"softmax": 0, "sigmoid": 1}


def pac_conv2d(
    x: torch.Tensor,  # [B, C, H, W]
    guide: torch.Tensor,  # [B, G, H, W]
    weight: torch.Tensor,  # [O, C, k, k] | [1, 1, k, k]
    bias: torch.Tensor | None = None,  # [O]
    *,
    dilation: int = 1,
) -> torch.Tensor:  # [B, O, H, W]
    """Convolution whose weights are scaled by the similarity of the guide features at the two pixels (Su et al. 2019,
    Eq. 3).

    `out_i = Σ_{j∈Ω(i)} exp(−½‖f_i − f_j‖²) · W[p_i − p_j] · x_j + b`, where f is the guide, Ω(i) is the k×k window
    around i, and x is zero outside the image. The exponential is called the affinity of i and j. As in
    `torch.nn.functional.conv2d`, the operation is a cross-correlation: with a constant guide it equals a convolution
    with "same" padding. The window may be larger than the image.

    Args:
        x: float16, bfloat16, float32 or float64, any strides.
        guide: G features per pixel, of x's dtype. With G = 0 all affinities are 1. The scale of the features matters:
            for independent features of unit variance ‖f_i − f_j‖² ≈ 2G, so the affinity is about e^(−G).
        weight: k odd. [1, 1, k, k] applies the same filter to every channel, which gives O = C channels.
        bias: one value per output channel.
        dilation: distance between the taps of the window, 1 or more.

    Returns:
        Tensor of x's dtype and memory format, contiguous or channels_last. float16 and bfloat16 are computed in float32
        and rounded once; autocast casts to float32, because half precision is too coarse for the distances. Forward and
        backward are deterministic for any number of threads. All four tensors have gradients. There is no double
        backward, and forward mode only for x, weight and bias.

        Memory: no buffer of size C·k²·H·W is allocated. Images are processed in groups whose buffers take at most 96 MB
        on the CPU, or whose affinities take at most 64 MB on CUDA. For a single larger image, affinities are not
        stored but recomputed in groups of taps of at most 16 MB (on CUDA: rows of the window), or of one tap.

    Raises:
        TypeError: an argument is not a floating-point tensor, their dtypes differ (outside autocast), or dilation is
            not an integer.
        ValueError: shapes do not match, k is even, dilation < 1, or the devices differ.

    Example:
        >>> x, guide = torch.randn(2, 8, 32, 32), 0.5 * torch.randn(2, 4, 32, 32)
        >>> pac_conv2d(x, guide, torch.randn(16, 8, 5, 5)).shape
        torch.Size([2, 16, 32, 32])
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
    return in_format_of(x, call(torch.ops.cxrfast.pac_conv2d, x, guide, weight, bias, dilation))


def pac_crf(
    unary: torch.Tensor,  # [B, K, H, W]
    guide: torch.Tensor,  # [B, G, H, W]
    weight: torch.Tensor,  # [K, K, k, k] | [1, 1, k, k]
    compatibility: torch.Tensor | None = None,  # [K, K]
    *,
    steps: int = 5,
    unary_weight: float | torch.Tensor = 1.0,
    dilation: int = 1,
    activation: Activation = "softmax",
) -> torch.Tensor:  # [B, K, H, W]
    """Mean-field inference in a CRF whose pairwise term is a pixel-adaptive convolution. One operator runs all steps.

    `logit⁰ = unary`, `logit^{t+1} = unary_weight · unary − compatibility · pac_conv2d(q(logit^t), guide, weight)`,
    where q is the softmax over the K labels, or the sigmoid of each label.

    Sign convention. Su et al. 2019 (Sec. 5) minimise E(l) = Σ_i ψ_u(l_i) + Σ_ij ψ_p(l_i, l_j) with
    ψ_p = K(f_i, f_j) · W_{l_i l_j}[p_i − p_j]. Their mean-field update is
    Q^{t+1}_i(l) ∝ exp(−ψ_u(l) − Σ_{l'} Σ_{j∈Ω(i)} K(f_i, f_j) W_{l l'}[p_i − p_j] Q^t_j(l')).
    Here `unary` is −ψ_u, a score that is high for a likely label. The pairwise term is an energy and is subtracted: a
    positive weight from label l' to label l is a *penalty* for l where neighbours have label l', a negative weight is
    an attraction. With `activation="softmax"`, `unary_weight=1` and the same weights this is the published update, and
    `softmax(result)` is Q after `steps` steps (Q⁰ = softmax(unary)). With `activation="sigmoid"` each label is a binary
    field of its own, because a patch of an X-ray may show several diseases; the weight couples the fields.

    The sum over the window includes the centre pixel, as in the published code. Set the centre tap to 0 to exclude it.

    Args:
        unary: float16, bfloat16, float32 or float64, any strides.
        guide: features whose similarity weights the pairwise term; see :func:`pac_conv2d`.
        weight: [K, K, k, k], one spatial filter per pair of labels (the first index is the label that receives the
            message), or [1, 1, k, k], one filter for all pairs. k odd.
        compatibility: [K, K], multiplied with the message from the left. None is the identity. A Potts model is a
            [1, 1, k, k] weight with a compatibility of 1 off the diagonal and 0 on it
            (:func:`cxrfast.nn.potts_compatibility`).
        steps: mean-field steps; 0 returns unary.
        unary_weight: a number, or a tensor of one element, which has a gradient.
        dilation: distance between the taps of the window, 1 or more.
        activation: "softmax" or "sigmoid".

    Returns:
        The logits after the last step, of unary's dtype and memory format. float16 and bfloat16 are computed in float32
        through all steps and rounded once; autocast casts to float32. The memory is that of :func:`pac_conv2d`. The
        backward pass recomputes the steps and stores `steps`·K·H·W activations per image of the current group. Forward
        and backward are deterministic for any number of threads. All tensors have gradients. There is no double
        backward and no forward mode.

    Raises:
        TypeError: an argument is not a floating-point tensor, their dtypes differ (outside autocast), steps or dilation
            is not an integer, or unary_weight is neither a number nor a floating-point tensor.
        ValueError: shapes do not match, k is even, steps < 0, dilation < 1, an unknown activation, or the devices
            differ.

    Example:
        >>> unary, guide = torch.randn(2, 14, 20, 20), 0.1 * torch.randn(2, 8, 20, 20)
        >>> weight = -0.02 * torch.ones(1, 1, 5, 5)  # negative: neighbours with the same label attract
        >>> pac_crf(unary, guide, weight, steps=5, activation="sigmoid").shape
        torch.Size([2, 14, 20, 20])
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
    options = steps, dilation, mode
    return in_format_of(unary, call(torch.ops.cxrfast.pac_crf, unary, guide, weight, compatibility, scale, *options))


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
    # Autocast makes the dtypes equal unless one is float64. Meta tensors have no autocast.
    if not image.is_meta and torch.is_autocast_enabled(image.device.type):
        operand, image = operand.to(_accumulated(operand)), image.to(_accumulated(image))
    check_same(name, operand, image_name, image)


def _accumulated(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _as_scalar_tensor(name: str, value: float | torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """A zero-dimensional tensor in image's accumulation dtype, so that a half-precision image does not round it."""
    if isinstance(value, torch.Tensor):
        check_floating(name, value)
        if value.numel() != 1:
            raise ValueError(f"{name}: expected one element, got shape {tuple(value.shape)}")
        return value.reshape(()).to(device=image.device, dtype=_accumulated(image))
    if not is_number(value):
        raise TypeError(f"{name}: expected a number or a tensor of one element, got {value!r}")
    return filled((), value, _accumulated(image), image.device)


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
    x, guide, weight = ctx.saved_tensors
    grad_x, grad_guide, grad_weight = call(torch.ops.cxrfast._pac_conv2d_backward, grad, x, guide, weight, ctx.dilation)
    grad_bias = grad.sum((0, 2, 3)) if ctx.needs_input_grad[3] else None
    return in_format_of(x, grad_x), in_format_of(guide, grad_guide), grad_weight, grad_bias, None


def _conv_jvp(inputs: list[Any], tangents: tuple[Any, ...]) -> torch.Tensor:
    x, guide, weight, _, dilation = inputs
    if tangents[1] is not None:
        raise RuntimeError("guide: pac_conv2d has no forward-mode derivative with respect to it")
    terms = []
    if tangents[0] is not None:
        terms.append(call(torch.ops.cxrfast.pac_conv2d, tangents[0], guide, weight, None, dilation))
    if tangents[2] is not None:
        terms.append(call(torch.ops.cxrfast.pac_conv2d, x, guide, tangents[2], None, dilation))
    if tangents[3] is not None:
        outputs = x.shape[1] if weight.shape[:2] == (1, 1) else weight.shape[0]
        terms.append(tangents[3][:, None, None].expand(x.shape[0], outputs, *x.shape[2:]))
    return torch.stack(terms).sum(0)


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
    tensors = ctx.saved_tensors  # unpack once: activation checkpointing raises an error the second time
    grads = list(call(torch.ops.cxrfast._pac_crf_backward, grad, *tensors, *ctx.options))
    grads[:2] = in_format_of(tensors[0], grads[0]), in_format_of(tensors[1], grads[1])
    if tensors[3] is None:
        grads[3] = None
    return *grads, None, None, None


# float32 in an autocast region: half precision is too coarse for squared distances and logits.
register(
    "pac_conv2d",
    fake=_conv_fake,
    backward=_conv_backward,
    setup_context=_conv_setup_context,
    autocast=torch.float32,
    jvp=_conv_jvp,
    batching=[Batching((0, 0, None, None, None))],
)
register("_pac_conv2d_backward", fake=_conv_fake_backward)  # every element has a gradient of the weight of its own
register(
    "pac_crf",
    fake=_crf_fake,
    backward=_crf_backward,
    setup_context=_crf_setup_context,
    autocast=torch.float32,
    batching=[Batching((0, 0, *[None] * 6))],
)
register("_pac_crf_backward", fake=_crf_fake_backward)
