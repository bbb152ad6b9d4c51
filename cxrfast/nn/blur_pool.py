"""Anti-aliased downsampling as modules (Zhang 2019, "Making Convolutional Networks Shift-Invariant Again")."""

from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import nn

from cxrfast.ops import blur_pool2d, max_blur_pool2d
from cxrfast.ops._validation import check_integer, choose
from cxrfast.ops.blur_pool import PADDING_MODES, PaddingMode


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
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        _check_options(filter_size, stride, padding_mode)
        self.channels = channels
        self.filter_size = filter_size
        self.stride = stride
        self.padding_mode = padding_mode
        self.ceil_mode = ceil_mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, C, H, W] -> [B, C, H', W']
        if not self.ceil_mode:
            x = _crop_to_multiple(x, self.stride)
        return blur_pool2d(x, filter_size=self.filter_size, stride=self.stride, padding_mode=self.padding_mode)

    def extra_repr(self) -> str:
        channels = "" if self.channels is None else f"{self.channels}, "
        ceil = "" if self.ceil_mode else ", ceil_mode=False"
        return (
            f"{channels}filter_size={self.filter_size}, stride={self.stride}, padding_mode={self.padding_mode!r}{ceil}"
        )


class MaxBlurPool2d(nn.Module):
    """Anti-aliased max-pooling (:func:`cxrfast.ops.max_blur_pool2d`) as a module without parameters or buffers.

    The output has the same size as that of `nn.MaxPool2d(kernel_size, stride, padding, ceil_mode=ceil_mode)`.

    Args:
        kernel_size, stride, padding, ceil_mode: as in `nn.MaxPool2d`. With `ceil_mode=True`, −∞ is padded at the bottom
            and right if the last window would be incomplete.
        filter_size, padding_mode: of the blur, as in :class:`BlurPool2d`.

    Raises:
        TypeError, ValueError: an option that :func:`cxrfast.ops.max_blur_pool2d` rejects; raised by the constructor.

    Example:
        >>> MaxBlurPool2d(3, stride=2, padding=1)(torch.zeros(1, 8, 15, 15)).shape
        torch.Size([1, 8, 8, 8])
    """

    def __init__(
        self,
        kernel_size: int = 2,
        filter_size: int = 4,
        stride: int = 2,
        padding_mode: PaddingMode = "reflect",
        padding: int = 0,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        _check_options(filter_size, stride, padding_mode)
        check_integer("kernel_size", kernel_size, 1, 32767)
        check_integer("padding", padding, 0, kernel_size // 2)
        self.kernel_size = kernel_size
        self.filter_size = filter_size
        self.stride = stride
        self.padding_mode = padding_mode
        self.padding = padding
        self.ceil_mode = ceil_mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, C, H, W] -> [B, C, H', W']
        if self.ceil_mode:
            x = _pad_last_window(x, self.kernel_size, self.stride, self.padding)
        return max_blur_pool2d(
            x,
            kernel_size=self.kernel_size,
            filter_size=self.filter_size,
            stride=self.stride,
            padding_mode=self.padding_mode,
            padding=self.padding,
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, filter_size={self.filter_size}, stride={self.stride}, "
            f"padding_mode={self.padding_mode!r}, padding={self.padding}, ceil_mode={self.ceil_mode}"
        )


def _check_options(filter_size: int, stride: int, padding_mode: str) -> None:
    check_integer("filter_size", filter_size, 1, 7)
    check_integer("stride", stride, 1)
    choose("padding_mode", padding_mode, PADDING_MODES)


def _crop_to_multiple(x: torch.Tensor, stride: int) -> torch.Tensor:
    height, width = x.shape[-2] // stride * stride, x.shape[-1] // stride * stride
    if height == 0 or width == 0:
        raise ValueError(f"x: ceil_mode=False expected height and width of at least {stride}, got {tuple(x.shape)}")
    return x[..., :height, :width]


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
for _leaf in ("blur_pool2d", "max_blur_pool2d", "_crop_to_multiple", "_pad_last_window"):
    torch.fx.wrap(_leaf)
