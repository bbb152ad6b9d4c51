"""How the papers measure localisation on ChestX-ray14, each as a small declarative entry, and how cxrfast does.

The frame is the same for all: pixels of the original image, continuous half-open boxes, no "+1".
"""

from dataclasses import dataclass, replace
from typing import Literal

from cxrfast.errors import UsageError
from cxrfast.metrics.detection import Measure
from cxrfast.regions.rule import RegionRule

OPERATING_POINT = "operating point"
OWN = "the method's"
OwnThreshold = Literal["the method's"]


@dataclass(frozen=True)
class HitCriterion:
    """When a region hits: an overlap that is at least T, or one that exceeds it."""

    measure: Measure  # "ior" is also called IoBB: |D ∩ G| / |D|
    inclusive: bool  # ≥ T, or > T
    thresholds: tuple[float, ...]  # T

    def __str__(self) -> str:
        return f"{'IoU' if self.measure == 'iou' else 'IoR'} {'≥' if self.inclusive else '>'}"


@dataclass(frozen=True)
class Folds:
    """Parts of the annotations. Images of a patient stay together only ``by="patient"``, and the boxes of an image only
    by patient or image."""

    count: int
    by: Literal["patient", "image", "box"]
    pooled: bool = False  # what they choose is one for all classes, not one for each

    def __str__(self) -> str:
        return f"{self.count} folds by {self.by}{', one for all classes' if self.pooled else ''}"


@dataclass(frozen=True)
class Protocol:
    """One way to say how well a model localises."""

    name: str
    paper: str
    unit: Literal["annotation", "box"]  # the denominator: pairs of image and class with a box, or boxes
    region: RegionRule | None  # None: the method's own
    threshold: float | OwnThreshold | Folds | None  # of the map; Folds: chosen on the other folds; None: levels
    criteria: tuple[HitCriterion, ...]
    gates: tuple[float | str | None, ...] = (None,)  # score an image must exceed for a region of the class to count
    minmax_normalised: bool = False  # every map is first min-max normalised, as heat maps are
    false_positives: bool = False  # AFP: false positive boxes / all annotated boxes
    patients_apart: bool = False  # refuse a model that has seen patients of the evaluated images
    training: str = "official test list"  # which images the published numbers are on
    training_folds: Folds | None = None  # the same, where training goes by cross-validation; by the trainer, not here
    training_validation: float | None = None  # share of what a fold may train on that validates; None: the method's

    def with_thresholds(self, *thresholds: float) -> "Protocol":
        """The same protocol with other T."""
        wrong = [t for t in thresholds if not 0 < t <= 1]
        if wrong:
            raise UsageError(f"T is {wrong[0]}; expected a value in (0, 1]")
        return replace(self, criteria=tuple(replace(c, thresholds=tuple(thresholds)) for c in self.criteria))


def both(inclusive: bool, *thresholds: float) -> tuple[HitCriterion, ...]:
    return HitCriterion("iou", inclusive, thresholds), HitCriterion("ior", inclusive, thresholds)


_TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
# "the same threshold on CAM for each disease type": one for every disease type, the same for all of its images. It can
# also be read as the same for all disease types, which zhang2020-pooled is.
_ZHANG = Protocol(
    name="zhang2020",
    paper="Zhang et al. 2020, §4.1 and Table 2",
    unit="box",
    region=RegionRule("rectangle"),
    threshold=Folds(10, "box"),
    criteria=(HitCriterion("iou", False, (0.1, 0.3, 0.5, 0.7)),),
    minmax_normalised=True,
)

# Seibold et al. find boxes "after applying common morphological operations", of no stated kind or size. Ours: what one
# patch of their 16×16 map does not fit into is removed, and gaps that two do not fit into are filled. The opening was
# not larger: if it asked for more than a patch, a perfect region would find 8 % of the 79 nodules at T = 0.5, and they
# print 0.10 (tests/evaluation/test_protocols.py).
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
    """The entry of that name; :class:`UsageError` lists the names there are."""
    if name not in PROTOCOLS:
        raise UsageError(f"protocol is {name!r}; expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
