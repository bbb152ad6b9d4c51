"""Polygons against a plain test of every pixel's centre."""

import numpy as np
import pytest

from cxrfast.errors import CxrfastError
from cxrfast.predictions.polygons import draw_polygons


def is_inside(polygon, x, y):
    """Crossings of a ray to the right, edge by edge."""
    inside = False
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (y1 <= y) != (y2 <= y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1):
            inside = not inside
    return inside


@pytest.mark.parametrize("seed", range(8))
def test_random_polygons(seed):
    rng = np.random.default_rng(seed)
    polygons = [rng.uniform(-4, 20, (int(rng.integers(3, 9)), 2)) for _ in range(int(rng.integers(1, 4)))]
    expected = np.array([[any(is_inside(p, x + 0.5, y + 0.5) for p in polygons) for x in range(16)] for y in range(12)])
    mask = draw_polygons([polygon.ravel().tolist() for polygon in polygons], 12, 16, "here")
    found = np.zeros((12, 16), dtype=bool)
    if mask is not None:
        (top, left), (h, w) = mask.corner, mask.inside.shape
        found[top : top + h, left : left + w] = mask.inside.numpy()
        assert mask.size == (12, 16)
    assert expected.any()
    assert np.array_equal(found, expected)


def test_sizes_are_checked_before_memory_is_taken():
    corners = [0, 0, 1e6, 0, 1e6, 1e6]
    with pytest.raises(CxrfastError, match="here: a mask of 1000000×1000000 pixels; expected at most"):
        draw_polygons([corners], 10**6, 10**6, "here")
    assert draw_polygons([corners], 10, 10, "here").inside.sum() == 55
