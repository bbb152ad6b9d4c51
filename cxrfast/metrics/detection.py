"""Detection measures of boxes with scores: average precision and FROC. Also the pointing game.

Boxes are continuous and half-open, without "+1", as everywhere in cxrfast.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cxrfast.metrics.overlap import TIE, Overlap

Measure = Literal["iou", "ior"]

FROC_RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""False positives per image at which an FROC curve is usually read (LUNA16)."""


class Boxes(NamedTuple):
    """Boxes of many images and classes, annotated (``score`` is None) or predicted."""

    image: Tensor  # [D] int64: index of the image
    class_index: Tensor  # [D] int64
    xyxy: Tensor  # [D, 4]: in the same coordinates for annotated and predicted boxes
    score: Tensor | None = None  # [D]


def boxes_of_known_labels(
    boxes: Boxes,
    known: Tensor,  # [N, K] bool: whether image n is known to have, or not to have, class k
) -> Boxes:
    """The boxes of pairs of image and class with a known label.

    Where a label is unknown, a predicted box is neither a true nor a false positive. Call this for predicted and
    annotated boxes, and pass ``known.sum(dim=0)`` to :func:`froc` as the number of images. A box that is annotated
    makes the label known, so no annotated box should be lost.
    """
    kept = known.cpu()[boxes.image, boxes.class_index]
    score = None if boxes.score is None else boxes.score[kept]
    return Boxes(boxes.image[kept], boxes.class_index[kept], boxes.xyxy[kept], score)


def box_overlap(
    first: Tensor,  # [N, 4] xyxy
    second: Tensor,  # [N, 4] xyxy
) -> Overlap:
    """Exact overlap of N predicted boxes with N annotated ones."""
    first, second = first.detach().cpu().double(), second.detach().cpu().double()
    sides = torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])
    return Overlap(sides.clamp(min=0).prod(dim=1), _area(first), _area(second))


def same_image_and_class(first: Boxes, second: Boxes) -> tuple[Tensor, Tensor]:
    """Indices [pairs], [pairs] of all pairs of boxes in ``first`` and ``second`` with the same image and class."""
    classes = 1 + max((int(boxes.class_index.max()) for boxes in (first, second) if len(boxes.class_index)), default=0)
    return join(first.image * classes + first.class_index, second.image * classes + second.class_index)


def join(
    first: Tensor,  # [D] int64
    second: Tensor,  # [G] int64
) -> tuple[Tensor, Tensor]:
    """All index pairs (d, g) with ``first[d] == second[g]``, ordered by d, then g."""
    key, order = second.sort(stable=True)
    start, end = torch.searchsorted(key, first), torch.searchsorted(key, first, right=True)
    count = end - start
    left = torch.arange(len(first)).repeat_interleave(count)
    offset = torch.arange(len(left)) - (count.cumsum(0) - count).repeat_interleave(count)
    return left, order[start.repeat_interleave(count) + offset]


def match_boxes(
    predicted: Boxes,
    annotated: Boxes,
    threshold: float,  # T
    *,
    measure: Measure = "iou",
) -> Tensor:  # [D] bool
    """Which predicted boxes are true positives.

    Greedy matching as in COCO: from the highest score down (ties in the order of the list), each prediction takes the
    annotated box of its class and image that it overlaps most, among those not taken yet, if the overlap is at least T
    (within 1e-6). All other predictions are false positives, including a second prediction of the same box.
    """
    score = _scores(predicted)
    d, g = same_image_and_class(predicted, annotated)
    overlap = getattr(box_overlap(predicted.xyxy[d], annotated.xyxy[g]), measure)
    near = overlap >= threshold - TIE
    d, g, overlap = d[near], g[near], overlap[near]
    place = torch.empty(len(score), dtype=torch.long)
    place[score.argsort(descending=True, stable=True)] = torch.arange(len(score))
    # By prediction, best score first; of one prediction, the largest overlap first.
    order = overlap.argsort(descending=True, stable=True)
    order = order[place[d[order]].argsort(stable=True)]
    hit, taken = [False] * len(score), [False] * len(annotated.xyxy)
    for predicted_index, annotated_index in zip(d[order].tolist(), g[order].tolist(), strict=True):
        if not hit[predicted_index] and not taken[annotated_index]:
            hit[predicted_index] = taken[annotated_index] = True
    return torch.tensor(hit, dtype=torch.bool)


def box_average_precision(
    predicted: Boxes,
    annotated: Boxes,
    num_classes: int,  # K
    thresholds: Sequence[float] = (0.1, 0.3, 0.5),  # [T]
    *,
    measure: Measure = "iou",
) -> Tensor:  # [T, K] float64
    """Average precision of boxes, per T and class; its mean over classes is "mAP at T".

    The area under the precision-recall curve with monotonically decreasing precision (PASCAL VOC since 2010). Boxes of
    equal scores enter the curve together. NaN for a class without annotated boxes, 0 for one without predicted boxes.
    :func:`match_boxes` decides which predictions are true positives.
    """
    score = _scores(predicted)
    total = torch.bincount(annotated.class_index, minlength=num_classes)
    result = torch.full((len(thresholds), num_classes), torch.nan, dtype=torch.float64)
    for row, threshold in zip(result, thresholds, strict=True):
        hit = match_boxes(predicted, annotated, threshold, measure=measure)
        for k in total.nonzero()[:, 0].tolist():
            of_class = predicted.class_index == k
            hits, called = _curve(score[of_class], hit[of_class])
            precision = (hits / called).flip(0).cummax(0).values.flip(0) if len(hits) else hits
            row[k] = (hits.diff(prepend=hits.new_zeros(1)) * precision).sum() / total[k]
    return result


class FROC(NamedTuple):
    """Free-response ROC: sensitivity to annotated boxes against false positives per image."""

    sensitivity: Tensor  # [K, rates] float64: with at most that many false positives per image; NaN without boxes
    mean: Tensor  # [K] float64: over the rates, the "competition performance metric"
    curves: list[tuple[Tensor, Tensor]]  # per class: false positives per image, sensitivity; from the highest score


def froc(
    predicted: Boxes,
    annotated: Boxes,
    num_classes: int,  # K
    num_images: int | Tensor,  # evaluated images, or [K] of each class
    threshold: float,  # T
    *,
    rates: Sequence[float] = FROC_RATES,
    measure: Measure = "iou",
) -> FROC:
    """FROC of every class over all ``num_images`` evaluated images, including those without a box.

    If some labels are unknown, the images of a class are those with a known label (:func:`boxes_of_known_labels`).
    The sensitivity at a rate is the largest on the curve at up to that rate, without interpolation.
    """
    score, hit = _scores(predicted), match_boxes(predicted, annotated, threshold, measure=measure)
    total = torch.bincount(annotated.class_index, minlength=num_classes)
    limits = torch.tensor(rates, dtype=torch.float64)
    images = torch.as_tensor(num_images).cpu().expand(num_classes)
    sensitivity = torch.full((num_classes, len(limits)), torch.nan, dtype=torch.float64)
    curves = []
    for k in range(num_classes):
        of_class = predicted.class_index == k
        hits, called = _curve(score[of_class], hit[of_class])
        zero = torch.zeros(1, dtype=torch.float64)
        false, found = torch.cat([zero, (called - hits) / images[k]]), torch.cat([zero, hits / total[k]])
        curves.append((false, found))
        if total[k]:
            sensitivity[k] = torch.where(false[:, None] <= limits, found[:, None], 0.0).amax(dim=0)
    return FROC(sensitivity, sensitivity.mean(dim=1), curves)


def pointing_game(
    maps: Tensor,  # [N, P, Q]
    boxes: Tensor,  # [N, M, 4] xyxy as fractions of the image
    has_box: Tensor,  # [N, M] bool
    *,
    tolerance: float = 0.0,
) -> Tensor:  # [N] float64
    """1 if the maximum of the map is in the annotation, else 0 (Zhang et al. 2018). If the map has several maxima, the
    share of them in the annotation.

    The position of a maximum is the centre of its cell. ``tolerance`` widens each box on all sides, as a fraction of
    the image's side. A constant map gets the share of its cells in the box, which is chance level.
    """
    rows, columns = maps.shape[1:]
    maps, boxes, has_box = maps.detach().cpu(), boxes.detach().cpu().double(), has_box.cpu()
    y = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    x = (torch.arange(columns, dtype=torch.float64) + 0.5) / columns
    low, high = boxes[..., :2] - tolerance, boxes[..., 2:] + tolerance
    in_x = (x >= low[..., :1]) & (x < high[..., :1])  # [N, M, Q]
    in_y = (y >= low[..., 1:]) & (y < high[..., 1:])
    inside = (in_y[..., :, None] & in_x[..., None, :] & has_box[..., None, None]).any(dim=1)
    top = maps == maps.amax(dim=(1, 2), keepdim=True)
    return (top & inside).sum(dim=(1, 2)) / top.sum(dim=(1, 2)).double()


def union_overlap(
    predicted: Tensor,  # [N, C, 4] xyxy
    has_predicted: Tensor,  # [N, C] bool
    boxes: Tensor,  # [N, M, 4] xyxy
    has_box: Tensor,  # [N, M] bool
) -> Overlap:
    """Exact overlap of the union of up to C predicted boxes with the union of up to M annotated ones."""
    both = torch.cat([predicted.detach().cpu().double(), boxes.detach().cpu().double()], dim=1)
    has = torch.cat([has_predicted.cpu(), has_box.cpu()], dim=1)
    # Cut the plane along all sides: every cell is entirely inside or outside of each box.
    (width, in_x), (height, in_y) = (_cells(both[..., axis::2]) for axis in (0, 1))
    area = height[:, :, None] * width[:, None, :]
    member = in_y[..., :, None] & in_x[..., None, :] & has[..., None, None]
    first = member[:, : predicted.shape[1]].any(dim=1)
    second = member[:, predicted.shape[1] :].any(dim=1)
    return Overlap(*((area * cells).sum(dim=(1, 2)) for cells in (first & second, first, second)))


def _cells(sides: Tensor) -> tuple[Tensor, Tensor]:  # [N, B, 2] -> [N, E], bool [N, B, E]
    """Lengths of the cells along one axis, and which boxes they are in."""
    edges = sides.flatten(1).sort(dim=1).values
    middle = ((edges[:, 1:] + edges[:, :-1]) / 2)[:, None]
    return edges.diff(dim=1), (middle > sides[..., :1]) & (middle < sides[..., 1:])


def _curve(score: Tensor, hit: Tensor) -> tuple[Tensor, Tensor]:
    """Number of true positives and of predictions with at least each distinct score, from the highest down."""
    _, place = score.unique(return_inverse=True)
    count = int(place.max()) + 1 if len(place) else 0
    hits, called = torch.bincount(place[hit], minlength=count), torch.bincount(place, minlength=count)
    return hits.flip(0).cumsum(0).double(), called.flip(0).cumsum(0).double()


def _scores(predicted: Boxes) -> Tensor:
    if predicted.score is None or predicted.score.isnan().any():
        raise ValueError("predicted: expected a score, a number, for every box")
    return predicted.score.detach().cpu()


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)
