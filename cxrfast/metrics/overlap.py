"""Overlap of regions with boxes (IoU, IoR), and localisation accuracy as in Rozenberg et al. 2019, §4.

All areas are exact: patches and boxes are continuous and half-open, nothing is rounded to pixels, and no "+1" is added
to a side. IoU and IoR do not change when an axis is scaled, so that fractions of the image and pixels of the original
give the same numbers, also for images that are not square.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

# An overlap this close to T equals T: boxes are stored in float32, and their rounding must not decide a tie.
TIE = 1e-6


class Overlap(NamedTuple):
    """Areas of region D and box G, as fractions of the image's area."""

    intersection: Tensor  # [N] float64, |D ∩ G|
    region_area: Tensor  # [N] float64, |D|
    box_area: Tensor  # [N] float64, |G|

    @property
    def iou(self) -> Tensor:
        """[N] |D ∩ G| / |D ∪ G|, 0 where D is empty."""
        union = self.region_area + self.box_area - self.intersection
        return torch.where(union > 0, self.intersection / union, 0.0)

    @property
    def ior(self) -> Tensor:
        """[N] |D ∩ G| / |D|, 0 where D is empty, which is a miss."""
        return torch.where(self.region_area > 0, self.intersection / self.region_area, 0.0)


def patch_overlap(
    regions: Tensor,  # [N, P, Q] bool
    boxes: Tensor,  # [N, 4], or [N, M, 4] with has_box: xyxy as fractions of the image
    has_box: Tensor | None = None,  # [N, M] bool
) -> Overlap:
    """Exact overlap of the region D, a union of patches, with the annotation G, a box or the union of up to M boxes.

    Raises:
        ValueError: shapes do not fit, or a box has no area.
    """
    if boxes.dim() == 2:
        boxes = boxes[:, None]
    if has_box is None:
        has_box = torch.ones(boxes.shape[:2], dtype=torch.bool)
    _check(regions, boxes, has_box)
    regions, boxes, has_box = regions.cpu(), boxes.detach().cpu().double(), has_box.cpu()
    rows, columns = regions.shape[1:]
    # Cut the image along all grid lines and all sides of the boxes: every cell is entirely inside or outside.
    y, height, in_y = _cells(boxes[..., 1::2], rows)
    x, width, in_x = _cells(boxes[..., 0::2], columns)
    box = (in_y[..., :, None] & in_x[..., None, :] & has_box[..., None, None]).any(dim=1)
    image = torch.arange(len(regions))[:, None, None]
    inside = ((y >= 0) & (y < rows))[:, :, None] & ((x >= 0) & (x < columns))[:, None, :]
    patch = regions[image, y.clamp(0, rows - 1)[:, :, None], x.clamp(0, columns - 1)[:, None, :]] & inside
    area = height[:, :, None] * width[:, None, :] / (rows * columns)

    def total(member: Tensor) -> Tensor:
        return (area * member).sum(dim=(1, 2))

    return Overlap(total(box & patch), regions.sum(dim=(1, 2)).double() / (rows * columns), total(box))


class BestOverlap(NamedTuple):
    """The best overlap of several regions with an annotation. IoU and IoR may be of different regions."""

    iou: Tensor  # [N] float64
    ior: Tensor  # [N] float64


def best_overlap(
    candidates: Tensor,  # [N, C, P, Q] bool, from Regions.candidates
    boxes: Tensor,  # [N, M, 4] xyxy as fractions of the image
    has_box: Tensor,  # [N, M] bool
) -> BestOverlap:
    """The best :func:`patch_overlap` of C regions, any of which may match, as in Wang et al. 2017."""
    count = candidates.shape[1]
    overlap = patch_overlap(
        candidates.flatten(0, 1), boxes.repeat_interleave(count, dim=0), has_box.repeat_interleave(count, dim=0)
    )
    iou, ior = (value.view(-1, count).amax(dim=1) for value in (overlap.iou, overlap.ior))
    return BestOverlap(iou, ior)


def _cells(sides: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cells along one axis, E = 2M + count of them.

    ``sides [N, M, 2]`` are the boxes' first and last coordinates as fractions. Returns the patch that each cell lies in
    ``[N, E]`` (outside of the image: below 0, or ``count`` and above), its length in patches ``[N, E]``, and which
    boxes it lies in, bool ``[N, M, E]``.
    """
    sides = sides * count
    lines = torch.arange(count + 1, dtype=torch.float64).expand(len(sides), -1)
    edges = torch.cat([lines, sides.flatten(1)], dim=1).sort(dim=1).values
    middle = (edges[:, 1:] + edges[:, :-1]) / 2
    member = (middle[:, None] > sides[..., :1]) & (middle[:, None] < sides[..., 1:])
    return middle.floor().long(), edges.diff(dim=1), member


def _check(regions: Tensor, boxes: Tensor, has_box: Tensor) -> None:
    if regions.dim() != 3 or regions.dtype != torch.bool:
        raise ValueError(f"expected bool regions [N, P, P], got {regions.dtype} {list(regions.shape)}")
    if boxes.dim() != 3 or boxes.shape[0] != len(regions) or boxes.shape[2] != 4 or boxes.shape[:2] != has_box.shape:
        raise ValueError(
            f"expected boxes [N, 4] or [N, M, 4] with has_box [N, M] for {len(regions)} regions, got "
            f"{list(boxes.shape)} and {list(has_box.shape)}"
        )
    if not has_box.any(dim=1).all():
        raise ValueError("expected a box for every region; leave out the pairs of image and class without one")
    real = boxes[has_box]
    if not (real[:, 2:] > real[:, :2]).all():
        raise ValueError("expected boxes with x1 < x2 and y1 < y2, got one without area")


class Accuracy(NamedTuple):
    """Localisation accuracy per class, with its counts."""

    accuracy: Tensor  # [K] float64, hits / boxes; NaN for a class without boxes
    hits: Tensor  # [K] int64
    boxes: Tensor  # [K] int64


def localization_accuracy(
    overlap: Tensor,  # [N] IoU or IoR
    class_index: Tensor,  # [N] integers in 0..K-1
    num_classes: int,  # K
    threshold: float,  # T
) -> Accuracy:
    """Per class, the share of the N annotated pairs of image and class whose overlap is at least T.

    A hit is ``overlap ≥ T``; an overlap within 1e-6 of T equals T.
    """
    if overlap.dim() != 1 or overlap.shape != class_index.shape:
        raise ValueError(
            f"expected overlap and class_index [N], got {list(overlap.shape)} and {list(class_index.shape)}"
        )
    class_index = class_index.long()
    hits = torch.bincount(class_index[overlap >= threshold - TIE], minlength=num_classes)
    boxes = torch.bincount(class_index, minlength=num_classes)
    return Accuracy(hits.double() / boxes, hits, boxes)  # 0 / 0 is NaN


def grid_oracle(
    boxes: Tensor,  # [N, 4] xyxy as fractions of the image
    grid: int,  # P
    rule: Literal["best", "half", "any", "center"] = "best",
) -> Tensor:  # [N] float64
    """IoU of the oracle region on a P×P grid with each box.

    ``"best"``: the union of patches with the largest IoU, which no model exceeds. For a given number of patches these
    are the best-covered ones, so that patches are added in order of coverage. ``"half"``, ``"any"``, ``"center"``: the
    patches of the box by that rule of :func:`cxrfast.data.patches.boxes_to_patches`, the target of models trained with
    it.
    """
    boxes = boxes.detach().cpu().double()
    if rule != "best":
        from cxrfast.data.patches import boxes_to_patches

        has_box = torch.ones(len(boxes), 1, dtype=torch.bool)
        return patch_overlap(boxes_to_patches(boxes[:, None], has_box, 1, grid, rule=rule), boxes).iou
    low, high = boxes[:, :2] * grid, boxes[:, 2:] * grid  # in patches
    line = torch.arange(grid, dtype=torch.float64)
    covered = (torch.minimum(high[..., None], line + 1) - torch.maximum(low[..., None], line)).clamp(min=0)
    best_first = (covered[:, 1, :, None] * covered[:, 0, None, :]).flatten(1).sort(dim=1, descending=True).values
    intersection = best_first.cumsum(dim=1)
    union = (high - low).prod(dim=1)[:, None] + torch.arange(1, grid * grid + 1) - intersection
    return (intersection / union).amax(dim=1)
