"""antialias_(model): insert blur-pools into an existing network and keep its pretrained weights (Zhang 2019)."""

from collections.abc import Collection
from typing import Any, TypeVar

import torch
from torch import nn

from cxrfast.nn.blur_pool import BlurPool2d, MaxBlurPool2d
from cxrfast.ops.blur_pool import PaddingMode

Model = TypeVar("Model", bound=nn.Module)

_CHILD = "antialias"  # name of the blur as a child of its layer


def antialias_(
    model: Model,
    *,
    filter_size: int = 4,
    padding_mode: PaddingMode = "reflect",
    skip: Collection[str] = (),
) -> Model:
    """Anti-alias every subsampling layer of a CNN with a blur, in place. The weights do not change.

    A layer that subsamples by s in both directions is modified as follows:

    - `Conv2d` and subclasses with a kernel larger than 1×1: the stride becomes s/2 if s is even, else 1 (so 1 for the
      usual s=2). A blur directly after the convolution subsamples by the remaining factor. Zhang 2019 blurs after the
      activation instead. A batch norm in between makes no difference in evaluation mode, because it is affine per
      channel and the taps of the blur sum to one where no zeros are padded. The ReLU does make a difference: here its
      input is the blurred map. In return, the rule is independent of the model, and also works for pre-activation
      networks, where no activation follows.
    - `Conv2d` with a 1×1 kernel (a residual shortcut): blur and subsample first, then convolve with stride 1. This
      gives the same result as the opposite order with 1/s² of the computation.
    - `MaxPool2d`: replaced by :class:`MaxBlurPool2d` with the same kernel and padding. If that does not support it
      (dilation, a non-square kernel, a subclass with its own padding), it gets stride 1 and is followed by a blur.
    - `AvgPool2d(2)` and `AvgPool2d(3, stride=2, padding=1)`: replaced by :class:`BlurPool2d`. Larger average pools,
      which usually precede a classifier, are kept.

    The output size of every layer is unchanged, for every input size. So are the keys of the `state_dict`, so weights
    can be loaded before or after the call: the blur has no parameters, and a convolution remains the same object, with
    the blur as a child that is called by a hook. These are not changed: layers whose horizontal and vertical strides
    differ, max-pools that return indices, and functional pooling inside a `forward` method (Inception v3). A
    convolution with stride 1 instead of s costs s² times as much.

    Args:
        model: any torchvision or timm CNN, or a part of one. It is modified.
        filter_size: of the blur, 1 to 7.
        padding_mode: of the blur. "reflect" needs maps larger than `filter_size // 2`; use "replicate" if the images
            are so small that the last maps are not.
        skip: names of modules (as in `model.named_modules()`) that are not modified, including all their children. An
            example is the first convolution, which has the largest map.

    Returns:
        `model`. A second call changes nothing. :func:`antialiased_modules` lists the blurs.

    Raises:
        TypeError: model is not a module.
        ValueError: no layer subsamples, a name in `skip` is not that of a module, or an option is out of range.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        >>> antialiased_modules(antialias_(model))
        ('0.antialias', '2')
        >>> model(torch.zeros(1, 1, 32, 32)).shape
        torch.Size([1, 8, 8, 8])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    options: dict[str, Any] = {"filter_size": filter_size, "padding_mode": padding_mode}
    BlurPool2d(**options)  # raises on invalid options before the model is modified
    modules = dict(model.named_modules())
    if unknown := sorted(set(skip) - set(modules)):
        raise ValueError(f"skip: expected names of modules, got {', '.join(unknown)}")
    skipped = {inner for name in skip for inner in modules[name].modules()}

    replaced: dict[nn.Module, nn.Module] = {}  # a layer used in two places is replaced by one layer
    for parent in modules.values():
        for name, layer in parent._modules.items():
            if layer is not None and layer not in skipped and parent not in skipped:
                if layer not in replaced and (pool := _blurred_pool(layer, options)) is not None:
                    replaced[layer] = pool.train(layer.training)
                parent._modules[name] = replaced.get(layer, layer)
    for layer in modules.values():
        if layer not in skipped and layer not in replaced:
            _blur_in_place(layer, options)

    if not antialiased_modules(model):
        raise ValueError("model: expected a network with a strided Conv2d or pooling layer, found none to anti-alias")
    return model


def antialiased_modules(model: nn.Module) -> tuple[str, ...]:
    """Names of the blur-pools in a model, in the order of `model.named_modules()`.

    Example:
        >>> antialiased_modules(nn.Sequential(nn.Conv2d(1, 8, 3), BlurPool2d()))
        ('1',)
    """
    return tuple(name for name, module in model.named_modules() if isinstance(module, (BlurPool2d, MaxBlurPool2d)))


def _blurred_pool(layer: nn.Module, options: dict[str, Any]) -> nn.Module | None:
    """The replacement of a pooling layer, or None if it is not replaced."""
    if type(layer) is nn.AvgPool2d and layer.divisor_override is None:
        kernel, stride, padding = (_square(value) for value in (layer.kernel_size, layer.stride, layer.padding))
        if (kernel, stride, padding) == (2, 2, 0):
            return BlurPool2d(ceil_mode=layer.ceil_mode, **options)
        if (kernel, stride, padding) == (3, 2, 1) and not layer.ceil_mode:
            return BlurPool2d(**options)
    elif type(layer) is nn.MaxPool2d and _square(layer.dilation) == 1 and not layer.return_indices:
        kernel, stride, padding = (_square(value) for value in (layer.kernel_size, layer.stride, layer.padding))
        if kernel is not None and stride is not None and padding is not None and stride > 1:
            return MaxBlurPool2d(kernel, stride=stride, padding=padding, ceil_mode=layer.ceil_mode, **options)
    return None


def _blur_in_place(layer: nn.Module, options: dict[str, Any]) -> None:
    """Move the stride of a convolution or max-pool to a blur that it gets as a child."""
    if not isinstance(layer, (nn.Conv2d, nn.MaxPool2d)) or hasattr(layer, _CHILD):
        return
    stride = _square(layer.stride)
    if stride is None or stride == 1:
        return
    left = 1
    if isinstance(layer, nn.Conv2d):
        if layer.kernel_size == (1, 1) and layer.padding in ((0, 0), "valid"):
            layer.register_forward_pre_hook(_blur_input)
        else:
            left = stride // 2 if stride % 2 == 0 else 1
            layer.register_forward_hook(_blur_output)
    elif layer.ceil_mode or layer.return_indices:
        return
    else:
        layer.register_forward_hook(_blur_output)
    layer.stride = (left, left)
    layer.add_module(_CHILD, BlurPool2d(stride=stride // left, **options).train(layer.training))


# Module-level functions, so that an anti-aliased model can be copied and pickled.
def _blur_input(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return getattr(layer, _CHILD)(inputs[0]), *inputs[1:]


def _blur_output(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    return getattr(layer, _CHILD)(output)


def _square(value: int | tuple[int, ...]) -> int | None:
    """The size if height and width are equal, else None."""
    if isinstance(value, int):
        return value
    return value[0] if value[0] == value[1] else None
