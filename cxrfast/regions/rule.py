"""Region rules: from a map of patch scores to the regions that `localize` draws and `evaluate` scores."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cxrfast.errors import UsageError
from cxrfast.ops import connected_components
from cxrfast.ops.components import ComponentBoxes, component_boxes

Select = Literal["all", "largest", "peak"]
Shape = Literal["patches", "boxes", "rectangle"]

_SELECTED = {"all": "every component", "largest": "the largest component", "peak": "the component of the maximum"}


@dataclass(frozen=True)
class RegionRule:
    """How the regions of a class follow from its map and its threshold.

    Patches with a value of at least the threshold are positive. Then, in this order:

    1. ``opening`` and ``closing`` apply a morphological opening, then a closing, to the positive patches of the
       nearest-neighbour upsampled map, with a square of that side; the result consists of whole patches. A side is a
       number of image pixels or, below 1, a share of the image's side; 0 does nothing.
    2. ``select`` keeps all connected components (8 neighbours), the largest, or the one with the highest value.
    3. ``shape`` is what is compared with an annotation: ``"patches"``, the union of the patches (Li 2018, Rozenberg
       2019); ``"boxes"``, the bounding box of each component, any of which may match (Wang 2017; with ``select="peak"``
       Seibold 2020); ``"rectangle"``, one box around all components (Zhang 2020).

    ``levels`` replaces the threshold by several fixed ones, each with its own regions (Wang 2017). ``gate`` is a score
    that the image must exceed for the class to have any region (Seibold 2020); None: no gate.
    """

    shape: Shape = "patches"
    select: Select = "all"
    opening: float = 0
    closing: float = 0
    levels: tuple[float, ...] = ()
    gate: float | None = None

    def __post_init__(self) -> None:
        for name in ("opening", "closing"):
            if not 0 <= (side := getattr(self, name)) < math.inf:
                raise UsageError(f"{name}: expected a number of pixels or a share of the image's side, got {side}")
        if self.levels and self.shape == "patches":
            raise UsageError("levels: expected shape 'boxes' or 'rectangle'; several unions of patches are no region")

    def __str__(self) -> str:
        where = " or ".join(f"{level:.3g}" for level in self.levels) if self.levels else "the threshold"
        text = {
            "patches": f"patches of {_SELECTED[self.select]}",
            "boxes": f"box around {_SELECTED[self.select]}",
            "rectangle": f"one box around {_SELECTED[self.select]}",
        }[self.shape]
        shaped = f", opened by {_side(self.opening)}" if self.opening else ""
        shaped += f", closed by {_side(self.closing)}" if self.closing else ""
        gated = f", where the score is over {self.gate:g}" if self.gate is not None else ""
        return f"{text}, map ≥ {where}{shaped}{gated}"

    @property
    def needs_image_size(self) -> bool:
        """Whether a side is given in pixels."""
        return self.opening > 1 or self.closing > 1

    def square(self, side: float, grid: tuple[int, int], image_size: int | None) -> tuple[int, int]:
        """The square of an opening or closing in patches of a P×Q grid: rows and columns; (1, 1) does nothing.

        Patches are rectangles of equal size, not necessarily of whole pixels.
        """
        if side > 1 and image_size is None:
            raise ValueError("image_size: expected the number of pixels, because the rule has an opening or a closing")
        share = side / image_size if side > 1 and image_size is not None else side if side < 1 else 0.0
        rows, columns = (max(1, math.ceil(share * count - 1e-9)) for count in grid)
        return rows, columns

    def find(
        self,
        maps: Tensor,  # [B, K, P, Q]
        thresholds: Tensor,  # [K]
        *,
        scores: Tensor | None = None,  # [B, K], needed for a gate
        image_size: int | None = None,  # of the image in pixels, needed for an opening or closing by pixels
    ) -> "Regions":
        """The regions of every image and class."""
        levels = [torch.full_like(thresholds, level) for level in self.levels] or [thresholds]
        found = [self._level(maps, level.to(maps), scores, image_size) for level in levels]
        boxes = ComponentBoxes(*(torch.cat(column) for column in zip(*(level.boxes for level in found), strict=True)))
        return Regions(boxes, found[0].masks, found[0].size, self.shape)

    def _level(self, maps: Tensor, thresholds: Tensor, scores: Tensor | None, image_size: int | None) -> "Regions":
        positive = maps >= thresholds[:, None, None]
        if self.gate is not None:
            if scores is None:
                raise ValueError("scores: expected [B, K], because the rule has a gate")
            positive &= (scores > self.gate)[:, :, None, None]
        grid = (maps.shape[-2], maps.shape[-1])
        positive = _open(positive, self.square(self.opening, grid, image_size))
        positive = _close(positive, self.square(self.closing, grid, image_size))
        if self.select != "all":
            positive = _select(maps, positive, self.select)
        # Negative values elsewhere, so that the operator finds exactly the positive patches.
        inside = torch.where(positive, maps, -1.0)
        everything = torch.zeros_like(thresholds)
        boxes = component_boxes(inside, everything)
        if self.shape == "rectangle":
            boxes = _enclose(inside, positive)
        return Regions(boxes, positive, grid, self.shape)


@dataclass(frozen=True)
class Regions:
    """Regions of B images and K classes on a grid of P×Q patches."""

    boxes: ComponentBoxes  # one row per box, in patches; ordered by level
    masks: Tensor  # [B, K, P, Q] bool: the selected patches, of the first level
    size: tuple[int, int]  # P, Q
    shape: Shape

    def candidates(self, image: Tensor, channel: Tensor) -> Tensor:  # [N], [N] -> [N, C, P, Q] bool
        """The regions of each pair (image, channel), any of which may match; padded to C with empty ones."""
        if self.shape == "patches":
            return self.masks[image, channel][:, None]
        rows, columns = self.size
        device = self.masks.device
        key = self.boxes.image * self.masks.shape[1] + self.boxes.channel
        own = (image * self.masks.shape[1] + channel).to(device)[:, None] == key  # [N, boxes]
        most = int(own.sum(1).max()) if own.numel() else 0
        masks = torch.zeros(len(image), max(most, 1), rows, columns, dtype=torch.bool, device=device)
        pair, box = own.nonzero(as_tuple=True)
        place = (own.cumsum(1) - 1)[pair, box]
        corners = self.boxes.boxes[box].to(device)
        y, x = torch.arange(rows, device=device), torch.arange(columns, device=device)
        in_y = (y >= corners[:, 1:2]) & (y < corners[:, 3:4])
        in_x = (x >= corners[:, 0:1]) & (x < corners[:, 2:3])
        masks[pair, place] = in_y[:, :, None] & in_x[:, None, :]
        return masks


def _select(maps: Tensor, positive: Tensor, select: Select) -> Tensor:  # [B, K, P, Q] -> [B, K, P, Q] bool
    """The largest component, or the one with the highest value; of equal ones, the first in scan order."""
    labels = connected_components(positive).long().flatten(2)
    rank = torch.ones(labels.shape, device=maps.device) if select == "largest" else maps.flatten(2)
    best = rank.new_full((*labels.shape[:2], int(labels.max()) + 1 if labels.numel() else 1), -torch.inf)
    best.scatter_reduce_(2, labels, rank, "sum" if select == "largest" else "amax", include_self=select == "peak")
    best[..., 0] = -torch.inf
    return ((labels == best.argmax(dim=2, keepdim=True)) & (labels > 0)).unflatten(2, maps.shape[2:])


def _enclose(
    inside: Tensor,  # [B, K, P, Q], negative outside the region
    positive: Tensor,  # [B, K, P, Q] bool
) -> ComponentBoxes:
    """One box around all positive patches of an image and class."""
    rows, columns = positive.any(dim=3).to(torch.uint8), positive.any(dim=2).to(torch.uint8)
    image, channel = rows.any(dim=2).nonzero(as_tuple=True)
    rows, columns = rows[image, channel], columns[image, channel]
    y0, x0 = rows.argmax(dim=1), columns.argmax(dim=1)
    y1, x1 = rows.shape[1] - rows.flip(1).argmax(dim=1), columns.shape[1] - columns.flip(1).argmax(dim=1)
    values, members = inside[image, channel], positive[image, channel]
    area = members.sum(dim=(1, 2))
    total = torch.where(members, values, 0.0).sum(dim=(1, 2), dtype=torch.float64)
    return ComponentBoxes(
        boxes=torch.stack([x0, y0, x1, y1], dim=1).float(),
        peak=values.flatten(1).amax(dim=1) if len(values) else values.new_empty(0),
        mean=(total / area).to(inside.dtype),
        area=area,
        image=image,
        channel=channel,
    )


def _side(side: float) -> str:
    return f"{side:g} pixels" if side >= 1 else f"{100 * side:g} % of the side"


def _open(
    mask: Tensor,  # [B, K, P, Q] bool
    square: tuple[int, int],  # rows, columns
) -> Tensor:  # [B, K, P, Q] bool
    """Opening: the union of all squares of whole patches that lie in the mask.

    Whole patches suffice: a square at any position in a union of patches lies in a square of whole patches, which is
    covered by such squares.
    """
    if square == (1, 1):
        return mask
    rows, columns = square
    if rows > mask.shape[-2] or columns > mask.shape[-1]:
        return torch.zeros_like(mask)
    fits = 1 - F.max_pool2d((~mask).float(), square, stride=1)
    padded = F.pad(fits, (columns - 1, columns - 1, rows - 1, rows - 1))
    return F.max_pool2d(padded, square, stride=1) > 0


def _close(mask: Tensor, square: tuple[int, int]) -> Tensor:  # [B, K, P, Q] bool
    """Closing: the complement of an opening of the complement, with padding outside of the image."""
    if square == (1, 1):
        return mask
    rows, columns = square
    others = F.pad(~mask, (columns, columns, rows, rows), value=True)
    return ~_open(others, square)[..., rows:-rows, columns:-columns]


@dataclass(frozen=True)
class MethodDefaults:
    """Defaults of a method: region rule, map thresholds and operating points."""

    rule: RegionRule
    thresholds: Tensor  # [K]
    operating_points: Tensor  # [K]
