"""Oracle regions: the best regions on the grid, chosen with knowledge of the annotation. No model does better."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cxrfast.evaluation.ground_truth import Units
from cxrfast.metrics.detection import Measure
from cxrfast.regions.rule import RegionRule

_CHUNK = 2_000_000  # cells at a time


def oracle(
    units: Units,
    grid: tuple[int, int],  # P, Q
    rule: RegionRule,
    measure: Measure,
    image_size: int | None = None,  # of the network's images in pixels, needed for an opening by pixels
) -> Tensor:  # [U] float64
    """The largest IoU or IoR with each annotation that any region of the rule's shape on a P×Q grid can have.

    For ``"patches"``, the region with the best IoU consists of the best-covered patches. The region with the best IoR
    is the best-covered patch alone. For boxes, the sides of the best box are the grid lines next to the sides of the
    annotation, outside or inside; if the annotation has several boxes, next to the sides of any of them.

    An opening leaves unions of squares of whole patches. A box is then at least as large as such a square. For
    ``"patches"`` the result is then an upper bound, because the best-covered patches need not contain a square. A
    closing changes neither boxes nor this bound.
    """
    best = torch.zeros(len(units.image), dtype=torch.float64)
    lines = tuple(torch.arange(count + 1, dtype=torch.float64) / count for count in grid)
    square = rule.square(rule.opening, grid, image_size)
    least = (square[0] / grid[0], square[1] / grid[1]) if square != (1, 1) else None
    most = max(grid) + 1
    count = units.has_box.sum(dim=1)
    for number in count.unique().tolist():  # most annotations have one box, which is fast
        size = max((2 * number + most) ** 2, (most if least else min(4 * number, most)) ** 3)
        for chosen in (count == number).nonzero()[:, 0].split(_CHUNK // size + 1):
            boxes = units.boxes[chosen][units.has_box[chosen]].view(len(chosen), number, 4)
            inside, area = _coverage(boxes, lines)
            if rule.shape != "patches" and (measure == "iou" or least):
                best[chosen] = _best_box(boxes, inside, area, lines, measure, least)
            else:
                best[chosen] = _best_patches(inside, area, lines, measure)
    return best


def _best_patches(inside: Tensor, area: Tensor, lines: Sequence[Tensor], measure: Measure) -> Tensor:  # [U, P, Q], [U]
    patch = (lines[0].diff()[:, None] * lines[1].diff()).flatten()
    share, order = (inside.flatten(1) / patch).nan_to_num(0.0).sort(dim=1, descending=True)
    if measure == "ior":
        return share[:, 0]
    both, region = inside.flatten(1).gather(1, order).cumsum(dim=1), patch[order].cumsum(dim=1)
    return (both / (area[:, None] + region - both)).amax(dim=1)


def _best_box(
    boxes: Tensor,  # [U, M, 4]
    inside: Tensor,  # [U, P, Q]
    area: Tensor,  # [U]
    lines: Sequence[Tensor],  # [P + 1], [Q + 1]
    measure: Measure,
    least: tuple[float, float] | None,  # height and width; None: any
) -> Tensor:  # [U]
    """Between two sides of the annotation, intersection and union are linear in the position of a side of the region.
    Their ratio is therefore largest at an end, and L ≤ 4 M grid lines per axis suffice, unless boxes have a minimum
    size.

    Dinkelbach's algorithm (1967) for the largest ratio λ: a box with intersection − λ · union > 0 has a larger ratio.
    The box with the largest such value is found for all tops and bottoms at once, by a running minimum along x.
    """
    # [U, L] int64
    y, x = (_tried(boxes[..., 1 - axis :: 2], lines[axis], every=least is not None) for axis in (0, 1))
    low, wide = least or (0.0, 0.0)
    sums = F.pad(inside.cumsum(dim=1).cumsum(dim=2), (1, 0, 1, 0))
    sums = sums[torch.arange(len(boxes))[:, None, None], y[:, :, None], x[:, None]]  # above and left of the lines
    top, bottom = torch.triu_indices(y.shape[1], y.shape[1], 1)
    height, place = lines[0][y[:, bottom]] - lines[0][y[:, top]], lines[1][x]
    covered = (sums[:, bottom] - sums[:, top]).flatten(1)  # [U, pairs · L], left of each line
    region = (height[:, :, None] * place[:, None]).flatten(1)
    # The last line that is far enough to the left of each
    before = torch.searchsorted(place, place - wide + 1e-12, right=True) - 1
    allowed = (height >= low - 1e-12)[:, :, None] & (before >= 0)[:, None]
    before = before.clamp(min=0)[:, None].expand(allowed.shape)
    best = torch.zeros(len(boxes), dtype=torch.float64)
    while True:
        factor = 1 + best if measure == "iou" else torch.ones_like(best)
        gain = (factor[:, None] * covered - best[:, None] * region).view(allowed.shape)
        lowest = gain.cummin(dim=2)
        rise = torch.where(allowed, gain - lowest.values.gather(2, before), -torch.inf).flatten(1)
        value, right = rise.max(dim=1, keepdim=True)
        left = right - right % x.shape[1] + lowest.indices.gather(2, before).flatten(1).gather(1, right)
        both, alone = ((of.gather(1, right) - of.gather(1, left))[:, 0] for of in (covered, region))
        ratio = both / (area + alone - both if measure == "iou" else alone)
        ratio = torch.where(value[:, 0] > -torch.inf, ratio, 0.0)
        if not (ratio > best + 1e-12).any():
            return best
        best = torch.maximum(best, ratio)


def _tried(sides: Tensor, lines: Tensor, *, every: bool) -> Tensor:  # [U, M, 2], [count + 1] -> [U, L] int64, ascending
    """The grid lines below and above each side of each box; all grid lines if that is fewer, or if ``every``."""
    count = len(lines) - 1
    if every or 2 * sides[0].numel() > count:
        return torch.arange(count + 1).expand(len(sides), -1)
    sides = sides.flatten(1) * count
    return torch.cat([(sides + 1e-9).floor(), (sides - 1e-9).ceil()], dim=1).clamp(0, count).long().sort(dim=1).values


def _coverage(boxes: Tensor, lines: Sequence[Tensor]) -> tuple[Tensor, Tensor]:  # [U, M, 4] -> [U, P, Q], [U] float64
    """Area of the union of the boxes in each patch, and its total area.

    The image is cut along all grid lines and all sides of the boxes. A box adds 1 to all of its cells: it sets 1 and −1
    at its corners, which are summed over both axes.
    """
    top, bottom, height, rows = _cut(boxes[..., 1::2], lines[0])
    left, right, width, columns = _cut(boxes[..., 0::2], lines[1])
    depth = torch.zeros(len(boxes), height.shape[1] + 1, width.shape[1] + 1, dtype=torch.int32)
    unit = torch.arange(len(boxes))[:, None].expand_as(top)
    for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        depth.index_put_((unit, y, x), torch.tensor(sign, dtype=torch.int32), accumulate=True)
    member = (depth.cumsum(dim=1).cumsum(dim=2)[:, :-1, :-1] > 0).double()
    return rows @ member @ columns.mT, (height[:, None] @ member @ width[:, :, None])[:, 0, 0]


def _cut(sides: Tensor, lines: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # [U, M, 2], [count + 1]
    """Along one axis: first cell in each box and first behind it ``[U, M]``, lengths of the cells ``[U, E]``, and the
    same ``[U, count, E]`` with 0 for cells that are not in the patch."""
    edges = torch.cat([lines.expand(len(sides), -1), sides.flatten(1)], dim=1).sort(dim=1).values
    first, behind = (torch.searchsorted(edges, sides[..., end].contiguous()) for end in (0, 1))
    length, middle = edges.diff(dim=1), (edges[:, 1:] + edges[:, :-1]) / 2
    patch = torch.searchsorted(lines, middle, right=True) - 1
    return first, behind, length, length[:, None] * (patch[:, None] == torch.arange(len(lines) - 1)[:, None])
