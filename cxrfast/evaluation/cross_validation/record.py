"""The typed record of a cross-validation, stored as `cross-validation.json`."""

from typing import Self

from pydantic import model_validator

from cxrfast.data.folds import FoldsBy, FoldsOf
from cxrfast.evaluation.record import (
    Limits,
    LocalizationHead,
    Number,
    Part,
    ReliabilityBin,
    StoredRecord,
    TableHead,
    check_classes,
)


class RunRecord(Part):
    """One evaluated run of the cross-validation."""

    run: str  # its folder, "fold-0/seed-0"
    fold: int
    seed: int
    n_images: int
    n_patients: int
    shared_patients: int | None
    split_hash: str | None
    weights: str
    warnings: tuple[str, ...] = ()
    unreadable: dict[str, str]


class SpreadRecord(Part):
    """One number: its values in the runs with their mean and sd, and its pooled value."""

    mean: Number  # over the runs that have the number
    sd: Number  # sample standard deviation of the same
    n: int  # runs that have the number
    pooled: Number  # over the test images of all folds together, mean over seeds; NaN if it does not exist
    interval: Limits | None  # 95 %, of the pooled number
    values: tuple[Number, ...]  # one per run

    @property
    def exists(self) -> bool:
        return self.n > 0 or self.pooled == self.pooled


class MeanSpreadRecord(SpreadRecord):
    """A mean over classes: its values in the runs with their mean and sd, and its pooled value."""

    left_out: tuple[str, ...]  # classes that no run has
    incomplete: tuple[str, ...]  # classes that some runs have


class PooledScores(Part):
    """Classification of one class."""

    n_positive: int
    n_negative: int
    n_annotated: int
    auroc: SpreadRecord
    average_precision: SpreadRecord
    ece: SpreadRecord
    ece_calibrated: SpreadRecord
    reliability: tuple[ReliabilityBin, ...]
    reliability_calibrated: tuple[ReliabilityBin, ...]


class PooledMeans(Part):
    """Classification: means over classes."""

    auroc: MeanSpreadRecord
    average_precision: MeanSpreadRecord
    ece: MeanSpreadRecord
    ece_calibrated: MeanSpreadRecord


class PooledAccuracy(SpreadRecord):
    """Localisation accuracy of one class at one T."""

    hits: tuple[int, ...]  # one per run
    n_annotated: tuple[int, ...]  # one per run
    afp: SpreadRecord | None = None  # None: the protocol does not count false positives
    oracle: Number = float("nan")  # accuracy of oracle regions; NaN without a grid


class PooledRow(Part):
    """Localisation accuracies at one T."""

    T: float
    mean: MeanSpreadRecord
    classes: dict[str, PooledAccuracy]


class PooledTableRecord(TableHead):
    """Localisation accuracies by one measure, behind one gate."""

    rows: tuple[PooledRow, ...]


class PooledLocalization(LocalizationHead):
    """Localisation: the tables of the protocol."""

    tables: tuple[PooledTableRecord, ...]


class PooledClassDetection(Part):
    """Detection of one class: boxes with scores."""

    average_precision: tuple[SpreadRecord, ...]  # at each T
    sensitivity: tuple[SpreadRecord, ...]  # at each rate of false positives
    froc: SpreadRecord
    pointing_game: SpreadRecord


class PooledMeanDetection(Part):
    """Detection: means over classes."""

    average_precision: tuple[MeanSpreadRecord, ...]
    sensitivity: tuple[MeanSpreadRecord, ...]
    froc: MeanSpreadRecord
    pointing_game: MeanSpreadRecord


class PooledDetectionRecord(Part):
    """Detection by the boxes of the methods' regions, and the pointing game."""

    iou_thresholds: tuple[float, ...]
    froc_iou_threshold: float
    false_positives_per_image: tuple[float, ...]
    classes: dict[str, PooledClassDetection]
    mean: PooledMeanDetection


class CrossValidationHead(Part):
    """Settings of a cross-validation, and which runs are missing."""

    protocol: str
    method: str
    label_version: str
    folds: int
    by: FoldsBy
    of: FoldsOf
    seeds: tuple[int, ...]
    unannotated: float  # share of the images without boxes that is used for training
    validation_images: tuple[int, ...]  # number per fold
    classes_left_out: dict[str, int]  # classes that the runs lack: number of their boxes on test images
    splits_hash: str
    complete: bool
    missing: tuple[str, ...]
    n_patients: int
    shared_patients: int


class CrossValidationRecord(CrossValidationHead, StoredRecord):
    """The pooled evaluation of a cross-validation."""

    runs: tuple[RunRecord, ...]
    n_images: int
    classes: dict[str, PooledScores]
    mean: PooledMeans
    localization: PooledLocalization | None
    detection: PooledDetectionRecord | None

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        for table in self.localization.tables if self.localization else ():
            for row in table.rows:
                check_classes(self.classes, tables=row.classes)
        if self.detection is not None:
            check_classes(self.classes, detection=self.detection.classes)
        return self

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of all runs, each once, with the runs that it is for unless it is for all."""
        found: dict[str, list[str]] = {}
        for run in self.runs:
            for warning in run.warnings:
                found.setdefault(warning, []).append(run.run)
        everywhere = len(self.runs)
        return tuple(
            warning if len(runs) == everywhere else f"{', '.join(runs)}: {warning}" for warning, runs in found.items()
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.classes)

    @property
    def annotated_classes(self) -> dict[str, int]:
        """Number of annotations on test images of every class that has any."""
        return {name: row.n_annotated for name, row in self.classes.items() if row.n_annotated}
