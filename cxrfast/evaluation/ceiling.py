"""What a perfect region of patches reaches: no model on the grid can do better under the same rule."""

import itertools

import torch
from torch import Tensor

from cxrfast.evaluation.detection import Measure, union_overlap
from cxrfast.evaluation.truth import Units
from cxrfast.regions import RegionRule

_CHUNK = 2_000_000  # cells at a time


def ceiling(
    units: Units,
    grid: tuple[int, int],  # P, Q
    rule: RegionRule,
    measure: Measure,
) -> Tensor:  # [U] float64
    """The largest IoU or IoR with each annotation that any region of the rule's shape has on a P×Q grid.

    For ``"patches"`` the best IoU is that of the best-covered patches, some number of them, and the best IoR that of
    the best-covered one alone. For boxes the sides of the best box are the grid lines next to those of the annotation,
    outside or inside; of an annotation of several boxes, next to any of theirs.

    An opening leaves whole cells, for it is the union of all large enough rectangles of them.
    """
    best = torch.zeros(len(units.image), dtype=torch.float64)
    count = units.has_box.sum(dim=1)
    for boxes in count.unique().tolist():  # annotations of one box are the rule, and quick
        for chosen in (count == boxes).nonzero()[:, 0].split(_CHUNK // (grid[0] * grid[1]) + 1):
            some = _pick(units, chosen, boxes)
            if measure == "ior":
                best[chosen] = _coverage(some, grid).flatten(1).amax(dim=1) * (grid[0] * grid[1])
            else:
                best[chosen] = (_best_union if rule.shape == "patches" else _best_box)(some, grid)
    return best


def _pick(units: Units, chosen: Tensor, count: int) -> Units:
    """Units that all have `count` boxes, without padding."""
    boxes = units.boxes[chosen][units.has_box[chosen]].view(len(chosen), count, 4)
    return Units(units.image[chosen], units.class_index[chosen], boxes, torch.ones(boxes.shape[:2], dtype=torch.bool))


def _best_union(units: Units, grid: tuple[int, int]) -> Tensor:
    inside = _coverage(units, grid).flatten(1).sort(dim=1, descending=True).values.cumsum(dim=1)
    whole = _area(units)
    patches = torch.arange(1, inside.shape[1] + 1) / inside.shape[1]
    return (inside / (whole[:, None] + patches - inside)).amax(dim=1)


def _best_box(units: Units, grid: tuple[int, int]) -> Tensor:
    """Moving a side of the region inwards over a whole row that the annotation's own row covers as well as the rest
    only loses, so for one box 2 lines on each side are enough to try; for M boxes, 2 M."""
    lines = [_lines(units, axis, count) for axis, count in ((0, grid[1]), (1, grid[0]))]
    best = torch.zeros(len(units.image), dtype=torch.float64)
    sides = range(lines[0].shape[1])
    for left, right, top, bottom in itertools.product(sides, repeat=4):
        box = torch.stack([lines[0][:, left], lines[1][:, top], lines[0][:, right], lines[1][:, bottom]], dim=1)
        valid = (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
        if valid.any():
            alone = torch.ones(int(valid.sum()), 1, dtype=torch.bool)
            overlap = union_overlap(box[valid][:, None], alone, units.boxes[valid], units.has_box[valid])
            best[valid] = torch.maximum(best[valid], overlap.iou)
    return best


def _lines(units: Units, axis: int, count: int) -> Tensor:  # [U, 4 M] fractions
    """The grid lines below and above each side of each box."""
    sides = units.boxes[..., axis::2].flatten(1) * count
    return torch.cat([(sides + 1e-9).floor(), (sides - 1e-9).ceil()], dim=1).clamp(0, count) / count


def _coverage(units: Units, grid: tuple[int, int]) -> Tensor:  # [U, P, Q] float64
    """How much of the image lies in each patch and in the annotation: of M boxes by inclusion and exclusion."""
    rows, columns = grid
    covered = torch.zeros(len(units.image), rows, columns, dtype=torch.float64)
    number = units.boxes.shape[1]
    for size in range(1, number + 1):
        for subset in itertools.combinations(range(number), size):
            boxes = units.boxes[:, list(subset)]
            low, high = boxes[..., :2].amax(dim=1), boxes[..., 2:].amin(dim=1)
            part = _along(low[:, 1], high[:, 1], rows)[:, :, None] * _along(low[:, 0], high[:, 0], columns)[:, None]
            covered += part if size % 2 else -part
    return covered


def _along(low: Tensor, high: Tensor, count: int) -> Tensor:  # [U], [U] -> [U, count]
    """How much of each of `count` equal parts of [0, 1] lies in [low, high)."""
    start = torch.arange(count, dtype=torch.float64) / count
    return (torch.minimum(high[:, None], start + 1 / count) - torch.maximum(low[:, None], start)).clamp(min=0)


def _area(units: Units) -> Tensor:  # [U]
    none = torch.zeros(len(units.image), 0, 4, dtype=torch.float64)
    return union_overlap(none, none[..., 0].bool(), units.boxes, units.has_box).box_area
