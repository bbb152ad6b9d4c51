"""Draws polygons as masks."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cxrfast.errors import CxrfastError
from cxrfast.predictions.masks import Mask

_LARGEST = 2**28  # pixels of a mask


def has_no_mask(segmentation: Any) -> bool:
    """Whether a COCO segmentation is empty: None, ``[]``, ``[[]]`` or ``{}``."""
    return not segmentation or (isinstance(segmentation, list) and all(part == [] for part in segmentation))


def draw_polygons(polygons: Sequence[Any], height: int, width: int, where: str) -> Mask | None:
    """The union of polygons ``[x1, y1, x2, y2, …]`` in pixels, or None if no pixel lies in it.

    A pixel belongs to a polygon if its centre does, by the even-odd rule. Only the bounding box is drawn.

    Raises:
        CxrfastError: not a list of polygons of at least three points. ``where`` begins the message.
    """
    points = [_points(polygon, where) for polygon in polygons if polygon != []]
    every = np.concatenate(points)
    low = np.floor(every.min(0)).clip(0).astype(np.int64)
    high = np.minimum(np.ceil(every.max(0)).astype(np.int64), (width, height))
    (w, h) = (high - low).tolist()
    if w <= 0 or h <= 0:
        return None
    if w * h > _LARGEST:
        raise CxrfastError(f"{where}: a mask of {w}×{h} pixels; expected at most {_LARGEST} pixels")
    inside = np.zeros((h, w), dtype=bool)
    for polygon in points:
        inside |= _even_odd(polygon - low, h, w)
    if not inside.any():
        return None
    cut = Mask.cut(torch.from_numpy(inside))
    corner = (cut.corner[0] + int(low[1]), cut.corner[1] + int(low[0]))
    return Mask(cut.inside, corner, (height, width))


def _points(polygon: Any, where: str) -> np.ndarray:  # [n, 2]
    numbers = isinstance(polygon, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in polygon
    )
    if not numbers or len(polygon) < 6 or len(polygon) % 2:
        raise CxrfastError(
            f"{where}: a polygon is {polygon!r:.40}; expected [x1, y1, x2, y2, x3, y3, …], at least three points"
        )
    return np.array(polygon, dtype=np.float64).reshape(-1, 2)


def _even_odd(points: np.ndarray, height: int, width: int) -> np.ndarray:  # [n, 2] -> [height, width] bool
    inside = np.zeros((height, width), dtype=bool)
    columns = np.arange(width) + 0.5
    ends = np.roll(points, -1, axis=0)
    for row in range(height):
        y = row + 0.5
        crosses = (points[:, 1] <= y) != (ends[:, 1] <= y)
        (x1, y1), (x2, y2) = points[crosses].T, ends[crosses].T
        edges = np.sort(x1 + (y - y1) * (x2 - x1) / (y2 - y1))
        inside[row] = np.searchsorted(edges, columns, side="right") % 2 == 1
    return inside
