"""Fits the map threshold of each class: the one whose regions overlap best with given boxes."""

from typing import NamedTuple

import torch
from torch import Tensor

from cxrfast.metrics.overlap import BestOverlap, best_overlap
from cxrfast.regions.prediction import Prediction
from cxrfast.regions.rule import RegionRule

LEVELS = torch.linspace(0.05, 0.95, 19)
MINIMUM = 3  # smallest number of boxes of a class; with fewer, the boxes of all classes are used
_CHUNK = 64  # pairs per chunk


class AnnotatedMaps(NamedTuple):
    """Maps and scores of a model on the N pairs of image and class that have a box."""

    class_index: Tensor  # [N]
    maps: Tensor  # [N, P, Q] in [0, 1]
    scores: Tensor  # [N]
    boxes: Tensor  # [N, M, 4] xyxy as fractions of the image
    has_box: Tensor  # [N, M] bool

    def overlap(self, rule: RegionRule, thresholds: Tensor, image_size: int) -> BestOverlap:  # [N] -> [N]
        """Overlap of a rule's regions with the boxes, with one threshold for each pair."""
        parts = [
            self._chunk(slice(first, first + _CHUNK), rule, thresholds, image_size)
            for first in range(0, len(self.maps), _CHUNK)
        ]
        nothing = torch.empty(0, dtype=torch.float64)
        return BestOverlap(*map(torch.cat, zip(*parts, strict=True))) if parts else BestOverlap(nothing, nothing)

    def _chunk(self, chunk: slice, rule: RegionRule, thresholds: Tensor, image_size: int) -> BestOverlap:
        maps, scores = self.maps[chunk][None], self.scores[chunk][None]  # pairs become channels of one image
        regions = rule.find(maps, thresholds[chunk], scores=scores, image_size=image_size)
        channel = torch.arange(maps.shape[1])
        candidates = regions.candidates(torch.zeros_like(channel), channel)
        return best_overlap(candidates, self.boxes[chunk], self.has_box[chunk])


def annotated_maps(
    prediction: Prediction,  # of B images
    boxes: Tensor,  # [B, K, M, 4] fractions
    has_box: Tensor,  # [B, K, M] bool
) -> AnnotatedMaps:
    """The annotated pairs of a batch, on the CPU, ordered by image, then by class."""
    boxed = has_box.any(dim=-1).cpu()
    scores, maps = prediction.scores.float().cpu(), prediction.maps.float().cpu()
    return AnnotatedMaps(boxed.nonzero()[:, 1], maps[boxed], scores[boxed], boxes.cpu()[boxed], has_box.cpu()[boxed])


def fit_map_thresholds(
    rule: RegionRule,
    annotated: AnnotatedMaps,
    default: Tensor,  # [K], without enough boxes
    image_size: int,
) -> Tensor:  # [K]
    """Per class, the value of `LEVELS` with the largest mean IoU; of several, the middle one.

    A class with fewer than `MINIMUM` boxes gets the value that is best for the boxes of all classes. If these are fewer
    than `MINIMUM` too, every class keeps its default.
    """
    count = len(annotated.class_index)
    if count < MINIMUM:
        return default.clone()
    iou = torch.stack([annotated.overlap(rule, level.expand(count), image_size).iou for level in LEVELS])  # [levels, N]
    result = torch.full_like(default, _best(iou).item())
    for k in range(len(default)):
        own = annotated.class_index == k
        if own.sum() >= MINIMUM:
            result[k] = _best(iou[:, own])
    return result


def _best(iou: Tensor) -> Tensor:  # [levels, N] -> []
    mean = iou.mean(dim=1)
    best = (mean >= mean.max() - 1e-9).nonzero().flatten()
    return LEVELS[best[len(best) // 2]]
