"""antialias_(model): insert blur-pools into an existing network and keep its pretrained weights (Zhang 2019)."""

import warnings
from collections.abc import Collection
from typing import Any, TypeVar

from torch import nn

from cxrfast.nn._antialiased_layers import CHILD, AntialiasedConv2d, blur_layer, blurs_first, pair, restore_layer
from cxrfast.nn.blur_pool import BlurPool2d, MaxBlurPool2d
from cxrfast.ops.blur_pool import PaddingMode

Model = TypeVar("Model", bound=nn.Module)

_SMALLEST_PATCH = 4  # a kernel of 2 with stride 2 is a downsampling layer between stages
_FUSIONS = ("fuse", "reparameterize", "switch_to_deploy")  # methods with which timm's blocks replace convolutions


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
    can be loaded before or after the call: the blur has no parameters. A convolution remains the same object, of the
    class :class:`AntialiasedConv2d`, with the blur as a child; its `stride` still is s. Other tools therefore keep it:
    quantization, `copy.deepcopy`, LoRA twins and the `reparameterize_model` of timm keep the blur, and torch's
    `fuse_modules`, which only knows plain layers, refuses it by an error. A subclass of `Conv2d` with its own `forward`
    gets the blur by a hook, and its `stride` is the part that is left.

    These are not changed: layers whose horizontal and vertical strides differ, max-pools that return indices, and
    functional pooling inside a `forward` method (Inception v3). Patch embeddings (ViT, Swin, ConvNeXt: a kernel of
    4×4 or more that equals the stride, without padding) are left alone too, because patches do not overlap by design
    and stride 1 would cost many times as much; a warning names them, unless `skip` does.

    A convolution with stride 1 instead of s costs s² times as much.

    Args:
        model: any torchvision or timm CNN, or a part of one. It is modified.
        filter_size: of the blur, 1 to 7.
        padding_mode: of the blur. "reflect" needs maps larger than `filter_size // 2`. Smaller ones (the last layers,
            if images are small) are padded by "replicate", and a warning says so.
        skip: names of modules (as in `model.named_modules()`) that are not modified, including all their children. An
            example is the first convolution, which has the largest map.

    Returns:
        `model`. A second call changes nothing. :func:`antialiased_modules` lists the blurs, and
        :func:`undo_antialias_` removes them.

    Raises:
        TypeError: model is not a module.
        ValueError: no layer subsamples, a name in `skip` is not that of a module, or an option is out of range.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        >>> antialiased_modules(antialias_(model))
        ('0.antialias', '2')
        >>> model(torch.zeros(1, 1, 32, 32)).shape
        torch.Size([1, 8, 8, 8])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    options: dict[str, Any] = {"filter_size": filter_size, "padding_mode": padding_mode, "small_maps": "replicate"}
    BlurPool2d(**options)  # raises on invalid options before the model is modified
    modules = dict(model.named_modules())
    if unknown := sorted(set(skip) - set(modules)):
        raise ValueError(f"skip: expected names of modules, got {', '.join(unknown)}")
    skipped = {inner for name in skip for inner in modules[name].modules()}
    patches = [name for name, layer in modules.items() if layer not in skipped and _is_patch_embedding(layer)]
    skipped |= {modules[name] for name in patches}

    replaced: dict[nn.Module, nn.Module] = {}  # a layer used in two places is replaced by one layer
    for parent in modules.values():
        for name, layer in parent._modules.items():
            if layer is not None and layer not in skipped and parent not in skipped:
                if layer not in replaced and (pool := _blurred_pool(layer, options)) is not None:
                    replaced[layer] = pool.train(layer.training)
                    vars(pool)["_instead_of"] = (layer,)  # a tuple, so that it is no child
                parent._modules[name] = replaced.get(layer, layer)
    for layer in modules.values():
        if layer not in skipped and layer not in replaced:
            _blur_in_place(layer, options)

    embeddings = f"patch embeddings are left alone: {', '.join(patches)}" if patches else ""
    if not antialiased_modules(model):
        reason = f" ({embeddings})" if patches else ""
        raise ValueError(
            f"model: expected a network with a strided Conv2d or pooling layer, found none to anti-alias{reason}"
        )
    if patches:
        warnings.warn(f"antialias_: {embeddings}; name them in skip to confirm it", stacklevel=2)
    _follow_fusions(modules.values(), skipped, {"filter_size": filter_size, "padding_mode": padding_mode})
    return model


def undo_antialias_(model: Model) -> Model:
    """Remove, in place, the blurs that :func:`antialias_` inserted, and give back the strides and the pools. Layers
    that are :class:`BlurPool2d` or :class:`MaxBlurPool2d` by design are kept.

    Returns:
        `model`, which computes what it did before `antialias_`, with its present weights.

    Raises:
        TypeError: model is not a module.
        ValueError: an anti-aliased convolution has parametrizations, which have to be removed first.

    Example:
        >>> model = antialias_(nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.MaxPool2d(2)))
        >>> undo_antialias_(model)
        Sequential(
          (0): Conv2d(1, 8, kernel_size=(3, 3), stride=(2, 2))
          (1): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
        )
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    for parent in list(model.modules()):
        for name, layer in parent._modules.items():
            if layer is not None and "_instead_of" in vars(layer):
                parent._modules[name] = vars(layer)["_instead_of"][0].train(layer.training)
        for method in _FUSIONS:
            if isinstance(vars(parent).get(method), _AntialiasedFusion):
                delattr(parent, method)
        if isinstance(parent._modules.get(CHILD), BlurPool2d):
            restore_layer(parent)
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
    if not isinstance(layer, (nn.Conv2d, nn.MaxPool2d)) or hasattr(layer, CHILD):
        return
    stride = _square(layer.stride)
    if stride is None or stride == 1:
        return
    if isinstance(layer, nn.MaxPool2d) and (layer.ceil_mode or layer.return_indices):
        return
    left = stride // 2 if isinstance(layer, nn.Conv2d) and not blurs_first(layer) and stride % 2 == 0 else 1
    blur_layer(layer, stride, BlurPool2d(stride=stride // left, **options).train(layer.training))


def _is_patch_embedding(layer: nn.Module) -> bool:
    """Whether a convolution reads every pixel once, in squares that do not overlap."""
    if not isinstance(layer, nn.Conv2d) or hasattr(layer, CHILD):
        return False
    stride = _square(layer.stride)
    return (
        stride is not None
        and stride >= _SMALLEST_PATCH
        and layer.kernel_size == (stride, stride)
        and layer.padding in ((0, 0), "valid")
        and pair(layer.dilation) == (1, 1)
    )


def _follow_fusions(modules: Collection[nn.Module], skipped: set[nn.Module], options: dict[str, Any]) -> None:
    """Anti-alias again what a block's own method makes of its anti-aliased convolutions: they become one plain
    convolution of the same stride, and the blur of a sum of convolutions is the sum of their blurs."""
    for block in modules:
        if isinstance(block, AntialiasedConv2d) or block in skipped:
            continue
        inside = [layer for layer in block.modules() if isinstance(layer, AntialiasedConv2d)]
        if not inside or any(layer in skipped for layer in block.modules()):
            continue
        for method in _FUSIONS:
            if callable(getattr(type(block), method, None)) and method not in vars(block):
                vars(block)[method] = _AntialiasedFusion(block, method, options)


class _AntialiasedFusion:
    """A method of a block that replaces its convolutions, followed by :func:`antialias_`."""

    def __init__(self, block: nn.Module, method: str, options: dict[str, Any]) -> None:
        self.block, self.method, self.options = block, method, options

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = getattr(type(self.block), self.method)(self.block, *args, **kwargs)
        fused = result if isinstance(result, nn.Module) else self.block
        if any(type(layer) is nn.Conv2d and _square(layer.stride) not in (None, 1) for layer in fused.modules()):
            antialias_(fused, **self.options)
        return result


def _square(value: int | tuple[int, ...]) -> int | None:
    """The size if height and width are equal, else None."""
    height, width = pair(value)
    return height if height == width else None
