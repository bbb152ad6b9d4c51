"""Connected components: label a mask, or find the boxes in score maps."""

from typing import Literal

import torch

from cxrfast._operator_results import ComponentBoxes, StaticComponentBoxes
from cxrfast.ops._registration import call, register
from cxrfast.ops._validation import check_floating, check_integer, check_shape, choose, filled, is_number

Selection = Literal["all", "largest", "peak"]
SELECTIONS: dict[Selection, int] = {"all": 0, "largest": 1, "peak": 2}


def connected_components(
    mask: torch.Tensor,  # [*, H, W]
    *,
    connectivity: int = 8,
) -> torch.Tensor:  # [*, H, W]
    """Label the connected components of every image.

    Args:
        mask: bool or integer dtype; nonzero elements are foreground. Any number of leading dimensions, any strides.
        connectivity: 8 (pixels that share an edge or a corner are neighbours) or 4 (only an edge).

    Returns:
        Contiguous int32 tensor. 0 is background; in every image the components are numbered 1, 2, … in raster order of
        their first pixels. Deterministic. Labels have no gradient.

    Raises:
        TypeError: mask is not a bool or integer tensor.
        ValueError: fewer than two dimensions, another connectivity, or 2³¹ pixels or more in one image.

    Example:
        >>> connected_components(torch.tensor([[1, 0, 1], [1, 0, 0], [0, 0, 1]])).tolist()
        [[1, 0, 2], [1, 0, 0], [0, 0, 3]]
    """
    if not isinstance(mask, torch.Tensor):
        raise TypeError(f"mask: expected a tensor, got {type(mask).__name__}")
    if mask.is_floating_point() or mask.is_complex():
        raise TypeError(f"mask: expected a bool or integer tensor, got {mask.dtype}")
    if mask.dim() < 2:
        raise ValueError(f"mask: expected [*, H, W], got shape {tuple(mask.shape)}")
    _check_connectivity(connectivity)
    _check_pixels("mask", mask)
    return call(torch.ops.cxrfast.connected_components, mask if mask.dtype == torch.bool else mask != 0, connectivity)


def component_boxes(
    scores: torch.Tensor,  # [B, K, H, W]
    threshold: float | torch.Tensor,  # scalar or [K]
    *,
    connectivity: int = 8,
    select: Selection = "all",
    min_area: int = 1,
) -> ComponentBoxes:
    """Boxes and scores of the connected components of `scores >= threshold`, for every image and channel.

    Args:
        scores: float16, bfloat16, float32 or float64 score maps with any strides. NaN is background. Means are
            accumulated in float64 on the CPU. On CUDA they are accumulated in 64-bit fixed point, scaled per component
            by its area and its largest magnitude. Autocast does not change the dtype.
        threshold: a number for all channels, or a tensor with one value per channel. It is rounded to scores' dtype, so
            that a score of 0.7 reaches a threshold of 0.7 in every dtype. With a NaN threshold there is no foreground.
        connectivity: 8 (edges and corners) or 4 (edges).
        select: which components of a map are returned. "all": every one. "largest": the one with the largest area, the
            first if several are equal. "peak": the one with the map's highest score, the first such pixel in raster
            order if several are equal. "largest" and "peak" give one row per map with foreground.
        min_area: components with fewer pixels are removed before the selection. With "peak", the highest score is that
            of the remaining components.

    Returns:
        :class:`ComponentBoxes`. N depends on the data; under `torch.compile(fullgraph=True)` set
        `torch._dynamo.config.capture_dynamic_output_shape_ops = True`. On CUDA the host synchronises once with the
        current stream, to read N; :func:`component_boxes_static` does not. Deterministic. Not differentiable: `scores`
        is detached, and neither peak nor mean has a gradient.

    Raises:
        TypeError: scores is not a floating-point tensor, threshold is neither a number nor a floating-point tensor, or
            an option is not an integer.
        ValueError: wrong number of dimensions, a threshold of the wrong size or on another device, an option out of
            range, or 2³¹ pixels or more in one map.

    Example:
        >>> scores = torch.zeros(1, 2, 4, 4)  # one image, two channels
        >>> scores[0, 1, 1:3, 0:2] = torch.tensor([[0.5, 1.0], [0.5, 0.5]])
        >>> found = component_boxes(scores, 0.5)
        >>> found.boxes.tolist(), found.peak.tolist(), found.mean.tolist()
        ([[0.0, 1.0, 2.0, 3.0]], [1.0], [0.625])
        >>> found.area.tolist(), found.image.tolist(), found.channel.tolist()
        ([4], [0], [1])
    """
    arguments = _checked(scores, threshold, connectivity, select, min_area)
    return ComponentBoxes(*call(torch.ops.cxrfast.component_boxes, *arguments))


def component_boxes_static(
    scores: torch.Tensor,  # [B, K, H, W]
    threshold: float | torch.Tensor,  # scalar or [K]
    *,
    capacity: int,
    connectivity: int = 8,
    select: Selection = "all",
    min_area: int = 1,
) -> StaticComponentBoxes:
    """:func:`component_boxes` with a fixed number of rows, as `torch.nonzero_static` is to `torch.nonzero`.

    Output shapes do not depend on the data. The operator therefore does not synchronise with the device, can be
    captured in a CUDA graph, and compiles without data-dependent shapes.

    Args:
        scores, threshold, connectivity, select, min_area: as in :func:`component_boxes`.
        capacity: number of rows. B * K always suffices for select="largest" and "peak".

    Returns:
        :class:`StaticComponentBoxes`: the first `capacity` rows of :func:`component_boxes`, padded, and the total
        number of components.

    Raises:
        TypeError, ValueError: as :func:`component_boxes`, and for a capacity that is not an integer of at least 0.

    Example:
        >>> scores = torch.zeros(1, 2, 4, 4)
        >>> scores[0, 1, 1:3, 0:2] = 1.0
        >>> found = component_boxes_static(scores, 0.5, capacity=2)
        >>> found.boxes.tolist(), found.channel.tolist(), found.total.item()
        ([[0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]], [1, -1], 1)
    """
    check_integer("capacity", capacity, 0)
    arguments = _checked(scores, threshold, connectivity, select, min_area)
    return StaticComponentBoxes(*call(torch.ops.cxrfast.component_boxes_static, *arguments, capacity))


def _checked(
    scores: torch.Tensor, threshold: float | torch.Tensor, connectivity: int, select: str, min_area: int
) -> tuple[torch.Tensor, torch.Tensor, int, int, int]:
    """Validate the arguments and convert them to those of the C++ operators."""
    check_floating("scores", scores)
    check_shape("scores", scores, "[B, K, H, W]", 4)
    _check_connectivity(connectivity)
    check_integer("min_area", min_area, 0)
    selection = choose("select", select, SELECTIONS)
    _check_pixels("scores", scores)
    scores = scores.detach() if scores.requires_grad else scores
    return scores, _per_channel(threshold, scores), connectivity, selection, min_area


def _per_channel(threshold: float | torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """The threshold of every channel, in scores' dtype."""
    channels = scores.shape[1]
    if isinstance(threshold, torch.Tensor):
        check_floating("threshold", threshold)
        if threshold.device != scores.device:
            raise ValueError(f"threshold: expected scores' device {scores.device}, got {threshold.device}")
        if threshold.dim() > 1 or (threshold.dim() == 1 and threshold.shape[0] != channels):
            raise ValueError(
                f"threshold: expected a number or [{channels}] for {channels} channels, "
                f"got shape {tuple(threshold.shape)}"
            )
        return threshold.detach().to(scores.dtype).expand(channels)
    if not is_number(threshold):
        raise TypeError(f"threshold: expected a number or a tensor, got {threshold!r}")
    return filled((channels,), threshold, scores.dtype, scores.device)


def _check_connectivity(connectivity: int) -> None:
    if type(connectivity) is not int or connectivity not in (4, 8):
        raise ValueError(f"connectivity: expected 4 or 8, got {connectivity!r}")


def _check_pixels(name: str, maps: torch.Tensor) -> None:
    """The kernels index the pixels of one map with 32 bits."""
    height, width = maps.shape[-2:]
    if height * width >= 2**31:
        raise ValueError(f"{name}: expected fewer than 2**31 pixels in one map, got {height}x{width}")


def _fake_labels(mask: torch.Tensor, connectivity: int) -> torch.Tensor:
    return mask.new_empty(mask.shape, dtype=torch.int32)


def _fake_boxes(
    scores: torch.Tensor, threshold: torch.Tensor, connectivity: int, select: int, min_area: int
) -> tuple[torch.Tensor, ...]:
    return _fake_rows(scores, torch.library.get_ctx().new_dynamic_size())


def _fake_static_boxes(
    scores: torch.Tensor, threshold: torch.Tensor, connectivity: int, select: int, min_area: int, capacity: int
) -> tuple[torch.Tensor, ...]:
    return *_fake_rows(scores, capacity), scores.new_empty((), dtype=torch.int64)


def _fake_rows(scores: torch.Tensor, count: int | torch.SymInt) -> tuple[torch.Tensor, ...]:
    boxes = scores.new_empty((count, 4), dtype=torch.float32)
    dtypes = (scores.dtype, scores.dtype, torch.int64, torch.int64, torch.int64)
    return boxes, *(scores.new_empty((count,), dtype=dtype) for dtype in dtypes)


register("connected_components", fake=_fake_labels)
register("component_boxes", fake=_fake_boxes)
register("component_boxes_static", fake=_fake_static_boxes)
