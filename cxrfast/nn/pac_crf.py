"""Modules for pac_conv2d and pac_crf (Su et al. 2019), with an initialisation from which they can be trained.

Supported options of the published module: several kernels with their own guides and dilations; full (K×K×k×k), K×K and
Potts compatibility; separate weights per step; log-probabilities as output. Not supported: blurred (downsampled)
kernels, and the transposed and pooling variants.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from cxrfast.ops import pac_conv2d, pac_crf
from cxrfast.ops._validation import check_integer, check_shape
from cxrfast.ops.pac_crf import Activation

Compatibility = Literal["full", "matrix", "potts"]
Output = Literal["logits", "log_probability"]


class PacConv2d(nn.Module):
    """Pixel-adaptive convolution with "same" padding: `pac_conv2d(x, guide, weight, bias, dilation=dilation)`.

    Args:
        in_channels, out_channels: channels of x and of the result.
        kernel_size: odd.
        dilation: distance between the taps of the window.
        bias: learn one value per output channel.
        shared_filter: one k×k filter for every channel (then in_channels = out_channels), instead of
            [out_channels, in_channels, k, k].

    Raises:
        TypeError, ValueError: options out of range; in a call, shapes or dtypes that do not match.

    Example:
        >>> conv = PacConv2d(8, 16, kernel_size=5)
        >>> conv(torch.randn(2, 8, 32, 32), 0.5 * torch.randn(2, 4, 32, 32)).shape
        torch.Size([2, 16, 32, 32])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        dilation: int = 1,
        bias: bool = True,
        shared_filter: bool = False,
    ) -> None:
        super().__init__()
        _check_kernel_size(kernel_size, 1)
        if shared_filter and in_channels != out_channels:
            raise ValueError(
                f"shared_filter: expected equal in_channels and out_channels, got {in_channels} and {out_channels}"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.dilation = kernel_size, dilation
        pairs = (1, 1) if shared_filter else (out_channels, in_channels)
        self.weight = nn.Parameter(torch.empty(*pairs, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As in `nn.Conv2d`: uniform in ±1/sqrt(number of inputs per output)."""
        bound = 1 / math.sqrt(max(1, self.weight[0].numel()))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(
        self,
        x: torch.Tensor,  # [B, C, H, W]
        guide: torch.Tensor,  # [B, G, H, W]
    ) -> torch.Tensor:  # [B, O, H, W]
        _check_channels("x", x, self.in_channels)
        return pac_conv2d(x, guide, self.weight, self.bias, dilation=self.dilation)

    if TYPE_CHECKING:  # a call of nn.Module returns Any
        __call__ = forward

    def extra_repr(self) -> str:
        shape = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        return f"{shape}, dilation={self.dilation}, bias={self.bias is not None}"


class PacCRF(nn.Module):
    """Mean-field CRF over label logits: `pac_crf` with learnable pairwise terms.

    `logit⁰ = u`, `logit^{t+1} = unary_weight · u − Σ_m C_m · pac_conv2d(q(logit^t), s_m/√G · guide_m, W_m)`, with
    `u = unary + bias`.

    Initial pairwise terms. The spatial filter is a Gaussian in the distance to the centre pixel (σ = k/6 taps), with a
    centre tap of 0. It is normalised so that its taps sum to `strength`. A step therefore initially changes a logit by
    at most `strength`, independently of the number of classes and the window. Neighbours with similar guide features
    attract each other's labels. With softmax this is the Potts model (a penalty for every other label). With sigmoid
    each class is attracted only by its own probability, because a patch may show several diseases; neighbours with p_k
    ≈ 0 have no effect. The sigmoid does not cancel a constant shift of a class's logits, but the learnable `bias` can.

    Initial affinities. For G independent features of unit variance exp(−½‖Δf‖²) is about e^(−G). Messages would then
    vanish, and neither the filter nor the guide would receive a gradient. The guide is therefore divided by √G and
    multiplied by a learnable scale s with initial value `guide_scale`. At 1, unrelated pixels have an affinity near
    e^(−1).

    Args:
        num_classes: K.
        kernel_size: odd, 3 or more. A sequence gives several kernels, whose messages are added.
        steps: mean-field steps.
        dilation: one number, or one per kernel.
        activation: "softmax" (one label per pixel) or "sigmoid" (K binary fields).
        compatibility: "full" learns [K, K, k, k]. "matrix" learns one k×k filter and a K×K matrix. "potts" learns only
            the filter; its matrix is fixed (:func:`potts_compatibility` for softmax, minus the identity for sigmoid).
        strength: see above; divided among the kernels.
        unary_weight: weight of the unary in every step; learnable if `learn_unary_weight`.
        guide_scale: initial value of s; learnable unless `learn_guide_scale` is False.
        bias: learn one value per class that is added to the unary. It is initially 0.
        per_step_weights: separate filters and matrices per step (the published "loose" variant).
        output: "logits", or "log_probability" (their log-softmax or log-sigmoid).

    With one kernel and without per-step weights, all steps run in one operator. Otherwise every step calls
    `pac_conv2d`.

    Raises:
        TypeError, ValueError: options out of range; in a call, shapes or dtypes that do not match.

    Example:
        >>> crf = PacCRF(14, kernel_size=5, activation="sigmoid")
        >>> crf(torch.randn(2, 14, 20, 20), torch.randn(2, 8, 20, 20)).shape
        torch.Size([2, 14, 20, 20])
    """

    def __init__(
        self,
        num_classes: int,
        kernel_size: int | Sequence[int] = 19,
        *,
        steps: int = 5,
        dilation: int | Sequence[int] = 1,
        activation: Activation = "softmax",
        compatibility: Compatibility = "full",
        strength: float = 2.0,
        unary_weight: float = 1.0,
        learn_unary_weight: bool = False,
        guide_scale: float = 1.0,
        learn_guide_scale: bool = True,
        bias: bool = True,
        per_step_weights: bool = False,
        output: Output = "logits",
    ) -> None:
        super().__init__()
        sizes = list(kernel_size) if isinstance(kernel_size, Sequence) else [kernel_size]
        dilations = list(dilation) if isinstance(dilation, Sequence) else [dilation] * len(sizes)
        if not sizes or len(dilations) != len(sizes):
            raise ValueError(f"dilation: expected one number per kernel ({len(sizes)}), got {dilation!r}")
        _check_choice("activation", activation, get_args(Activation))
        _check_choice("compatibility", compatibility, get_args(Compatibility))
        _check_choice("output", output, get_args(Output))
        check_integer("num_classes", num_classes, 1)
        check_integer("steps", steps, 0)
        self.num_classes, self.steps, self.activation, self.output = num_classes, steps, activation, output
        sets = max(1, steps) if per_step_weights else 1
        self.pairwise = nn.ModuleList(
            nn.ModuleList(
                _Pairwise(num_classes, size, spacing, activation, compatibility, strength / len(sizes))
                for size, spacing in zip(sizes, dilations, strict=True)
            )
            for _ in range(sets)
        )
        self.guide_scale = nn.Parameter(torch.full((len(sizes),), float(guide_scale)), requires_grad=learn_guide_scale)
        self.unary_weight = nn.Parameter(torch.tensor(float(unary_weight)), requires_grad=learn_unary_weight)
        self.bias = nn.Parameter(torch.zeros(num_classes)) if bias else None

    def forward(
        self,
        unary: torch.Tensor,  # [B, K, H, W], logits
        guide: torch.Tensor | Sequence[torch.Tensor],  # [B, G, H, W], or one for each kernel
    ) -> torch.Tensor:  # [B, K, H, W]
        _check_channels("unary", unary, self.num_classes)
        guides = self._scaled(guide)
        if self.bias is not None:
            unary = unary + self.bias[:, None, None]
        if len(self.pairwise) == 1 and len(guides) == 1:
            logits = self._one_operator(unary, guides[0], self._kernels(0)[0])
        else:
            logits = self._step_by_step(unary, guides)
        if self.output == "logits":
            return logits
        return F.log_softmax(logits, 1) if self.activation == "softmax" else F.logsigmoid(logits)

    if TYPE_CHECKING:  # a call of nn.Module returns Any
        __call__ = forward

    def _scaled(self, guide: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
        kernels = len(self.guide_scale)
        guides = [guide] * kernels if isinstance(guide, torch.Tensor) else list(guide)
        if len(guides) != kernels:
            raise ValueError(f"guide: expected one tensor, or one for each of {kernels} kernels, got {len(guides)}")
        scales = self.guide_scale.view(
            kernels, 1, 1, 1, 1
        ).unbind()  # 4-d, so that a float16 guide is scaled in float32
        return [f * (scale / math.sqrt(max(1, f.shape[1]))) for f, scale in zip(guides, scales, strict=True)]

    def _kernels(self, step: int) -> "list[_Pairwise]":
        kernels = self.pairwise[step % len(self.pairwise)]
        return [module for module in kernels.children() if isinstance(module, _Pairwise)]

    def _one_operator(self, unary: torch.Tensor, guide: torch.Tensor, pairwise: "_Pairwise") -> torch.Tensor:
        return pac_crf(
            unary,
            guide,
            pairwise.weight,
            pairwise.compatibility,
            steps=self.steps,
            unary_weight=self.unary_weight,
            dilation=pairwise.dilation,
            activation=self.activation,
        )

    def _step_by_step(self, unary: torch.Tensor, guides: list[torch.Tensor]) -> torch.Tensor:
        logits = unary
        for step in range(self.steps):
            q = logits.softmax(1) if self.activation == "softmax" else logits.sigmoid()
            logits = self.unary_weight * unary
            for pairwise, guide in zip(self._kernels(step), guides, strict=True):
                logits = logits - pairwise(q, guide)
        return logits

    def extra_repr(self) -> str:
        return f"{self.num_classes}, steps={self.steps}, activation={self.activation!r}, output={self.output!r}"


class _Pairwise(nn.Module):
    """The pairwise term of one kernel: a spatial filter and a label compatibility."""

    def __init__(
        self,
        labels: int,
        kernel_size: int,
        dilation: int,
        activation: Activation,
        compatibility: Compatibility,
        strength: float,
    ) -> None:
        super().__init__()
        _check_kernel_size(kernel_size, 3)
        check_integer("dilation", dilation, 1)
        self.dilation = dilation
        spatial = strength * _gaussian_without_centre(kernel_size)
        labelwise = potts_compatibility(labels) if activation == "softmax" else -torch.eye(labels)
        self.compatibility: torch.Tensor | None
        if compatibility == "full":
            self.weight = nn.Parameter(labelwise[:, :, None, None] * spatial)
            self.register_parameter("compatibility", None)
            return
        self.weight = nn.Parameter(spatial[None, None])
        if compatibility == "matrix":
            self.compatibility = nn.Parameter(labelwise)
        else:
            self.register_buffer("compatibility", labelwise)

    def forward(self, q: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
        message = pac_conv2d(q, guide, self.weight, dilation=self.dilation)
        if self.compatibility is None:
            return message
        return torch.einsum("mk,bkhw->bmhw", self.compatibility, message)


def potts_compatibility(labels: int, *, dtype: torch.dtype = torch.float32) -> torch.Tensor:  # [K, K]
    """The Potts model: a penalty of 1 for two different labels, and of 0 for equal labels.

    It is meant for `activation="softmax"`, where it is equivalent to minus the identity: the two differ by a term that
    is the same for all labels.

    Example:
        >>> potts_compatibility(2).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    return 1 - torch.eye(labels, dtype=dtype)


def _gaussian_without_centre(kernel_size: int) -> torch.Tensor:  # [k, k], sums to 1
    distance = torch.arange(kernel_size) - kernel_size // 2
    line = torch.exp(-0.5 * (distance / (kernel_size / 6)).square())
    taps = torch.outer(line, line)
    taps[kernel_size // 2, kernel_size // 2] = 0
    return taps / taps.sum()


def _check_kernel_size(kernel_size: int, low: int) -> None:
    check_integer("kernel_size", kernel_size, 0)
    if kernel_size < low or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size: expected an odd number of at least {low}, got {kernel_size}")


def _check_channels(name: str, x: torch.Tensor, channels: int) -> None:
    check_shape(name, x, f"[B, {channels}, H, W]", 4)
    if x.shape[1] != channels:  # a bias or a shared filter would broadcast silently
        raise ValueError(f"{name}: expected {channels} channels, got shape {tuple(x.shape)}")


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
