"""Modules over pac_conv2d and pac_crf (Su et al. 2019), initialised so that they train.

Of the published module's options these are here: several kernels with their own guides and dilations; full K×K×k×k, K×K
and Potts compatibility; loose weights for every step; log-probabilities out. Not here: blurred (downsampled) kernels,
transposed and pooling forms.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from cxrfast.ops import pac_conv2d, pac_crf
from cxrfast.ops._validation import check_integer, check_shape

COMPATIBILITIES = ("full", "matrix", "potts")
ACTIVATIONS = ("softmax", "sigmoid")
OUTPUTS = ("logits", "log_probability")


class PacConv2d(nn.Module):
    """Pixel-adaptive convolution with "same" padding: `pac_conv2d(x, guide, weight, bias, dilation=dilation)`.

    Args:
        kernel_size: odd.
        shared_filter: one k×k filter for every channel (then in_channels = out_channels), instead of
            [out_channels, in_channels, k, k].
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
        """As `nn.Conv2d`: uniform in ±1/sqrt(inputs of one output)."""
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

    def extra_repr(self) -> str:
        shape = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        return f"{shape}, dilation={self.dilation}, bias={self.bias is not None}"


class PacCRF(nn.Module):
    """Mean-field CRF over label logits, `pac_crf` with learnt pairwise terms:

    `logit⁰ = u`, `logit^{t+1} = unary_weight · u − Σ_m C_m · pac_conv2d(q(logit^t), s_m/√G · guide_m, W_m)`, with
    `u = unary + bias`.

    Where a step starts. The spatial filter is a Gaussian in the distance to the pixel (σ = k/6 taps) without the pixel
    itself, normalised so that its taps sum to `strength`; a step therefore moves no logit by more than `strength` at
    the start, whatever the number of classes and the window. Neighbours with similar guides pull towards their labels:
    with softmax by the Potts model (a penalty for every other label), with sigmoid each class by its own probability
    only, since a patch may show several diseases: where neighbours have p_k ≈ 0 nothing moves. A general shift of a
    class, which the sigmoid does not cancel, is what `bias` can take back.

    Where affinities start. exp(−½‖Δf‖²) of G independent features of unit variance is about e^(−G): no neighbour is
    heard, and neither filter nor guide receives a gradient. The guide is therefore divided by √G and multiplied by a
    learnt scale s, which starts at `guide_scale`; at 1, unrelated pixels have an affinity near e^(−1).

    Args:
        num_classes: K.
        kernel_size: odd, 3 or more; a sequence for several kernels, whose messages are added.
        steps: mean-field steps.
        dilation: one number, or one for each kernel.
        activation: "softmax" (one label per pixel) or "sigmoid" (K binary fields).
        compatibility: "full" learns [K, K, k, k]; "matrix" learns one k×k filter and a K×K matrix; "potts" learns the
            filter only, with the matrix that the activation asks for (see :func:`potts_compatibility`; minus identity
            for sigmoid).
        strength: as above, divided among the kernels.
        unary_weight: its weight in every step; learnt if `learn_unary_weight`.
        guide_scale: where s starts; learnt unless `learn_guide_scale` is False.
        bias: learn one number per class, added to the unary. It starts at 0.
        per_step_weights: every step has filters and matrices of its own (the published "loose" form).
        output: "logits", or "log_probability" (log-softmax or log-sigmoid of them).

    One kernel without per-step weights runs as a single operator; other forms compose `pac_conv2d` step by step.
    """

    def __init__(
        self,
        num_classes: int,
        kernel_size: int | Sequence[int] = 19,
        *,
        steps: int = 5,
        dilation: int | Sequence[int] = 1,
        activation: str = "softmax",
        compatibility: str = "full",
        strength: float = 2.0,
        unary_weight: float = 1.0,
        learn_unary_weight: bool = False,
        guide_scale: float = 1.0,
        learn_guide_scale: bool = True,
        bias: bool = True,
        per_step_weights: bool = False,
        output: str = "logits",
    ) -> None:
        super().__init__()
        sizes = list(kernel_size) if isinstance(kernel_size, Sequence) else [kernel_size]
        dilations = list(dilation) if isinstance(dilation, Sequence) else [dilation] * len(sizes)
        if not sizes or len(dilations) != len(sizes):
            raise ValueError(f"dilation: expected one number per kernel ({len(sizes)}), got {dilation!r}")
        _check_choice("activation", activation, ACTIVATIONS)
        _check_choice("compatibility", compatibility, COMPATIBILITIES)
        _check_choice("output", output, OUTPUTS)
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

    def _scaled(self, guide: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
        kernels = len(self.guide_scale)
        guides = [guide] * kernels if isinstance(guide, torch.Tensor) else list(guide)
        if len(guides) != kernels:
            raise ValueError(f"guide: expected one tensor, or one for each of {kernels} kernels, got {len(guides)}")
        scales = self.guide_scale.view(kernels, 1, 1, 1, 1).unbind()  # 4-d, so that a half guide is scaled in float32
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
    """The pairwise term of one kernel: a spatial filter and which labels it penalises together."""

    def __init__(
        self, labels: int, kernel_size: int, dilation: int, activation: str, compatibility: str, strength: float
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
    """The Potts model: a penalty of 1 for two different labels and of 0 for one and the same. It is meant for
    `activation="softmax"`, where it acts as minus the identity does (they differ by what all labels get alike)."""
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
    if x.shape[1] != channels:  # a bias or a shared filter would fit any number of them
        raise ValueError(f"{name}: expected {channels} channels, got shape {tuple(x.shape)}")


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
