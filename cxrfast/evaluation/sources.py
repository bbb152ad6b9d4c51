"""Sources of regions: maps of a model, or boxes or masks from files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol as Interface

import torch
from torch import Tensor

from cxrfast.errors import UsageError
from cxrfast.evaluation.ground_truth import Units
from cxrfast.metrics.detection import Boxes, same_image_and_class, union_overlap
from cxrfast.metrics.overlap import BestOverlap, Overlap, patch_overlap
from cxrfast.predictions.masks import Mask
from cxrfast.regions.rule import RegionRule

_CHUNK = 20_000_000  # map cells per chunk


class Source(Interface):
    """Regions of images and classes, at any threshold."""

    @property
    def grid(self) -> tuple[int, int] | None:
        """P, Q of the maps; None for boxes and masks."""

    def overlaps(self, units: Units, rule: RegionRule, thresholds: Tensor) -> BestOverlap:
        """For each unit, the best overlap with the regions of its image and class; 0 without any region."""

    def boxes(self, rule: RegionRule, thresholds: Tensor) -> Boxes:
        """Boxes of all regions, as fractions of the image, each with its score."""


@dataclass(frozen=True)
class MapSource:
    """Maps of the images with any annotation."""

    images: Tensor  # [n] int64: indices of the images, ascending
    maps: Tensor  # [n, K, P, Q]
    image_size: int | None = None  # of the network's images in pixels, for rules with an opening or closing by pixels

    @property
    def grid(self) -> tuple[int, int]:
        return (self.maps.shape[2], self.maps.shape[3])

    def minmax_normalised(self) -> "MapSource":
        """Every map scaled to 0…1; a constant map becomes 0."""
        low, high = self.maps.amin(dim=(2, 3), keepdim=True), self.maps.amax(dim=(2, 3), keepdim=True)
        return replace(self, maps=torch.where(high > low, (self.maps - low) / (high - low), 0.0))

    def overlaps(self, units: Units, rule: RegionRule, thresholds: Tensor) -> BestOverlap:
        if rule.shape != "patches":
            return overlaps_with_boxes(self.boxes(rule, thresholds), units)
        iou, ior = torch.zeros(2, len(units.image), dtype=torch.float64)
        for chunk, maps in self._chunks():
            inside = torch.isin(units.image, chunk)
            masks = rule.find(maps, thresholds, image_size=self.image_size).masks
            place = torch.searchsorted(chunk, units.image[inside])
            overlap = patch_overlap(masks[place, units.class_index[inside]], units.boxes[inside], units.has_box[inside])
            iou[inside], ior[inside] = overlap.iou, overlap.ior
        return BestOverlap(iou, ior)

    def boxes(self, rule: RegionRule, thresholds: Tensor) -> Boxes:
        rule = replace(rule, shape="boxes") if rule.shape == "patches" else rule
        parts = []
        for chunk, maps in self._chunks():
            regions = rule.find(maps, thresholds, image_size=self.image_size)
            rows, columns = regions.size
            found = regions.boxes
            frame = torch.tensor([columns, rows, columns, rows], dtype=torch.float64)
            parts.append(Boxes(chunk[found.image], found.channel.long(), found.boxes.double() / frame, found.peak))
        return Boxes(*(torch.cat(column) for column in zip(*parts, strict=True))) if parts else no_boxes()

    def _chunks(self) -> list[tuple[Tensor, Tensor]]:
        """Images and their maps, in chunks."""
        step = max(1, _CHUNK // max(self.maps[0].numel(), 1) if len(self.maps) else 1)
        return list(zip(self.images.split(step), self.maps.split(step), strict=True))


@dataclass(frozen=True)
class BoxSource:
    """Boxes from files. Of a region rule only shape and selection apply; thresholds apply to the boxes' scores."""

    found: Boxes  # as fractions of the image

    @property
    def grid(self) -> None:
        return None

    def overlaps(self, units: Units, rule: RegionRule, thresholds: Tensor) -> BestOverlap:
        chosen = self._over(thresholds)
        if rule.shape == "patches" and rule.select == "all":
            return _overlaps_with_union(chosen, units)
        return overlaps_with_boxes(_reshape(chosen, rule), units)

    def boxes(self, rule: RegionRule, thresholds: Tensor) -> Boxes:
        return _reshape(self._over(thresholds), rule)

    def _over(self, thresholds: Tensor) -> Boxes:
        assert self.found.score is not None
        return _pick(self.found, self.found.score >= thresholds[self.found.class_index])


@dataclass(frozen=True)
class MaskSource:
    """Masks from files, each in the size of its image, with their bounding boxes."""

    masks: Sequence[Mask]  # [D]
    found: Boxes  # [D] bounding boxes, as fractions of the image

    @property
    def grid(self) -> None:
        return None

    def overlaps(self, units: Units, rule: RegionRule, thresholds: Tensor) -> BestOverlap:
        if rule.shape != "patches":
            return BoxSource(self.found).overlaps(units, rule, thresholds)
        assert self.found.score is not None
        chosen = self.found.score >= thresholds[self.found.class_index]
        if rule.select != "all":
            chosen &= _is_best(self.found, chosen, self.found.score)
        u, d = same_image_and_class(Boxes(units.image, units.class_index, units.boxes), self.found)
        u, d = u[chosen[d]], d[chosen[d]]
        iou, ior = torch.zeros(2, len(units.image), dtype=torch.float64)
        for unit in u.unique().tolist():
            masks = [self.masks[index] for index in d[u == unit].tolist()]
            if any(mask.size != masks[0].size for mask in masks):
                raise UsageError("masks of one image have different sizes; write all of an image in its own size")
            overlap = mask_overlap(masks, units.boxes[unit][units.has_box[unit]])
            iou[unit], ior[unit] = overlap.iou, overlap.ior
        return BestOverlap(iou, ior)

    def boxes(self, rule: RegionRule, thresholds: Tensor) -> Boxes:
        return BoxSource(self.found).boxes(rule, thresholds)


def mask_overlap(
    masks: Sequence[Mask],  # one or more, of one image
    boxes: Tensor,  # [M, 4] xyxy as fractions of the image
) -> Overlap:
    """Exact overlap of the union of the masks with the union of the boxes, in pixels. Equal to :func:`patch_overlap` on
    the grid of pixels, with less memory."""
    corners = torch.tensor([mask.box for mask in masks])
    left, top = corners[:, :2].amin(dim=0).tolist()
    right, bottom = corners[:, 2:].amax(dim=0).tolist()
    union = torch.zeros(bottom - top, right - left, dtype=torch.float64)
    for mask, (x1, y1, x2, y2) in zip(masks, corners.tolist(), strict=True):
        union[y1 - top : y2 - top, x1 - left : x2 - left][mask.inside] = 1
    height, width = masks[0].size
    # The sides of all boxes cut the image into rectangles, each entirely inside or outside of each box.
    y, rows, in_y = _strips(boxes[:, 1::2].double() * height - top, len(union))
    x, columns, in_x = _strips(boxes[:, 0::2].double() * width - left, union.shape[1])
    member = (in_y[:, :, None] & in_x[:, None, :]).any(dim=0)
    intersection = (rows @ union @ columns.T)[member].sum()
    return Overlap(intersection, union.sum(), (y.diff()[:, None] * x.diff())[member].sum())


def _strips(sides: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:  # [M, 2]
    """Along one axis: the 2M edges, ascending; the share of each of ``count`` pixels between consecutive edges,
    ``[2M − 1, count]``; and which boxes each such strip is in, bool ``[M, 2M − 1]``."""
    edges = sides.flatten().sort().values
    low, high = edges[:-1, None], edges[1:, None]
    pixel = torch.arange(count, dtype=torch.float64)
    part = (torch.minimum(high, pixel + 1) - torch.maximum(low, pixel)).clamp(min=0)
    middle = (edges[1:] + edges[:-1]) / 2
    return edges, part, (middle > sides[:, :1]) & (middle < sides[:, 1:])


def no_boxes() -> Boxes:
    none = torch.zeros(0, dtype=torch.long)
    return Boxes(none, none, torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0))


def pair_overlaps(found: Boxes, units: Units) -> tuple[Tensor, Tensor, Overlap]:
    """All pairs of a box and a unit of the same image and class: box index, unit index, overlap."""
    d, u = same_image_and_class(found, Boxes(units.image, units.class_index, units.boxes))
    alone = torch.ones(len(d), 1, dtype=torch.bool)
    return d, u, union_overlap(found.xyxy[d][:, None], alone, units.boxes[u], units.has_box[u])


def overlaps_with_boxes(found: Boxes, units: Units) -> BestOverlap:
    """The best IoU and the best IoR of each unit over all boxes, which may be different boxes."""
    _, u, overlap = pair_overlaps(found, units)
    iou, ior = torch.zeros(2, len(units.image), dtype=torch.float64)
    return BestOverlap(iou.scatter_reduce(0, u, overlap.iou, "amax"), ior.scatter_reduce(0, u, overlap.ior, "amax"))


def _overlaps_with_union(found: Boxes, units: Units) -> BestOverlap:
    u, d = same_image_and_class(Boxes(units.image, units.class_index, units.boxes), found)
    count = torch.bincount(u, minlength=len(units.image))
    has = torch.arange(max(int(count.max()) if len(count) else 0, 1)) < count[:, None]
    boxes = torch.zeros(*has.shape, 4, dtype=torch.float64)
    boxes[has] = found.xyxy[d].double()
    parts = [
        union_overlap(*part)
        for part in zip(boxes.split(64), has.split(64), units.boxes.split(64), units.has_box.split(64), strict=True)
    ]
    if not len(boxes):
        return BestOverlap(torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
    return BestOverlap(torch.cat([part.iou for part in parts]), torch.cat([part.ior for part in parts]))


def _pick(found: Boxes, chosen: Tensor) -> Boxes:
    return Boxes(*(None if column is None else column[chosen] for column in found))  # type: ignore[arg-type]


def _reshape(found: Boxes, rule: RegionRule) -> Boxes:
    """Apply selection and shape of a rule to the boxes of every image and class."""
    everything = torch.ones(len(found.xyxy), dtype=torch.bool)
    if rule.select == "peak":
        assert found.score is not None
        found = _pick(found, _is_best(found, everything, found.score))
    elif rule.select == "largest":
        area = (found.xyxy[:, 2:] - found.xyxy[:, :2]).prod(dim=1)
        found = _pick(found, _is_best(found, everything, area))
    if rule.shape != "rectangle" or not len(found.xyxy):
        return found
    classes = int(found.class_index.max()) + 1
    key, place = (found.image * classes + found.class_index).unique(return_inverse=True)
    wide = place[:, None].expand(-1, 2)
    low = torch.full((len(key), 2), torch.inf, dtype=torch.float64)
    low = low.scatter_reduce(0, wide, found.xyxy[:, :2].double(), "amin")
    high = (-torch.full_like(low, torch.inf)).scatter_reduce(0, wide, found.xyxy[:, 2:].double(), "amax")
    assert found.score is not None
    score = torch.zeros(len(key), dtype=found.score.dtype).scatter_reduce(
        0, place, found.score, "amax", include_self=False
    )
    return Boxes(key // classes, key % classes, torch.cat([low, high], dim=1), score)


def _is_best(found: Boxes, among: Tensor, rank: Tensor) -> Tensor:
    """[D] bool: the box of the highest rank of its image and class; of equal ones, the first."""
    best = torch.zeros(len(among), dtype=torch.bool)
    seen: set[tuple[int, int]] = set()
    candidates = among.nonzero()[:, 0]
    order = candidates[rank[candidates].argsort(descending=True, stable=True)]
    for index in order.tolist():
        pair = (int(found.image[index]), int(found.class_index[index]))
        best[index] = pair not in seen
        seen.add(pair)
    return best
