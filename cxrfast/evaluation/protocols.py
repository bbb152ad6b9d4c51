"""Protocols: how the papers, and cxrfast itself, measure localisation on ChestX-ray14. Each is a declarative entry.

All use the same coordinates: pixels of the original image, continuous half-open boxes, no "+1".
"""

from dataclasses import dataclass, replace
from typing import Literal

from cxrfast.errors import UsageError
from cxrfast.evaluation.ground_truth import Unit
from cxrfast.metrics.detection import Measure
from cxrfast.regions.rule import RegionRule

OPERATING_POINT = "operating point"
OWN = "the method's"
OwnThreshold = Literal["the method's"]
GroupedBy = Literal["patient", "image", "box"]


@dataclass(frozen=True)
class HitCriterion:
    """When a region is a hit: its overlap with the annotation is at least T, or exceeds T."""

    measure: Measure  # "ior" is also called IoBB: |D ∩ G| / |D|
    inclusive: bool  # ≥ T, or > T
    thresholds: tuple[float, ...]  # T

    def __str__(self) -> str:
        return f"{'IoU' if self.measure == 'iou' else 'IoR'} {'≥' if self.inclusive else '>'}"


@dataclass(frozen=True)
class Folds:
    """Folds of the annotations. Annotations of a patient stay in one fold only with ``by="patient"``, those of an image
    only by patient or image."""

    count: int
    by: GroupedBy
    pooled: bool = False  # choose one threshold for all classes, not one per class

    def __str__(self) -> str:
        return f"{self.count} folds by {self.by}{', one for all classes' if self.pooled else ''}"


@dataclass(frozen=True)
class Protocol:
    """One way to measure localisation."""

    name: str
    paper: str
    unit: Unit  # what is counted: annotated pairs of image and class, or boxes
    region: RegionRule | None  # None: the method's own
    threshold: (
        float | OwnThreshold | Folds | None
    )  # of the map; Folds: chosen on the other folds; None: levels of the region
    criteria: tuple[HitCriterion, ...]
    gates: tuple[float | str | None, ...] = (
        None,
    )  # a table for each; score that an image must exceed for its regions to count
    minmax_normalised: bool = False  # every map is first scaled to 0…1
    false_positives: bool = False  # AFP: false positive boxes / all annotated boxes
    patients_apart: bool = False  # refuse a model trained on patients of the evaluated images
    training: str = "official test list"  # training images of the published numbers
    training_folds: Folds | None = None  # folds of the published cross-validation; used by the trainer only
    training_validation: float | None = (
        None  # share of a fold's training images used for validation; None: the method's
    )

    def with_thresholds(self, *thresholds: float) -> "Protocol":
        """The same protocol with other T."""
        wrong = [t for t in thresholds if not 0 < t <= 1]
        if wrong:
            raise UsageError(f"T is {wrong[0]}; expected a value in (0, 1]")
        return replace(self, criteria=tuple(replace(c, thresholds=tuple(thresholds)) for c in self.criteria))


def both(inclusive: bool, *thresholds: float) -> tuple[HitCriterion, ...]:
    return HitCriterion("iou", inclusive, thresholds), HitCriterion("ior", inclusive, thresholds)


_TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
# "the same threshold on CAM for each disease type": read here as one threshold per disease type. It can also be read as
# one threshold for all disease types: zhang2020-pooled.
_ZHANG = Protocol(
    name="zhang2020",
    paper="Zhang et al. 2020, §4.1 and Table 2",
    unit="box",
    region=RegionRule("rectangle"),
    threshold=Folds(10, "box"),
    criteria=(HitCriterion("iou", False, (0.1, 0.3, 0.5, 0.7)),),
    minmax_normalised=True,
)

# Seibold et al. find boxes "after applying common morphological operations", of unstated kind and size. Ours: opening
# by one patch of their 16×16 map, and closing by two. Their opening was not larger: with an opening by more than one
# patch, even oracle regions find only 8 % of the 79 nodules at T = 0.5, and Table 2 has 0.10
# (tests/evaluation/test_protocols.py).
PROTOCOLS: dict[str, Protocol] = {
    entry.name: entry
    for entry in (
        Protocol(
            name="strict",
            paper="ours: nothing about the scored images is known before they are scored",
            unit="annotation",
            region=None,
            threshold=Folds(5, "patient"),
            criteria=both(True, 0.1, 0.3, 0.5, 0.7),
            gates=(None, OPERATING_POINT),
            patients_apart=True,
            training="any, without the patients of the evaluated images",
            training_folds=Folds(5, "patient"),
        ),
        Protocol(
            name="own",
            paper="ours: what the method marks, at its own threshold and behind its own gate",
            unit="annotation",
            region=None,
            threshold="the method's",
            criteria=both(True, 0.1, 0.3, 0.5, 0.7),
            gates=(OWN,),
            training="any",
        ),
        Protocol(
            name="rozenberg2019",
            paper="Rozenberg, Freedman, Bronstein 2019, §4",
            unit="annotation",
            region=RegionRule("patches"),
            threshold=0.5,
            criteria=both(True, 0.1),
            training="5 folds by image: 80 % of the annotated images and 0 % or 20 % of the others",
            training_folds=Folds(5, "image"),
            training_validation=0.0,
        ),
        Protocol(
            name="li2018",
            paper="Li et al. 2018, §4.2",
            unit="annotation",
            region=RegionRule("patches"),
            threshold=0.5,
            criteria=both(True, *_TENTHS),
            training="5 folds by image: 80 % of the annotated images and 50 % of the others",
            training_folds=Folds(5, "image"),
            training_validation=0.0,
        ),
        Protocol(
            name="seibold2020",
            paper="Seibold et al. 2020",
            unit="box",
            region=RegionRule("boxes", select="peak", opening=1 / 16, closing=1 / 8),  # see above
            threshold="the method's",
            criteria=(HitCriterion("iou", False, (0.1, 0.3, 0.5, 0.7)),),
            gates=(0.5,),
        ),
        _ZHANG,
        replace(
            _ZHANG,
            name="zhang2020-pooled",
            paper="Zhang et al. 2020, read as one threshold for all diseases",
            threshold=Folds(10, "box", pooled=True),
        ),
        Protocol(
            name="wang2017",
            paper="Wang et al. 2017, §4.2",
            unit="box",
            region=RegionRule("boxes", levels=(60 / 255, 180 / 255)),
            threshold=None,
            criteria=(
                HitCriterion("iou", False, _TENTHS),
                HitCriterion("ior", False, (0.1, 0.25, 0.5, 0.75, 0.9)),
            ),
            minmax_normalised=True,
            false_positives=True,
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name; :class:`UsageError`, listing all names, if there is none."""
    if name not in PROTOCOLS:
        raise UsageError(f"protocol is {name!r}; expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
