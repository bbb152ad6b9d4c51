"""The named tuples that operators and their references return.

They need only torch, so that `cxrfast.reference` can be imported without the compiled libraries.
"""

from typing import NamedTuple

import torch


class ComponentBoxes(NamedTuple):
    """One row per component, ordered by image, then channel, then raster order of the component's first pixel."""

    boxes: torch.Tensor
    """[N, 4] float32: x0, y0, x1, y1, half-open, in pixels of the map. The values are integers; the dtype is float so
    that `boxes * (image_width / map_width)` gives image pixels."""
    peak: torch.Tensor
    """[N] scores' dtype: highest score."""
    mean: torch.Tensor
    """[N] scores' dtype: mean score."""
    area: torch.Tensor
    """[N] int64: number of pixels."""
    image: torch.Tensor
    """[N] int64: index into B."""
    channel: torch.Tensor
    """[N] int64: index into K."""


class StaticComponentBoxes(NamedTuple):
    """The fields of :class:`ComponentBoxes` with a fixed number of rows. Rows after the last component are zero, with
    -1 for image and channel."""

    boxes: torch.Tensor
    """[capacity, 4] float32."""
    peak: torch.Tensor
    """[capacity] scores' dtype."""
    mean: torch.Tensor
    """[capacity] scores' dtype."""
    area: torch.Tensor
    """[capacity] int64: 0 where there is no component."""
    image: torch.Tensor
    """[capacity] int64: -1 where there is no component."""
    channel: torch.Tensor
    """[capacity] int64: -1 where there is no component."""
    total: torch.Tensor
    """[] int64, on scores' device: number of components. If it exceeds `capacity`, the last components are missing."""


class HammingNeighbors(NamedTuple):
    """The result of :func:`hamming_topk`: one row per query, the nearest (or farthest) neighbour first."""

    indices: torch.Tensor  # [A, k] int64 indices into `hashes`; -1 for padding
    distances: torch.Tensor  # [A, k] int32, 0 to 64; -1 for padding


class RegionSums(NamedTuple):
    """Per image and class: Σ z over the patches inside the region and outside it, and the number of each."""

    inside: torch.Tensor  # [B, K]
    outside: torch.Tensor  # [B, K]
    inside_count: torch.Tensor  # [B, K]
    outside_count: torch.Tensor  # [B, K]


class SelfGuidedSums(NamedTuple):
    """Per bag and class: Σ BCE(p, M) over the instances with M = 0, with M = θ and with M = 1, Σ p² over those with M =
    θ or 1, the number of instances of each kind, the minimum and maximum logit, and the certainty α."""

    negative: torch.Tensor  # [B, K]
    soft: torch.Tensor  # [B, K]
    positive: torch.Tensor  # [B, K]
    squares: torch.Tensor  # [B, K]
    negative_count: torch.Tensor  # [B, K]
    soft_count: torch.Tensor  # [B, K]
    positive_count: torch.Tensor  # [B, K]
    minimum: torch.Tensor  # [B, K]
    maximum: torch.Tensor  # [B, K]
    certainty: torch.Tensor  # [B, K]
