"""What a perfect region of patches reaches: no model on the grid can do better under the same rule."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cxrfast.evaluation.detection import Measure
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
    for number in count.unique().tolist():  # annotations of one box are the rule, and quick
        size = max((2 * number + max(grid) + 1) ** 2, min(4 * number, max(grid) + 1) ** 3)
        for chosen in (count == number).nonzero()[:, 0].split(_CHUNK // size + 1):
            boxes = units.boxes[chosen][units.has_box[chosen]].view(len(chosen), number, 4)
            inside, area = _coverage(boxes, grid)
            if measure == "ior":
                best[chosen] = inside.flatten(1).amax(dim=1) * (grid[0] * grid[1])
            else:
                best[chosen] = _best_union(inside, area) if rule.shape == "patches" else _best_box(boxes, inside, area)
    return best


def _best_union(inside: Tensor, area: Tensor) -> Tensor:  # [U, P, Q], [U] -> [U]
    inside = inside.flatten(1).sort(dim=1, descending=True).values.cumsum(dim=1)
    patches = torch.arange(1, inside.shape[1] + 1, dtype=torch.float64) / inside.shape[1]
    return (inside / (area[:, None] + patches - inside)).amax(dim=1)


def _best_box(boxes: Tensor, inside: Tensor, area: Tensor) -> Tensor:  # [U, M, 4], [U, P, Q], [U] -> [U]
    """Between two sides of the annotation intersection and union are linear in the place of a side of the region, so
    their ratio is largest at an end: L ≤ 4 M lines on each axis are enough to try.

    The best ratio λ of Dinkelbach 1967: while some box has intersection − λ · union > 0, its ratio is larger.
    The box where that is largest is found for all tops and bottoms at once, with a running minimum from left to right.
    """
    rows, columns = inside.shape[1:]
    y, x = _lines(boxes[..., 1::2], rows), _lines(boxes[..., 0::2], columns)
    sums = F.pad(inside.cumsum(dim=1).cumsum(dim=2), (1, 0, 1, 0))
    sums = sums[torch.arange(len(boxes))[:, None, None], y[:, :, None], x[:, None]]  # above and left of the lines
    top, bottom = torch.triu_indices(y.shape[1], y.shape[1], 1)
    covered = (sums[:, bottom] - sums[:, top]).flatten(1)  # [U, pairs · L], left of each line
    region = ((y[:, bottom] - y[:, top])[:, :, None] * x[:, None]).flatten(1).double() / (rows * columns)
    best = torch.zeros(len(boxes), dtype=torch.float64)
    while True:
        gain = ((1 + best[:, None]) * covered - best[:, None] * region).view(len(boxes), -1, x.shape[1])
        lowest = gain.cummin(dim=2)
        right = (gain - lowest.values).flatten(1).argmax(dim=1, keepdim=True)
        left = right - right % x.shape[1] + lowest.indices.flatten(1).gather(1, right)
        both, alone = ((of.gather(1, right) - of.gather(1, left))[:, 0] for of in (covered, region))
        ratio = both / (area + alone - both)
        if not (ratio > best + 1e-12).any():
            return best
        best = torch.maximum(best, ratio)


def _lines(sides: Tensor, count: int) -> Tensor:  # [U, M, 2] -> [U, L] int64, ascending
    """The grid lines below and above each side of each box; all, where these are more."""
    if 2 * sides[0].numel() > count:
        return torch.arange(count + 1).expand(len(sides), -1)
    sides = sides.flatten(1) * count
    return torch.cat([(sides + 1e-9).floor(), (sides - 1e-9).ceil()], dim=1).clamp(0, count).long().sort(dim=1).values


def _coverage(boxes: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:  # [U, M, 4] -> [U, P, Q], [U] float64
    """How much of the image lies in each patch and in the union of the boxes; and in the union, wherever it is.

    The image is cut along all lines of the grid and all sides of the boxes. Each box adds 1 to its cells, by 1 and −1
    at its corners, summed up over both axes.
    """
    top, bottom, height, rows = _cut(boxes[..., 1::2], grid[0])
    left, right, width, columns = _cut(boxes[..., 0::2], grid[1])
    depth = torch.zeros(len(boxes), height.shape[1] + 1, width.shape[1] + 1, dtype=torch.int32)
    unit = torch.arange(len(boxes))[:, None].expand_as(top)
    for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        depth.index_put_((unit, y, x), torch.tensor(sign, dtype=torch.int32), accumulate=True)
    member = (depth.cumsum(dim=1).cumsum(dim=2)[:, :-1, :-1] > 0).double()
    return rows @ member @ columns.mT, (height[:, None] @ member @ width[:, :, None])[:, 0, 0]


def _cut(sides: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # [U, M, 2]
    """Along one axis: first cell in each box and first behind it ``[U, M]``, lengths of the cells ``[U, E]``, and the
    same ``[U, count, E]`` with 0 for cells that are not in the patch."""
    lines = (torch.arange(count + 1, dtype=torch.float64) / count).expand(len(sides), -1)
    edges = torch.cat([lines, sides.flatten(1)], dim=1).sort(dim=1).values
    first, behind = (torch.searchsorted(edges, sides[..., end].contiguous()) for end in (0, 1))
    length = edges.diff(dim=1)
    patch = ((edges[:, 1:] + edges[:, :-1]) / 2 * count).floor()
    return first, behind, length, length[:, None] * (patch[:, None] == torch.arange(count)[:, None])
