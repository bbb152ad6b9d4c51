"""antialias_(model): blur-pools for a network that exists already, with its pretrained weights (Zhang 2019)."""

from collections.abc import Collection
from typing import Any, TypeVar

import torch
from torch import nn

from cxrfast.nn.blur_pool import BlurPool2d, MaxBlurPool2d

Model = TypeVar("Model", bound=nn.Module)

_CHILD = "antialias"  # name of the blur inside the layer that it belongs to


def antialias_(
    model: Model,
    *,
    filter_size: int = 4,
    padding_mode: str = "reflect",
    skip: Collection[str] = (),
) -> Model:
    """Put a blur before every subsampling of a CNN, in place, without touching a weight.

    What becomes of each layer that subsamples by s in both directions:

    - `Conv2d`, and its subclasses, with a kernel larger than 1×1: stride s/2 if s is even, else 1 (so 1 for the usual
      s=2), and the blur subsamples by the rest, right behind the convolution. Zhang blurs behind the activation
      instead. Batch norm in between makes no difference in evaluation (it is affine per channel, and the blur's taps
      sum to one wherever no zeros are padded), but the ReLU does: here it sees the blurred map. In return the rule
      needs to know nothing about the model, and holds for pre-activation networks, where no activation follows.
    - `Conv2d` with a 1×1 kernel (a residual shortcut): blurred and subsampled first, then convolved with stride 1: the
      same numbers as in the other order, at 1/s² of the work.
    - `MaxPool2d`: :class:`MaxBlurPool2d` with the same kernel and padding; one with what that lacks (dilation, another
      kernel across than down, a subclass with its own padding) gets stride 1 and a blur behind.
    - `AvgPool2d(2)` and `AvgPool2d(3, stride=2, padding=1)`: :class:`BlurPool2d`. Larger ones pool for a classifier.

    Every layer's output keeps its size, for every input size. The `state_dict` keeps its keys, so weights load before
    and after: the blur has no parameters, and a convolution stays the object it was, with the blur as a child that a
    hook calls. Layers with different strides across and down, max-pools that return indices and functional pooling
    inside a `forward` (Inception v3) stay as they are. A convolution without its stride works on a larger map: s² times
    the cost.

    Args:
        model: any torchvision or timm CNN, or a part of one. It is changed.
        filter_size: of the blur, 1 to 7.
        padding_mode: of the blur; "reflect" needs maps larger than `filter_size // 2`; take "replicate" for images so
            small that the last ones are not.
        skip: names of modules (as in `model.named_modules()`) to leave alone with all that they contain, for example
            the first convolution, the one on the largest map.

    Returns:
        `model`. A second call changes nothing. :func:`antialiased_modules` tells what is in it.

    Raises:
        TypeError: model is not a module.
        ValueError: nothing in it subsamples, `skip` names no module, or an option is out of range.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    options: dict[str, Any] = {"filter_size": filter_size, "padding_mode": padding_mode}
    BlurPool2d(**options)  # refuses wrong options before anything is changed
    modules = dict(model.named_modules())
    if unknown := sorted(set(skip) - set(modules)):
        raise ValueError(f"skip: expected names of modules, got {', '.join(unknown)}")
    skipped = {inner for name in skip for inner in modules[name].modules()}

    replaced: dict[nn.Module, nn.Module] = {}  # a layer that stands in two places is replaced by one layer
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
    """Names of the blur-pools in a model, in the order of `model.named_modules()`."""
    return tuple(name for name, module in model.named_modules() if isinstance(module, (BlurPool2d, MaxBlurPool2d)))


def _blurred_pool(layer: nn.Module, options: dict[str, Any]) -> nn.Module | None:
    """The layer that takes this one's place, if there is one."""
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
    """Take the stride out of a layer and give it a blur that subsamples, if it is one that needs it."""
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
    """The one number of a size that is the same down and across; None if it is not."""
    if isinstance(value, int):
        return value
    return value[0] if value[0] == value[1] else None
