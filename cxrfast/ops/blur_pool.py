"""Anti-aliased downsampling: blur with a binomial filter, then subsample (Zhang 2019, "Making Convolutional Networks
Shift-Invariant Again")."""

from typing import Any, Literal

import torch
import torch.nn.functional as F

from cxrfast.ops._layout import dense_image, image_memory_format
from cxrfast.ops._registration import call, register
from cxrfast.ops._transforms import Batching
from cxrfast.ops._validation import check_floating, check_integer, check_shape, choose

PaddingMode = Literal["reflect", "replicate", "zeros"]
PADDING_MODES: dict[PaddingMode, int] = {"reflect": 0, "replicate": 1, "zeros": 2}


def blur_pool2d(
    x: torch.Tensor,  # [B, C, H, W]
    *,
    filter_size: int = 4,
    stride: int = 2,
    padding_mode: PaddingMode = "reflect",
) -> torch.Tensor:  # [B, C, (H-1)//stride+1, (W-1)//stride+1]
    """Blur every channel with a binomial filter and keep every `stride`-th pixel.

    `out[y, x] = Σ_{i,j} a_i a_j · padded[stride·y + i, stride·x + j]` with `a_i = C(f−1, i) / 2^(f−1)`. Of the `f − 1`
    padded pixels, `(f−1)//2` are before the image and the rest after it. `filter_size=1` only subsamples.

    Args:
        x: float16, bfloat16, float32 or float64 image batch. Contiguous and channels_last memory formats are kept,
            in the gradient too; other strides are copied. Sums are accumulated in float32 (float64 for float64).
            Autocast does not change the dtype.
        filter_size: f, 1 to 7.
        stride: 1 or more.
        padding_mode: "reflect" (without repeating the edge), "replicate" or "zeros".

    Returns:
        Tensor of x's dtype and memory format. Forward and backward are deterministic. The operator is linear: all
        higher derivatives, forward mode and the transforms of torch.func are exact.

    Raises:
        TypeError: x is not a floating-point tensor, or an option is not an integer.
        ValueError: wrong number of dimensions, an option out of range, or "reflect" with an image whose height or width
            is not larger than `filter_size // 2`.

    Example:
        >>> blur_pool2d(torch.ones(2, 64, 56, 56)).shape
        torch.Size([2, 64, 28, 28])
        >>> row = torch.tensor([0.0, 0.0, 8.0, 0.0, 0.0])
        >>> blur_pool2d(row.expand(1, 1, 5, 5), filter_size=3, stride=1, padding_mode="replicate")[0, 0, 0].tolist()
        [0.0, 2.0, 4.0, 2.0, 0.0]
    """
    check_floating("x", x)
    check_shape("x", x, "[B, C, H, W]", 4)
    check_integer("filter_size", filter_size, 1, 7)
    check_integer("stride", stride, 1)
    padding = choose("padding_mode", padding_mode, PADDING_MODES)
    _check_reflects("x", x.shape[2], x.shape[3], filter_size, padding_mode)
    return call(torch.ops.cxrfast.blur_pool2d, dense_image(x), filter_size, stride, padding)


def max_blur_pool2d(
    x: torch.Tensor,  # [B, C, H, W]
    *,
    kernel_size: int = 2,
    filter_size: int = 4,
    stride: int = 2,
    padding_mode: PaddingMode = "reflect",
    padding: int = 0,
) -> torch.Tensor:  # [B, C, (H'-1)//stride+1, (W'-1)//stride+1], H' = H + 2*padding - kernel_size + 1
    """Anti-aliased max-pooling: maximum over a sliding window, blur, then keep every `stride`-th pixel.

    `max_blur_pool2d(x, …) = blur_pool2d(max_pool2d(x, kernel_size, stride=1, padding=padding), filter_size, stride,
    padding_mode)`, without storing the full-size map between the two steps (Zhang 2019, Figure 3: MaxPool = Subsample ∘
    Max becomes MaxBlurPool = Subsample ∘ Blur ∘ Max). With the same `kernel_size`, `stride` and `padding` the output
    has the size of `torch.nn.functional.max_pool2d`'s output, for every image size.

    Args:
        x: as in :func:`blur_pool2d`. Any floating dtype; contiguous and channels_last memory formats are kept; the
            blur is accumulated in float32 (float64 for float64). Autocast does not change the dtype.
        kernel_size: side of the max-pooling window, 1 to 32767. With 1 there is no maximum.
        filter_size: of the blur, 1 to 7. With 1 there is no blur.
        stride: 1 or more.
        padding_mode: of the blur: "reflect", "replicate" or "zeros". It pads the map after the maximum.
        padding: of the maximum: −∞ on all sides of the image, at most half of `kernel_size`, as in `max_pool2d`.

    Returns:
        Tensor of x's dtype and memory format. A NaN in a window makes its maximum NaN. The gradient of a window goes to
        its first maximal element in raster order (to its last NaN, if it has any), as in `max_pool2d`. Forward and
        backward are deterministic. The backward pass stores only x and recomputes the maxima.

    Raises:
        TypeError: x is not a floating-point tensor, or an option is not an integer.
        ValueError: wrong number of dimensions, an option out of range, a window larger than the padded image, or
            "reflect" with a map after the maximum whose height or width is not larger than `filter_size // 2`.

    Example:
        >>> max_blur_pool2d(torch.ones(2, 64, 57, 57), kernel_size=3, padding=1).shape
        torch.Size([2, 64, 29, 29])
    """
    check_floating("x", x)
    check_shape("x", x, "[B, C, H, W]", 4)
    check_integer("kernel_size", kernel_size, 1, 32767)
    check_integer("filter_size", filter_size, 1, 7)
    check_integer("stride", stride, 1)
    check_integer("padding", padding, 0, kernel_size // 2)
    mode = choose("padding_mode", padding_mode, PADDING_MODES)
    height, width = x.shape[2:]
    smallest = kernel_size - 2 * padding
    if min(height, width) < smallest and height * width > 0:
        raise ValueError(
            f"x: kernel_size {kernel_size} with padding {padding} expected height and width of at least {smallest}, "
            f"got {height}x{width}"
        )
    map_height, map_width = max_map_size(height, kernel_size, padding), max_map_size(width, kernel_size, padding)
    _check_reflects("x after the maximum", map_height, map_width, filter_size, padding_mode)
    options = kernel_size, filter_size, stride, mode, padding
    return call(torch.ops.cxrfast.max_blur_pool2d, dense_image(x), *options)


def _check_reflects(name: str, height: int, width: int, filter_size: int, padding_mode: str) -> None:
    """Raise if the image is too small for reflect padding. Empty images are accepted."""
    if padding_mode == "reflect" and min(height, width) <= filter_size // 2 and height * width > 0:
        raise ValueError(
            f"{name}: padding_mode 'reflect' with filter_size {filter_size} expected height and width over "
            f"{filter_size // 2}, got {height}x{width}; use 'replicate' or 'zeros'"
        )


def pooled_size(n: int, stride: int) -> int:
    return (n + stride - 1) // stride


def max_map_size(n: int, kernel_size: int, padding: int) -> int:
    """Size of the map after a maximum with stride 1 over n pixels; 0 for n = 0."""
    return 0 if n == 0 else max(n + 2 * padding - kernel_size + 1, 0)


def _empty(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    shape = (x.shape[0], x.shape[1], height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=image_memory_format(x))


def _fake(x: torch.Tensor, filter_size: int, stride: int, padding_mode: int) -> torch.Tensor:
    return _empty(x, pooled_size(x.shape[2], stride), pooled_size(x.shape[3], stride))


def _fake_backward(
    grad: torch.Tensor, height: int, width: int, filter_size: int, stride: int, padding_mode: int
) -> torch.Tensor:
    return _empty(grad, height, width)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, *ctx.options = inputs
    ctx.size = x.shape[2], x.shape[3]
    ctx.memory_format = image_memory_format(x)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    grad = grad.contiguous(memory_format=ctx.memory_format)  # it decides that of the result
    return call(torch.ops.cxrfast._blur_pool2d_backward, grad, *ctx.size, *ctx.options), None, None, None


def _jvp(inputs: list[Any], tangents: tuple[Any, ...]) -> torch.Tensor:
    return call(torch.ops.cxrfast.blur_pool2d, tangents[0], *inputs[1:])  # the operator is linear


def _setup_context_of_backward(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.options = inputs[3:]


def _backward_of_backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return call(torch.ops.cxrfast.blur_pool2d, grad, *ctx.options), None, None, None, None, None


def _jvp_of_backward(inputs: list[Any], tangents: tuple[Any, ...]) -> torch.Tensor:
    return call(torch.ops.cxrfast._blur_pool2d_backward, tangents[0], *inputs[1:])


def _fake_max(
    x: torch.Tensor, kernel_size: int, filter_size: int, stride: int, padding_mode: int, padding: int
) -> torch.Tensor:
    height, width = (max_map_size(n, kernel_size, padding) for n in x.shape[2:])
    return _empty(x, pooled_size(height, stride), pooled_size(width, stride))


def _fake_max_backward(grad: torch.Tensor, x: torch.Tensor, *options: int) -> torch.Tensor:
    return _empty(x, x.shape[2], x.shape[3])


def _setup_max_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, *ctx.options = inputs
    ctx.save_for_backward(x)


def _backward_max(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    (x,) = ctx.saved_tensors
    grad_x = call(torch.ops.cxrfast._max_blur_pool2d_backward, grad, x, *ctx.options)
    return grad_x, None, None, None, None, None


def _jvp_max(inputs: list[Any], tangents: tuple[Any, ...]) -> torch.Tensor:
    """The blur of the tangents at the maxima."""
    x, kernel_size, filter_size, stride, padding_mode, padding = inputs
    _, index = F.max_pool2d(x, kernel_size, stride=1, padding=padding, return_indices=True)
    chosen = tangents[0].flatten(2).gather(2, index.flatten(2)).view_as(index)
    return call(torch.ops.cxrfast.blur_pool2d, chosen, filter_size, stride, padding_mode)


register(
    "blur_pool2d",
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
    jvp=_jvp,
    batching=[Batching((0, None, None, None))],
)
register(
    "_blur_pool2d_backward",
    fake=_fake_backward,
    backward=_backward_of_backward,
    setup_context=_setup_context_of_backward,
    jvp=_jvp_of_backward,
    batching=[Batching((0, *[None] * 5))],
)
register(
    "max_blur_pool2d",
    fake=_fake_max,
    backward=_backward_max,
    setup_context=_setup_max_context,
    jvp=_jvp_max,
    batching=[Batching((0, *[None] * 5))],
)
register("_max_blur_pool2d_backward", fake=_fake_max_backward, batching=[Batching((0, 0, *[None] * 5))])
