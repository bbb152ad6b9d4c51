"""One evaluation as it is stored: typed, complete, and the same for everybody who reads it.

`evaluation-<split>.json` holds an :class:`EvaluationRecord`. NaN, a number that the data do not give, is `null` there.
"""

import json
import math
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from cxrfast._files import write_text
from cxrfast.errors import CxrfastError
from cxrfast.metrics.calibration import ReliabilityCurve
from cxrfast.metrics.classification import Mean
from cxrfast.metrics.detection import Measure
from cxrfast.regions.rule import RegionRule

SCHEMA_VERSION = 2
"""Of the files. Version 1 had no number; its gates and thresholds were text."""

Number = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: None if math.isnan(value) else value, return_type=float | None),
]
"""A float whose NaN is `null` in JSON."""
Limits = tuple[Number, Number]
"""The two ends of a 95 % interval."""


class Part(BaseModel):
    """A part of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class StoredRecord(Part):
    """A record with a file of its own."""

    schema_version: Literal[2] = 2

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

    def save(self, path: str | os.PathLike) -> None:
        """Write the JSON to ``path``, whole or not at all."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Read a file of :meth:`save`.

        Raises :class:`CxrfastError`, in one line, for a file that is missing, damaged, or of another version.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CxrfastError(f"{path} cannot be read ({error}); evaluate again") from error
        if not isinstance(content, dict):
            raise CxrfastError(f"{path}: expected an object, got {type(content).__name__}; evaluate again")
        version = content.get("schema_version", 1)
        if version != SCHEMA_VERSION:
            raise CxrfastError(
                f"{path} is an evaluation of schema version {version}; this cxrfast reads version {SCHEMA_VERSION}; "
                "evaluate again"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            problem = first_problem(error)
            raise CxrfastError(f"{path} is not an evaluation of this version ({problem}); evaluate again") from error


def first_problem(error: ValidationError) -> str:
    """Where a record is wrong first, and how."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'record'}: {first['msg']}"


# What opens a region: gates, and thresholds of the map


class NoGate(Part):
    """A class may have a region on every image."""

    kind: Literal["none"] = "none"

    def __str__(self) -> str:
        return ""


class ScoreGate(Part):
    """A class has a region where its image score exceeds ``score``."""

    kind: Literal["score"] = "score"
    score: float

    def __str__(self) -> str:
        return f"score > {self.score:g}"


class OperatingPointGate(Part):
    """A class has a region where its image score reaches the operating point of the class."""

    kind: Literal["operating_point"] = "operating_point"

    def __str__(self) -> str:
        return "score ≥ the operating point"


Gate = Annotated[NoGate | ScoreGate | OperatingPointGate, Field(discriminator="kind")]


class FixedThreshold(Part):
    """One value for every class."""

    kind: Literal["fixed"] = "fixed"
    value: float

    def __str__(self) -> str:
        return f"{self.value:g}"


class MethodThreshold(Part):
    """The method's own, per class."""

    kind: Literal["method"] = "method"

    def __str__(self) -> str:
        return "the method's own"


class FoldsThreshold(Part):
    """Chosen on the other folds of the annotations, per class or (``pooled``) for all classes."""

    kind: Literal["folds"] = "folds"
    count: int
    by: Literal["patient", "image", "box"]
    pooled: bool

    def __str__(self) -> str:
        of = "one for all classes" if self.pooled else "per class"
        return f"{of}, chosen by {self.count} folds by {self.by} without the scored fold"


class FixedLevels(Part):
    """The region rule has levels of its own."""

    kind: Literal["levels"] = "levels"

    def __str__(self) -> str:
        return "fixed levels"


Threshold = Annotated[FixedThreshold | MethodThreshold | FoldsThreshold | FixedLevels, Field(discriminator="kind")]


# The numbers


class MeanRecord(Part):
    """A mean over classes, and the classes that have no number and are not in it."""

    value: Number
    left_out: tuple[str, ...]
    interval: Limits | None = None

    @classmethod
    def of(cls, mean: Mean) -> "MeanRecord":
        return cls(value=mean.value, left_out=mean.left_out, interval=mean.interval)


class ReliabilityBin(Part):
    """The images whose probability lies in one bin."""

    probability: float  # mean
    frequency: float  # share of them that are positive
    images: int

    @classmethod
    def all_of(cls, curve: ReliabilityCurve | None, k: int) -> "tuple[ReliabilityBin, ...]":
        """The bins of class k that have images."""
        return () if curve is None else tuple(cls.model_validate(entry) for entry in curve.filled(k))


class ClassRecord(Part):
    """The image scores of one class."""

    n_positive: int
    n_negative: int
    n_annotated: int
    operating_point: Number
    auroc: Number
    auroc_interval: Limits
    average_precision: Number
    average_precision_interval: Limits
    ece: Number = math.nan  # NaN where the scores are no probabilities
    ece_calibrated: Number = math.nan
    temperature: Number = math.nan
    reliability: tuple[ReliabilityBin, ...] = ()


class MeanScores(Part):
    """The image scores as means over classes."""

    auroc: MeanRecord
    average_precision: MeanRecord


class AccuracyRecord(Part):
    """Found annotations of one class at one T."""

    accuracy: Number
    low: Number
    high: Number
    hits: int
    oracle: Number = math.nan  # of the best region on the grid; NaN where regions are on no grid
    false_positives: int | None = None  # None: the protocol does not count them
    afp: Number = math.nan


class AccuracyRow(Part):
    """One T."""

    T: float
    mean: MeanRecord
    classes: dict[str, AccuracyRecord]


class TableHead(Part):
    """Which overlap counts, how it is compared with T, and where regions count at all."""

    measure: Measure
    inclusive: bool
    gate: Gate

    @property
    def relation(self) -> str:
        return "≥" if self.inclusive else ">"

    @property
    def measure_name(self) -> str:
        return "IoU" if self.measure == "iou" else "IoR"


class AccuracyTableRecord(TableHead):
    """Found annotations by one measure, behind one gate."""

    rows: tuple[AccuracyRow, ...]


class AnnotationRecord(Part):
    """One annotation that was scored, before any gate."""

    image: str
    class_name: str
    boxes: tuple[tuple[float, float, float, float], ...]  # xyxy as fractions of the image
    fold: int  # row of LocalizationRecord.thresholds
    iou: float
    ior: float


class LocalizationHead(Part):
    """What was scored, and how."""

    paper: str
    unit: Literal["annotation", "box"]
    rule: RegionRule
    minmax_normalised: bool  # every map was first scaled to 0…1
    threshold: Threshold
    published_on: str  # which images the protocol's published numbers are on


class LocalizationRecord(LocalizationHead):
    """Where: all tables of the protocol, the thresholds that it chose, and every annotation."""

    thresholds: tuple[dict[str, Number], ...]  # one row for each fold, or one for all
    fallbacks: int  # annotations scored at the method's own threshold: no other fold has their class
    grid: tuple[int, int] | None
    tables: tuple[AccuracyTableRecord, ...]
    annotations: tuple[AnnotationRecord, ...]

    def threshold_of(self, annotation: AnnotationRecord) -> float:
        return self.thresholds[annotation.fold][annotation.class_name]


class FrocRecord(Part):
    """Sensitivity against false positives per image."""

    iou_threshold: float
    false_positives_per_image: tuple[float, ...]
    sensitivity: dict[str, tuple[Number, ...]]
    curves: dict[str, tuple[tuple[float, float], ...]]  # false positives per image, sensitivity
    mean: MeanRecord


class DetectionRecord(Part):
    """Boxes of the method's regions as detections, and the pointing game."""

    n_images: int  # with any annotation
    iou_thresholds: tuple[float, ...]
    average_precision: dict[str, tuple[Number, ...]]  # at each T
    map: tuple[MeanRecord, ...]
    froc: FrocRecord
    pointing_game: dict[str, Number]


class EvaluationRecord(StoredRecord):
    """What one evaluation found, with all that is needed to compare it with another."""

    protocol: str
    split: str
    split_hash: str | None
    images_hash: str
    label_version: str
    method: str
    weights: str
    prediction_files: tuple[str, ...] = ()  # where files were scored instead of a model
    shared_patients: int | None  # between training and these images; None: unknown
    n_images: int
    n_patients: int
    notes: tuple[str, ...]
    unreadable: dict[str, str]
    classes: dict[str, ClassRecord]
    mean: MeanScores
    localization: LocalizationRecord | None
    detection: DetectionRecord | None

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.classes)

    @property
    def annotated_classes(self) -> dict[str, int]:
        """Classes with annotations, and how many."""
        return {name: row.n_annotated for name, row in self.classes.items() if row.n_annotated}
