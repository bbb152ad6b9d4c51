"""The box of a COCO annotation, from its bbox, its polygons or its mask."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from cxrfast.data.records import Box
from cxrfast.data.rle import rle_box


def annotation_box(entry: dict[str, Any], size: Callable[[], tuple[int, int]], where: str) -> tuple[Box | None, bool]:
    """The box xyxy in pixels, and whether it is that of a mask; (None, False) for a label of the whole image.

    A ``bbox`` is used if it has an area, else the ``segmentation``. Raises ValueError for values that are no shape.
    """
    bbox, segmentation = entry.get("bbox"), entry.get("segmentation")
    given = bbox not in (None, [])
    x, y, w, h = _numbers(bbox, "bbox", 4) if given else (0.0, 0.0, 0.0, 0.0)
    if given and (w < 0 or h < 0):
        raise ValueError(f"bbox is {bbox}, expected [x, y, width, height] with sides above 0")
    if w > 0 and h > 0:
        return (x, y, x + w, y + h), False
    box = _mask_box(segmentation, size, where)
    if box is None and given:
        raise ValueError(f"bbox is {bbox}, expected [x, y, width, height] with sides above 0")
    return box, box is not None


def _mask_box(segmentation: Any, size: Callable[[], tuple[int, int]], where: str) -> Box | None:
    if isinstance(segmentation, dict):
        width, height = size()
        return rle_box(segmentation, height, width, where)
    if segmentation in (None, []):
        return None
    if not isinstance(segmentation, list):
        raise ValueError(f"segmentation is a {type(segmentation).__name__}, expected polygons or a run-length mask")
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    points = [_numbers(polygon, "a polygon") for polygon in polygons if polygon]
    if not points:
        return None  # [[]] is how some programs write that there is no mask
    if any(len(polygon) < 6 or len(polygon) % 2 for polygon in points):
        raise ValueError("a polygon has fewer than three points, or an odd number of coordinates")
    xs = [x for polygon in points for x in polygon[0::2]]
    ys = [y for polygon in points for y in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def _numbers(values: Any, name: str, count: int | None = None) -> Sequence[float]:
    right = isinstance(values, list) and all(
        isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) for x in values
    )
    if not right or (count is not None and len(values) != count):
        raise ValueError(f"{name} is {values!r:.60}, expected {count or 'only'} numbers")
    return [float(x) for x in values]
