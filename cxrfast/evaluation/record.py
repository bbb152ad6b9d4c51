"""The typed record of one evaluation, stored as `evaluation-<split>.json`.

An undefined number is NaN here and `null` in the file.
"""

import json
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from cxrfast._files import write_text
from cxrfast._json import read_json
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation.evaluated_data import EvaluatedData
from cxrfast.evaluation.ground_truth import Unit
from cxrfast.evaluation.protocols import GroupedBy
from cxrfast.metrics.calibration import ReliabilityCurve
from cxrfast.metrics.classification import Mean
from cxrfast.metrics.detection import Measure
from cxrfast.regions.rule import RegionRule
from cxrfast.runs.provenance import Provenance

SCHEMA_VERSION = 2
"""Version of the files. Version 1 had no `schema_version`, and its gates and thresholds were text."""

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
        """The content of the file."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, path: str | os.PathLike) -> None:
        """Write the JSON to ``path``, atomically."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Read a file written by :meth:`save`.

        Raises :class:`CxrfastError`, in one line, for a file that is missing, damaged, or of another version.
        """
        path = Path(path)
        try:
            content = read_json(path)
        except (OSError, ValueError) as error:
            raise CxrfastError(f"{path} cannot be read ({error}); evaluate again") from error
        if not isinstance(content, dict):
            raise CxrfastError(f"{path}: expected an object, got {type(content).__name__}; evaluate again")
        version = content.get("schema_version", 1)
        if version != SCHEMA_VERSION:
            raise CxrfastError(
                f"{path} is an evaluation of schema version {version!r}; this cxrfast reads version {SCHEMA_VERSION}; "
                "evaluate again"
            )
        try:
            return cls.model_validate(content)
        except (ValidationError, UsageError) as error:  # UsageError: from the region rule
            problem = first_problem(error) if isinstance(error, ValidationError) else error
            raise CxrfastError(f"{path} is not an evaluation of this version ({problem}); evaluate again") from error


def first_problem(error: ValidationError) -> str:
    """The first wrong field, and what is wrong with it, in one line."""
    first = error.errors()[0]
    return " ".join(f"{'.'.join(map(str, first['loc'])) or 'record'}: {first['msg']}".split())


def check_classes(expected: Collection[str], **tables: Collection[str]) -> None:
    """ValueError for the first table, by name, whose classes are not the expected ones."""
    for name, classes in tables.items():
        if set(classes) != set(expected):
            raise ValueError(f"{name}: expected the classes {', '.join(expected)}, got {', '.join(classes)}")


# Gates (where regions count) and thresholds of the map


class NoGate(Part):
    """Regions count on every image."""

    kind: Literal["none"] = "none"

    def __str__(self) -> str:
        return ""


class ScoreGate(Part):
    """Regions of a class count where the image's score exceeds ``score``."""

    kind: Literal["score"] = "score"
    score: float

    def __str__(self) -> str:
        return f"score > {self.score:g}"


class OperatingPointGate(Part):
    """Regions of a class count where the image's score reaches the operating point of the class."""

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
    """The method's own threshold of each class."""

    kind: Literal["method"] = "method"

    def __str__(self) -> str:
        return "the method's own"


class FoldsThreshold(Part):
    """Chosen on the other folds of the annotations, per class or, if ``pooled``, one for all classes."""

    kind: Literal["folds"] = "folds"
    count: int
    by: GroupedBy
    pooled: bool

    def __str__(self) -> str:
        of = "one for all classes" if self.pooled else "per class"
        return f"{of}, chosen by {self.count} folds by {self.by} without the scored fold"


class FixedLevels(Part):
    """The fixed levels of the region rule."""

    kind: Literal["levels"] = "levels"

    def __str__(self) -> str:
        return "fixed levels"


Threshold = Annotated[FixedThreshold | MethodThreshold | FoldsThreshold | FixedLevels, Field(discriminator="kind")]


# Numbers


class MeanRecord(Part):
    """A mean over classes, and the classes that it leaves out because they have no number."""

    value: Number
    left_out: tuple[str, ...]
    interval: Limits | None = None

    @classmethod
    def of(cls, mean: Mean) -> "MeanRecord":
        return cls(value=mean.value, left_out=mean.left_out, interval=mean.interval)


class ReliabilityBin(Part):
    """One bin of a reliability curve."""

    probability: float  # mean over the images in the bin
    frequency: float  # share of them that are positive
    images: int

    @classmethod
    def all_of(cls, curve: ReliabilityCurve | None, k: int) -> "tuple[ReliabilityBin, ...]":
        """The non-empty bins of class k."""
        return () if curve is None else tuple(cls.model_validate(entry) for entry in curve.filled(k))


class RateRecord(Part):
    """A share of images."""

    value: Number
    interval: Limits


class OperatingRecord(Part):
    """What the operating point of a class achieves."""

    called: int  # images with a known label whose score reaches it
    sensitivity: RateRecord
    specificity: RateRecord
    ppv: RateRecord
    npv: RateRecord


class ClassRecord(Part):
    """Classification of one class."""

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
    at_operating_point: OperatingRecord | None = None  # None: scores are no probabilities, or an earlier version


class MeanScores(Part):
    """Classification: means over classes."""

    auroc: MeanRecord
    average_precision: MeanRecord


class AccuracyRecord(Part):
    """Localisation accuracy of one class at one T."""

    accuracy: Number
    low: Number
    high: Number
    hits: int
    oracle: Number = math.nan  # accuracy of oracle regions; NaN without a grid
    false_positives: int | None = None  # None: the protocol does not count them
    afp: Number = math.nan


class AccuracyRow(Part):
    """Localisation accuracies at one T."""

    T: float
    mean: MeanRecord
    classes: dict[str, AccuracyRecord]


class TableHead(Part):
    """The hit criterion of a table, without its T, and its gate."""

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
    """Localisation accuracies by one measure, behind one gate."""

    rows: tuple[AccuracyRow, ...]


class AnnotationRecord(Part):
    """One scored annotation, with its overlaps before any gate."""

    image: str
    class_name: str
    boxes: tuple[tuple[float, float, float, float], ...]  # xyxy as fractions of the image
    fold: int  # row of LocalizationRecord.thresholds
    iou: float
    ior: float


class LocalizationHead(Part):
    """The rules by which regions were scored."""

    paper: str
    unit: Unit
    rule: RegionRule
    minmax_normalised: bool  # whether every map was first scaled to 0…1
    threshold: Threshold
    published_on: str  # which images the protocol's published numbers are on


class LocalizationRecord(LocalizationHead):
    """Localisation: the tables of the protocol, the thresholds used, and every annotation."""

    thresholds: tuple[dict[str, Number], ...]  # one row for each fold, or one for all
    fallbacks: int  # annotations scored at the method's own threshold because no other fold has their class
    grid: tuple[int, int] | None
    tables: tuple[AccuracyTableRecord, ...]
    annotations: tuple[AnnotationRecord, ...]

    @model_validator(mode="after")
    def _check_annotations(self) -> Self:
        for annotation in self.annotations:
            if not 0 <= annotation.fold < len(self.thresholds):
                raise ValueError(f"annotations: no row {annotation.fold} in thresholds")
            if annotation.class_name not in self.thresholds[annotation.fold]:
                raise ValueError(f"annotations: {annotation.class_name!r} has no threshold")
        return self

    def threshold_of(self, annotation: AnnotationRecord) -> float:
        """The threshold of the map at which the annotation was scored; not used where the region rule has levels."""
        return self.thresholds[annotation.fold][annotation.class_name]


class FrocRecord(Part):
    """Free-response ROC: sensitivity against false positives per image."""

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
    """One evaluation, complete enough to report it and to compare it with another."""

    protocol: str
    split: str
    split_hash: str | None
    images_hash: str
    label_version: str
    data: EvaluatedData | None = None  # None: not known, as in records of earlier versions
    method: str
    weights: str
    prediction_files: tuple[str, ...] = ()  # if files were evaluated instead of a model
    shared_patients: int | None  # between training and these images; None: unknown
    n_images: int
    n_patients: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()  # why the numbers are not to be trusted, or say nothing about people
    learnt_from: Provenance | None = None  # what the weights say of themselves; None: no weights, or an earlier version
    unreadable: dict[str, str]
    classes: dict[str, ClassRecord]
    mean: MeanScores
    localization: LocalizationRecord | None
    detection: DetectionRecord | None

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if self.localization is not None:
            for thresholds in self.localization.thresholds:
                check_classes(self.classes, thresholds=thresholds)
            for table in self.localization.tables:
                for row in table.rows:
                    check_classes(self.classes, tables=row.classes)
        if self.detection is not None:
            froc = self.detection.froc
            check_classes(
                self.classes,
                average_precision=self.detection.average_precision,
                sensitivity=froc.sensitivity,
                curves=froc.curves,
                pointing_game=self.detection.pointing_game,
            )
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.classes)

    @property
    def annotated_classes(self) -> dict[str, int]:
        """Number of annotations of every class that has any."""
        return {name: row.n_annotated for name, row in self.classes.items() if row.n_annotated}
