"""The result of an evaluation in tensors, and its record."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cxrfast.evaluation.evaluated_data import EvaluatedData
from cxrfast.evaluation.ground_truth import GroundTruth
from cxrfast.evaluation.localization import AccuracyTable, LocalizationResult
from cxrfast.evaluation.protocols import Folds, Protocol
from cxrfast.evaluation.record import (
    AccuracyRecord,
    AccuracyRow,
    AccuracyTableRecord,
    AnnotationRecord,
    ClassRecord,
    DetectionRecord,
    EvaluationRecord,
    FixedLevels,
    FixedThreshold,
    FoldsThreshold,
    FrocRecord,
    LocalizationRecord,
    MeanRecord,
    MeanScores,
    MethodThreshold,
    OperatingRecord,
    RateRecord,
    ReliabilityBin,
    Threshold,
)
from cxrfast.evaluation.sources import Source
from cxrfast.metrics.bootstrap import Interval
from cxrfast.metrics.calibration import ReliabilityCurve
from cxrfast.metrics.classification import Mean, mean_without_nan
from cxrfast.metrics.detection import FROC, FROC_RATES
from cxrfast.metrics.operating import Rates
from cxrfast.predictions.table import Predictions
from cxrfast.regions.rule import MethodDefaults
from cxrfast.runs.provenance import Provenance


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error of every class."""

    ece: Tensor  # [K] float64, of prob
    ece_calibrated: Tensor | None  # [K] float64, of prob_calibrated
    temperature: Tensor | None  # [K], from validation images
    curve: ReliabilityCurve  # of prob

    def of_class(self, k: int) -> dict[str, Any]:
        """Fields of the ClassRecord of class k."""
        numbers = {name: getattr(self, name) for name in ("ece", "ece_calibrated", "temperature")}
        return {
            **{name: column[k].item() for name, column in numbers.items() if column is not None},
            "reliability": ReliabilityBin.all_of(self.curve, k),
        }


@dataclass(frozen=True)
class Detection:
    """Detection by the boxes of the method's regions, and the pointing game."""

    n_images: int  # with any annotation
    thresholds: tuple[float, ...]  # T of the IoU, [T]
    average_precision: Tensor  # [T, K]
    froc_threshold: float  # T of the IoU
    froc: FROC
    pointing: Tensor  # [K]; NaN where there are no maps


@dataclass(frozen=True)
class EvaluationResult:
    """Numbers of K classes and their means. NaN marks a number that is undefined for the class."""

    protocol: Protocol
    split: str  # name of the split
    split_hash: str | None  # of the splits file, if there is one
    images_hash: str  # of the names of the evaluated images
    label_version: str  # of the labels
    data: EvaluatedData | None
    method: str
    weights: str
    prediction_files: tuple[str, ...]
    shared_patients: int | None  # between training and these images; None: unknown
    class_names: tuple[str, ...]
    n_images: int
    n_patients: int
    n_positive: tuple[int, ...]
    n_negative: tuple[int, ...]
    auroc: Interval
    average_precision: Interval
    mean_auroc: Mean
    mean_average_precision: Mean
    calibration: Calibration | None
    rates: Rates | None  # at the operating points; None: scores are no probabilities
    localization: LocalizationResult | None  # None: no regions, or no annotated boxes
    detection: Detection | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    learnt_from: Provenance | None
    predictions: Predictions
    ground_truth: GroundTruth  # labels and boxes
    source: Source | None  # the regions before any threshold
    own: MethodDefaults

    @property
    def record(self) -> EvaluationRecord:
        """The typed record: all numbers, without predictions and regions."""
        mean = MeanScores(
            auroc=MeanRecord.of(self.mean_auroc), average_precision=MeanRecord.of(self.mean_average_precision)
        )
        return EvaluationRecord(
            protocol=self.protocol.name,
            split=self.split,
            split_hash=self.split_hash,
            images_hash=self.images_hash,
            label_version=self.label_version,
            data=self.data,
            method=self.method,
            weights=self.weights,
            prediction_files=self.prediction_files,
            shared_patients=self.shared_patients,
            n_images=self.n_images,
            n_patients=self.n_patients,
            notes=self.notes,
            warnings=self.warnings,
            learnt_from=self.learnt_from,
            unreadable=dict(self.predictions.unreadable),
            classes={name: self._class(k) for k, name in enumerate(self.class_names)},
            mean=mean,
            localization=None if self.localization is None else self._localization(self.localization),
            detection=None if self.detection is None else self._detection(self.detection),
        )

    def _class(self, k: int) -> ClassRecord:
        area, precision = self.auroc, self.average_precision
        calibration = {} if self.calibration is None else self.calibration.of_class(k)
        return ClassRecord(
            n_positive=self.n_positive[k],
            n_negative=self.n_negative[k],
            n_annotated=0 if self.localization is None else int(self.localization.n_units[k]),
            operating_point=self.own.operating_points[k].item(),
            auroc=area.value[k].item(),
            auroc_interval=(area.low[k].item(), area.high[k].item()),
            average_precision=precision.value[k].item(),
            average_precision_interval=(precision.low[k].item(), precision.high[k].item()),
            at_operating_point=None if self.rates is None else _operating(self.rates, k),
            **calibration,
        )

    def _localization(self, found: LocalizationResult) -> LocalizationRecord:
        return LocalizationRecord(
            paper=found.protocol.paper,
            unit=found.protocol.unit,
            rule=found.rule,
            minmax_normalised=found.protocol.minmax_normalised,
            threshold=_threshold(found.protocol),
            published_on=found.protocol.training,
            thresholds=tuple(dict(zip(self.class_names, row, strict=True)) for row in found.thresholds.tolist()),
            fallbacks=found.fallbacks,
            grid=found.grid,
            tables=tuple(_table(table, self.class_names) for table in found.tables),
            annotations=tuple(self._annotations(found)),
        )

    def _annotations(self, found: LocalizationResult) -> Iterator[AnnotationRecord]:
        folds = [0] * len(found.units.image) if found.fold is None else found.fold.tolist()
        for u, fold in enumerate(folds):
            yield AnnotationRecord(
                image=self.ground_truth.images[int(found.units.image[u])],
                class_name=self.class_names[int(found.units.class_index[u])],
                boxes=tuple(map(tuple, found.units.boxes[u][found.units.has_box[u]].double().tolist())),
                fold=fold,
                iou=found.overlap.iou[u].item(),
                ior=found.overlap.ior[u].item(),
            )

    def _detection(self, found: Detection) -> DetectionRecord:
        def columns(rows: Tensor) -> dict[str, Any]:  # [K, ...] of one class
            return {name: rows[k].tolist() for k, name in enumerate(self.class_names)}

        curves = {
            name: () if found.froc.mean[k].isnan() else _rises(*found.froc.curves[k])
            for k, name in enumerate(self.class_names)
        }
        return DetectionRecord(
            n_images=found.n_images,
            iou_thresholds=found.thresholds,
            average_precision=columns(found.average_precision.T),
            map=tuple(MeanRecord.of(mean_without_nan(row, self.class_names)) for row in found.average_precision),
            froc=FrocRecord(
                iou_threshold=found.froc_threshold,
                false_positives_per_image=FROC_RATES,
                sensitivity=columns(found.froc.sensitivity),
                curves=curves,
                mean=MeanRecord.of(mean_without_nan(found.froc.mean, self.class_names)),
            ),
            pointing_game=columns(found.pointing),
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write :attr:`record` as JSON to ``path``."""
        self.record.save(path)


def _operating(rates: Rates, k: int) -> OperatingRecord:
    def rate(of: Interval) -> RateRecord:
        return RateRecord(value=of.value[k].item(), interval=(of.low[k].item(), of.high[k].item()))

    return OperatingRecord(
        called=rates.called[k],
        sensitivity=rate(rates.sensitivity),
        specificity=rate(rates.specificity),
        ppv=rate(rates.ppv),
        npv=rate(rates.npv),
    )


def _threshold(protocol: Protocol) -> Threshold:
    if protocol.threshold is None:
        return FixedLevels()
    if isinstance(protocol.threshold, Folds):
        folds = protocol.threshold
        return FoldsThreshold(count=folds.count, by=folds.by, pooled=folds.pooled)
    return FixedThreshold(value=protocol.threshold) if isinstance(protocol.threshold, float) else MethodThreshold()


def _table(table: AccuracyTable, class_names: Sequence[str]) -> AccuracyTableRecord:
    names = ("accuracy", "low", "high", "oracle", "hits", "false_positives", "afp")
    columns = {name: column for name in names if (column := getattr(table, name)) is not None}
    rows = []
    for row, (t, mean) in enumerate(zip(table.criterion.thresholds, table.means(class_names), strict=True)):
        cells = [{name: column[row, k].item() for name, column in columns.items()} for k in range(len(class_names))]
        classes = {name: AccuracyRecord.model_validate(cell) for name, cell in zip(class_names, cells, strict=True)}
        rows.append(AccuracyRow(T=t, mean=MeanRecord.of(mean), classes=classes))
    return AccuracyTableRecord(
        measure=table.criterion.measure, inclusive=table.criterion.inclusive, gate=table.gate, rows=tuple(rows)
    )


def _rises(false: Tensor, found: Tensor) -> tuple[tuple[float, float], ...]:  # [points], [points]
    """The points (false positives per image, sensitivity) that define the step curve: its rises and its ends."""
    last = len(found) - 1
    kept = [i for i in range(last + 1) if i in (0, last) or found[i] > found[i - 1]]
    return tuple((false[i].item(), found[i].item()) for i in kept)
