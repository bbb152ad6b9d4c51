"""The findings of several readers of one image become one: by vote, by union or by box fusion.

Rules (:data:`cxrfast.data.datasets.interface.ReaderMerge`), for one image and one class:

- ``"majority"``: present if more than half of the readers who know the class call it present; half of them is not
  enough. Boxes of different readers that overlap by IoU ≥ 0.5 are one lesion. A lesion is kept if more than half of
  these readers drew it. If the readers agree on the class but on no place, all their lesions are kept, because the
  class is somewhere.
- ``"union"``: present if any reader calls it present; all boxes are kept.
- ``"fusion"``: present if any reader calls it present; boxes are merged by weighted box fusion (Solovyev et al. 2021,
  IoU > 0.55) with equal weights. Nothing is left out.

The box of a lesion is the mean of its readers' boxes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cxrfast.data.datasets.interface import ReaderMerge
from cxrfast.data.records import Box

MAJORITY_IOU = 0.5  # the usual threshold for two boxes to be of one lesion
FUSION_IOU = 0.55  # of Solovyev et al. 2021


@dataclass(frozen=True)
class Reading:
    """What one reader says about one image."""

    present: frozenset[str]
    known: frozenset[str]  # classes that the reader was asked for
    boxes: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Consensus:
    """What the readers of one image say together."""

    present: frozenset[str]
    known: frozenset[str]
    boxes: Mapping[str, tuple[Box, ...]]
    disputed: frozenset[str]  # classes that a majority calls present, but at no place that a majority marks


def merge_readings(readings: Sequence[Reading], rule: ReaderMerge = "majority") -> Consensus:
    """The readings of one image as one, by a rule of this module. A box of a class makes it present for its reader.

    The result does not depend on the order of the readings.

    Example::

        mass = Reading(frozenset({"Mass"}), frozenset({"Mass"}), {"Mass": ((0.1, 0.1, 0.5, 0.5),)})
        none = Reading(frozenset(), frozenset({"Mass"}))
        merge_readings([mass, mass, none]).boxes  # {"Mass": ((0.1, 0.1, 0.5, 0.5),)}
    """
    if rule not in ("majority", "union", "fusion"):
        raise ValueError(f"rule: expected 'majority', 'union' or 'fusion', got {rule!r}")
    votes: dict[str, int] = {}
    for reading in readings:
        for name in reading.present | reading.boxes.keys():
            votes[name] = votes.get(name, 0) + 1
    known = frozenset().union(*(reading.known for reading in readings), votes)
    present, disputed = set(), set()
    boxes: dict[str, tuple[Box, ...]] = {}
    for name in sorted(votes):
        asked = sum(name in reading.known or name in reading.present | reading.boxes.keys() for reading in readings)
        if rule == "majority" and 2 * votes[name] <= asked:
            continue
        present.add(name)
        drawn = [(reader, box) for reader, reading in enumerate(readings) for box in reading.boxes.get(name, ())]
        if not drawn:
            continue
        if rule == "union":
            boxes[name] = tuple(sorted({box for _, box in drawn}))
        elif rule == "fusion":
            boxes[name] = _means(fuse(drawn, FUSION_IOU))
        else:
            lesions = fuse(drawn, MAJORITY_IOU, inclusive=True, once_per_reader=True)
            agreed = [lesion for lesion in lesions if 2 * len(lesion) > asked]
            if not agreed:
                disputed.add(name)
            boxes[name] = _means(agreed or lesions)
    return Consensus(frozenset(present), known, boxes, frozenset(disputed))


def fuse(
    drawn: Sequence[tuple[int, Box]], threshold: float, *, inclusive: bool = False, once_per_reader: bool = False
) -> list[list[tuple[int, Box]]]:
    """Clusters of overlapping (reader, box), as in weighted box fusion with equal scores.

    Each box in turn, large ones first, joins the cluster with whose mean box it has the largest IoU above
    ``threshold`` (or equal to it, if ``inclusive``), or begins a new one. Equal boxes of several readers go together,
    so the order of the readers does not matter. With ``once_per_reader`` a cluster has at most one box of each reader.
    """
    readers_of: dict[Box, set[int]] = {}
    for reader, box in drawn:
        readers_of.setdefault(box, set()).add(reader)
    clusters: list[list[tuple[int, Box]]] = []
    means: list[Box] = []
    for box in sorted(readers_of, key=lambda one: (-_area(one), one)):
        members = [(reader, box) for reader in sorted(readers_of[box])]
        best, place = threshold, None
        for number, mean in enumerate(means):
            if once_per_reader and any(reader in readers_of[box] for reader, _ in clusters[number]):
                continue
            overlap = _iou(box, mean)
            if overlap > best or (inclusive and place is None and overlap == best):
                best, place = overlap, number
        if place is None:
            clusters.append(members)
            means.append(box)
        else:
            clusters[place] += members
            means[place] = _mean([of for _, of in clusters[place]])
    return clusters


def _means(clusters: Sequence[Sequence[tuple[int, Box]]]) -> tuple[Box, ...]:
    return tuple(sorted({_mean([box for _, box in cluster]) for cluster in clusters}))


def _mean(boxes: Sequence[Box]) -> Box:
    """The mean of each edge; exactly the edge where all are equal."""
    left, top, right, bottom = (
        min(max(sum(edges) / len(edges), min(edges)), max(edges)) for edges in zip(*map(tuple, boxes), strict=True)
    )
    return left, top, right, bottom


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _iou(one: Box, two: Box) -> float:
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (_area(one) + _area(two) - shared)
