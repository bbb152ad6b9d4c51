"""Masks are kept and compared cut to the box around them, with the numbers that whole ones give."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.evaluation.sources import mask_overlap
from cxrfast.metrics.overlap import patch_overlap
from cxrfast.predictions.masks import Mask


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    count=st.integers(1, 3),
    boxes=st.integers(1, 3),
)
def test_masks_overlap_as_regions_of_pixels_do(seed, height, width, count, boxes):
    random = np.random.default_rng(seed)
    whole = torch.from_numpy(random.random((count, height, width)) < random.choice([0.05, 0.5, 1.0]))
    whole[:, random.integers(height), random.integers(width)] = True
    corners = np.sort(random.random((boxes, 2, 2)), axis=1)
    if seed % 3 == 0:  # on the lines between pixels, where edges of boxes coincide
        whole_pixels = np.sort(random.integers(0, 5, (boxes, 2, 2)), axis=1) + np.array([[0], [1]])
        corners = whole_pixels / np.array([width, height])
    xyxy = torch.from_numpy(corners.reshape(boxes, 4))
    expected = patch_overlap(whole.any(dim=0)[None], xyxy[None], torch.ones(1, boxes, dtype=torch.bool))
    masks = [Mask.cut(mask) for mask in whole]
    for mask in masks:
        assert all(bool(edge.any()) for cells in (mask.inside, mask.inside.T) for edge in (cells[0], cells[-1]))
    found = mask_overlap(masks, xyxy)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one / (height * width), other[0])
    for name in ("iou", "ior"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name)[0])
