"""The pooled evaluation of a cross-validation as it is stored: `cross-validation.json`."""

from cxrfast.evaluation.record import (
    Limits,
    LocalizationHead,
    Number,
    Part,
    ReliabilityBin,
    StoredRecord,
    TableHead,
)


class RunRecord(Part):
    """One run of the cross-validation that is evaluated."""

    run: str  # its folder, "fold-0/seed-0"
    fold: int
    seed: int
    n_images: int
    n_patients: int
    shared_patients: int | None
    split_hash: str | None
    weights: str
    unreadable: dict[str, str]


class SpreadRecord(Part):
    """One number over the runs."""

    mean: Number
    sd: Number  # of the sample
    n: int  # runs that have the number
    pooled: Number  # of the test images of all folds together, mean over seeds; NaN where there is none
    interval: Limits | None  # 95 %, of the pooled number
    values: tuple[Number, ...]  # one a run

    @property
    def exists(self) -> bool:
        return self.n > 0 or self.pooled == self.pooled


class MeanSpreadRecord(SpreadRecord):
    """A mean over classes, over the runs."""

    left_out: tuple[str, ...]  # classes that no run has
    incomplete: tuple[str, ...]  # classes that some runs have


class PooledScores(Part):
    """The image scores of a class."""

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
    """The image scores as means over classes."""

    auroc: MeanSpreadRecord
    average_precision: MeanSpreadRecord
    ece: MeanSpreadRecord
    ece_calibrated: MeanSpreadRecord


class PooledAccuracy(SpreadRecord):
    """Found annotations of one class at one T."""

    hits: tuple[int, ...]  # one a run
    n_annotated: tuple[int, ...]  # one a run
    afp: SpreadRecord | None = None  # None: the protocol does not count false positives
    oracle: Number = float("nan")  # of the best region on the grid; NaN where regions are on no grid


class PooledRow(Part):
    """One T."""

    T: float
    mean: MeanSpreadRecord
    classes: dict[str, PooledAccuracy]


class PooledTableRecord(TableHead):
    """Found annotations by one measure, behind one gate."""

    rows: tuple[PooledRow, ...]


class PooledLocalization(LocalizationHead):
    """Where: all tables of the protocol."""

    tables: tuple[PooledTableRecord, ...]


class PooledClassDetection(Part):
    """Boxes as detections, of one class."""

    average_precision: tuple[SpreadRecord, ...]  # at each T
    sensitivity: tuple[SpreadRecord, ...]  # at each rate of false positives
    froc: SpreadRecord
    pointing_game: SpreadRecord


class PooledMeanDetection(Part):
    """The same as means over classes."""

    average_precision: tuple[MeanSpreadRecord, ...]
    sensitivity: tuple[MeanSpreadRecord, ...]
    froc: MeanSpreadRecord
    pointing_game: MeanSpreadRecord


class PooledDetectionRecord(Part):
    """Boxes of the methods' regions as detections, and the pointing game."""

    iou_thresholds: tuple[float, ...]
    froc_iou_threshold: float
    false_positives_per_image: tuple[float, ...]
    classes: dict[str, PooledClassDetection]
    mean: PooledMeanDetection


class CrossValidationHead(Part):
    """What was cross-validated, and how much of it is there."""

    protocol: str
    method: str
    label_version: str
    folds: int
    by: str
    of: str
    seeds: tuple[int, ...]
    unannotated: float  # share of the images without boxes that may train
    validation_images: tuple[int, ...]  # one a fold
    classes_left_out: dict[str, int]  # classes of the data that the runs lack, and their boxes on test images
    splits_hash: str
    complete: bool
    missing: tuple[str, ...]
    n_patients: int
    shared_patients: int


class CrossValidationRecord(CrossValidationHead, StoredRecord):
    """The runs of a cross-validation together."""

    runs: tuple[RunRecord, ...]
    n_images: int
    classes: dict[str, PooledScores]
    mean: PooledMeans
    localization: PooledLocalization | None
    detection: PooledDetectionRecord | None

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.classes)

    @property
    def annotated_classes(self) -> dict[str, int]:
        """Classes with annotations on test images, and how many."""
        return {name: row.n_annotated for name, row in self.classes.items() if row.n_annotated}
