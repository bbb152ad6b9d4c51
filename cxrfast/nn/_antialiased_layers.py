"""The layers that :func:`cxrfast.nn.antialias_` makes of strided convolutions and max-pools: the layer with a smaller
stride, and a blur that subsamples by the rest. `stride` stays that of the whole, so that other tools (a LoRA twin, a
reparametrisation) read the true factor. Because they are subclasses, tools that look for exactly `nn.Conv2d`, such as
the fusion and quantization passes of torch, do not take them for plain convolutions, which would lose the blur."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from cxrfast.nn.blur_pool import BlurPool2d

CHILD = "antialias"  # name of the blur as a child of its layer


class AntialiasedConv2d(nn.Conv2d):
    """A strided convolution that does not alias (Zhang 2019): `nn.Conv2d` with a smaller stride, then a blur that
    subsamples by the rest of `stride`. A 1×1 convolution is computed after the blur, which gives the same result for
    less.

    The attributes, the parameters and the size of the output are those of an `nn.Conv2d` of the same `stride`, so
    weights are exchangeable. The convolution's own stride is `stride / antialias.stride`. :func:`antialias_` turns the
    convolutions of a network into this class, in place.

    Raises:
        ValueError: in a call, if the attribute `stride` has been set to a value that the blur cannot reach.

    Example:
        >>> from cxrfast.nn import antialias_
        >>> conv = antialias_(nn.Conv2d(1, 8, 3, stride=2, padding=1))
        >>> type(conv).__name__, conv.stride, conv(torch.zeros(1, 1, 32, 32)).shape
        ('AntialiasedConv2d', (2, 2), torch.Size([1, 8, 16, 16]))
    """

    antialias: BlurPool2d

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        first = blurs_first(self)
        x = self.antialias(input) if first else input
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        out = F.conv2d(x, weight, bias, inner_stride(self), padding, self.dilation, self.groups)
        return out if first else self.antialias(out)


class AntialiasedMaxPool2d(nn.MaxPool2d):
    """A max-pool that :class:`MaxBlurPool2d` does not support (dilation, a non-square kernel), with stride 1 and a blur
    that subsamples."""

    antialias: BlurPool2d

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        maxima = F.max_pool2d(input, self.kernel_size, inner_stride(self), self.padding, self.dilation)
        return self.antialias(maxima)


EXACT: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: AntialiasedConv2d, nn.MaxPool2d: AntialiasedMaxPool2d}
"""Classes whose objects become an anti-aliased class. Subclasses have a `forward` of their own and get hooks."""


def blur_layer(layer: nn.Conv2d | nn.MaxPool2d, stride: int, blur: BlurPool2d) -> None:
    """Give the layer, which subsamples by `stride`, a blur that does so by `blur.stride`."""
    layer.add_module(CHILD, blur)
    changed = EXACT.get(type(layer))
    if changed is not None:
        layer.__class__ = changed  # type: ignore[assignment]  # the same object, which others may hold
        return
    layer.stride = (stride // blur.stride,) * 2
    if blurs_first(layer):
        layer.register_forward_pre_hook(_blur_input)
    else:
        layer.register_forward_hook(_blur_output)


def restore_layer(layer: nn.Module) -> None:
    """Undo :func:`blur_layer`."""
    blur = getattr(layer, CHILD)
    original = {changed: exact for exact, changed in EXACT.items()}.get(type(layer))
    if original is not None:
        layer.__class__ = original  # type: ignore[assignment]
    elif isinstance(layer, tuple(EXACT.values())):
        raise ValueError(
            f"model: expected no parametrizations on anti-aliased layers, got {type(layer).__name__}; remove them first"
        )
    else:
        hooks: tuple[dict[int, Any], ...] = (layer._forward_hooks, layer._forward_pre_hooks)
        for registered in hooks:
            for key in [key for key, hook in registered.items() if hook in (_blur_input, _blur_output)]:
                del registered[key]
        layer.stride = tuple(n * blur.stride for n in pair(layer.stride))  # type: ignore[arg-type, assignment]
    delattr(layer, CHILD)


def blurs_first(layer: nn.Module) -> bool:
    """Whether the blur comes before the layer: for a 1×1 convolution, with which it commutes."""
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.padding in ((0, 0), "valid")


def inner_stride(layer: Any) -> tuple[int, int]:
    """The stride of the convolution or max-pool itself."""
    left = [n // layer.antialias.stride for n in pair(layer.stride)]
    if any(n < 1 or n * layer.antialias.stride != whole for n, whole in zip(left, pair(layer.stride), strict=True)):
        raise ValueError(
            f"stride: expected multiples of the blur's stride {layer.antialias.stride}, got {layer.stride}; "
            "undo_antialias_ removes the blur"
        )
    return left[0], left[1]


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


# Module-level functions, so that an anti-aliased model can be copied and pickled.
def _blur_input(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return getattr(layer, CHILD)(inputs[0]), *inputs[1:]


def _blur_output(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    return getattr(layer, CHILD)(output)
