"""Anti-aliased downsampling as modules (Zhang 2019, "Making Convolutional Networks Shift-Invariant Again")."""

import warnings
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.fx
import torch.nn.functional as F
from torch import nn

from cxrfast.ops import blur_pool2d, max_blur_pool2d
from cxrfast.ops._validation import check_integer, choose
from cxrfast.ops.blur_pool import PADDING_MODES, PaddingMode, max_map_size

SmallMaps = Literal["error", "replicate"]
SMALL_MAPS: dict[SmallMaps, bool] = {"error": False, "replicate": True}


class BlurPool2d(nn.Module):
    """Blur and subsample (:func:`cxrfast.ops.blur_pool2d`) as a module without parameters or buffers.

    It can be used as timm's `aa_layer`: `timm.create_model("resnet50", aa_layer=BlurPool2d)`.

    Args:
        channels, device, dtype: accepted for compatibility with timm. The blur works with any number of channels,
            device and floating dtype.
        filter_size: 1 to 7. timm's own layer uses 3; Zhang's models use 3, 4 or 5.
        stride: 1 or more.
        padding_mode: "reflect", "replicate" or "zeros".
        ceil_mode: True uses every pixel and gives ⌈H/stride⌉ rows. False ignores the last H mod stride rows (and
            columns) like `nn.AvgPool2d(stride)` and gives ⌊H/stride⌋ rows.
        small_maps: what happens to a map whose height or width is at most `filter_size // 2`, where "reflect" is
            impossible: "error", or "replicate", which pads such a map by replication and warns.

    Raises:
        TypeError, ValueError: an option that :func:`cxrfast.ops.blur_pool2d` rejects; raised by the constructor.

    Example:
        >>> BlurPool2d(filter_size=3)(torch.zeros(1, 8, 15, 15)).shape
        torch.Size([1, 8, 8, 8])
        >>> BlurPool2d(filter_size=3, ceil_mode=False)(torch.zeros(1, 8, 15, 15)).shape
        torch.Size([1, 8, 7, 7])
    """

    def __init__(
        self,
        channels: int | None = None,
        filter_size: int = 4,
        stride: int = 2,
        padding_mode: PaddingMode = "reflect",
        ceil_mode: bool = True,
        *,
        small_maps: SmallMaps = "error",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        _check_options(filter_size, stride, padding_mode, small_maps)
        self.channels = channels
        self.filter_size = filter_size
        self.stride = stride
        self.padding_mode = padding_mode
        self.ceil_mode = ceil_mode
        self.small_maps = small_maps

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, C, H, W] -> [B, C, H', W']
        if not self.ceil_mode:
            x = _crop_to_multiple(x, self.stride)
        blur = blur_pool2d if self.small_maps == "error" else _blur_pool_any_size
        return blur(x, filter_size=self.filter_size, stride=self.stride, padding_mode=self.padding_mode)

    if TYPE_CHECKING:  # a call of nn.Module returns Any
        __call__ = forward

    def extra_repr(self) -> str:
        channels = "" if self.channels is None else f"{self.channels}, "
        ceil = "" if self.ceil_mode else ", ceil_mode=False"
        return (
            f"{channels}filter_size={self.filter_size}, stride={self.stride}, padding_mode={self.padding_mode!r}{ceil}"
        )


class MaxBlurPool2d(nn.Module):
    """Anti-aliased max-pooling (:func:`cxrfast.ops.max_blur_pool2d`) as a module without parameters or buffers.

    The first three arguments are those of `nn.MaxPool2d`, in its order and with its default stride. The output has the
    same size as that of `nn.MaxPool2d(kernel_size, stride, padding, ceil_mode=ceil_mode)`.

    Args:
        kernel_size, stride, padding, ceil_mode: as in `nn.MaxPool2d`; a stride of None is `kernel_size`. With
            `ceil_mode=True`, −∞ is padded at the bottom and right if the last window would be incomplete.
        filter_size, padding_mode, small_maps: of the blur, as in :class:`BlurPool2d`.

    Raises:
        TypeError, ValueError: an option that :func:`cxrfast.ops.max_blur_pool2d` rejects; raised by the constructor.

    Example:
        >>> MaxBlurPool2d(3, 2, 1)(torch.zeros(1, 8, 15, 15)).shape
        torch.Size([1, 8, 8, 8])
    """

    def __init__(
        self,
        kernel_size: int = 2,
        stride: int | None = None,
        padding: int = 0,
        *,
        filter_size: int = 4,
        padding_mode: PaddingMode = "reflect",
        ceil_mode: bool = False,
        small_maps: SmallMaps = "error",
    ) -> None:
        super().__init__()
        check_integer("kernel_size", kernel_size, 1, 32767)
        stride = kernel_size if stride is None else stride
        _check_options(filter_size, stride, padding_mode, small_maps)
        check_integer("padding", padding, 0, kernel_size // 2)
        self.kernel_size = kernel_size
        self.filter_size = filter_size
        self.stride = stride
        self.padding_mode = padding_mode
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.small_maps = small_maps

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, C, H, W] -> [B, C, H', W']
        if self.ceil_mode:
            x = _pad_last_window(x, self.kernel_size, self.stride, self.padding)
        pool = max_blur_pool2d if self.small_maps == "error" else _max_blur_pool_any_size
        return pool(
            x,
            kernel_size=self.kernel_size,
            filter_size=self.filter_size,
            stride=self.stride,
            padding_mode=self.padding_mode,
            padding=self.padding,
        )

    if TYPE_CHECKING:  # a call of nn.Module returns Any
        __call__ = forward

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"filter_size={self.filter_size}, padding_mode={self.padding_mode!r}, ceil_mode={self.ceil_mode}"
        )


def _check_options(filter_size: int, stride: int, padding_mode: str, small_maps: str) -> None:
    check_integer("filter_size", filter_size, 1, 7)
    check_integer("stride", stride, 1)
    choose("padding_mode", padding_mode, PADDING_MODES)
    choose("small_maps", small_maps, SMALL_MAPS)


def _blur_pool_any_size(
    x: torch.Tensor, *, filter_size: int, stride: int, padding_mode: PaddingMode
) -> torch.Tensor:  # [B, C, H', W']
    mode = _fitting_mode(x.shape[-2], x.shape[-1], filter_size, padding_mode)
    return blur_pool2d(x, filter_size=filter_size, stride=stride, padding_mode=mode)


def _max_blur_pool_any_size(
    x: torch.Tensor, *, kernel_size: int, filter_size: int, stride: int, padding_mode: PaddingMode, padding: int
) -> torch.Tensor:  # [B, C, H', W']
    height, width = (max_map_size(size, kernel_size, padding) for size in x.shape[-2:])
    return max_blur_pool2d(
        x,
        kernel_size=kernel_size,
        filter_size=filter_size,
        stride=stride,
        padding_mode=_fitting_mode(height, width, filter_size, padding_mode),
        padding=padding,
    )


def _fitting_mode(height: int, width: int, filter_size: int, padding_mode: PaddingMode) -> PaddingMode:
    """padding_mode, or "replicate" if the map is too small to be reflected."""
    if padding_mode != "reflect" or min(height, width) > filter_size // 2 or height * width == 0:
        return padding_mode
    if not torch.compiler.is_compiling():
        # The text is always the same, so that Python's default filter shows it once.
        warnings.warn(
            "anti-aliasing: padding_mode 'reflect' is impossible for maps as small as those of the last layers; they "
            "are padded by 'replicate' instead; choose padding_mode='replicate' to do so everywhere",
            stacklevel=2,
        )
    return "replicate"


def _crop_to_multiple(x: torch.Tensor, stride: int) -> torch.Tensor:
    height, width = x.shape[-2] // stride * stride, x.shape[-1] // stride * stride
    if height == 0 or width == 0:
        raise ValueError(f"x: ceil_mode=False expected height and width of at least {stride}, got {tuple(x.shape)}")
    if torch.compiler.is_compiling():  # for any size
        return x[..., :height, :width]
    if x.shape[-2:] == (height, width):
        return x
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))  # keeps the memory format, in the gradient too


def _pad_last_window(x: torch.Tensor, kernel_size: int, stride: int, padding: int) -> torch.Tensor:
    """Pad -inf at the bottom and right, so that the pooled map has the size of `nn.MaxPool2d(ceil_mode=True)`."""
    missing = []
    for size in (x.shape[-1], x.shape[-2]):
        count = -(-(size + 2 * padding - kernel_size) // stride) + 1
        if (count - 1) * stride >= size + padding:  # a window that would start beyond the image is dropped
            count -= 1
        missing.append(max(0, (count - 1) * stride + kernel_size - size - 2 * padding))
    return F.pad(x, (0, missing[0], 0, missing[1]), value=float("-inf")) if any(missing) else x


# Leaves in a torch.fx graph (torchvision's create_feature_extractor), because they need sizes, which a proxy lacks.
for _leaf in (
    "blur_pool2d",
    "max_blur_pool2d",
    "_blur_pool_any_size",
    "_max_blur_pool_any_size",
    "_crop_to_multiple",
    "_pad_last_window",
):
    torch.fx.wrap(_leaf)
