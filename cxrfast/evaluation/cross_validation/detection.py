"""Detection and the pointing game over the runs of a cross-validation."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cxrfast.evaluation.cross_validation.fold_evaluation import FoldEvaluation
from cxrfast.evaluation.cross_validation.numbers import Column, Spread, average
from cxrfast.evaluation.cross_validation.record import (
    PooledClassDetection,
    PooledDetectionRecord,
    PooledMeanDetection,
)
from cxrfast.evaluation.record import DetectionRecord


@dataclass(frozen=True)
class PooledDetection:
    """AP and FROC are not pooled, because that would rank boxes of different networks by one score.

    The score of a box is the peak of its run's map, and these peaks are not calibrated between networks. The pointing
    game compares values within one map only, so that it can be pooled over all annotations.
    """

    thresholds: tuple[float, ...]  # T of the IoU
    froc_threshold: float  # T of the IoU
    rates: tuple[float, ...]  # false positives per image
    average_precision: tuple[Column, ...]  # [T]
    sensitivity: tuple[Column, ...]  # [rates]
    froc: Column  # mean over the rates
    pointing: Column

    @property
    def record(self) -> PooledDetectionRecord:
        columns = {
            "average_precision": self.average_precision,
            "sensitivity": self.sensitivity,
            "froc": (self.froc,),
            "pointing_game": (self.pointing,),
        }
        one = {"froc", "pointing_game"}

        def each(said: Callable[[Column], Any]) -> dict[str, Any]:
            found = {name: tuple(said(column) for column in of) for name, of in columns.items()}
            return {name: values[0] if name in one else values for name, values in found.items()}

        def of_class(k: int) -> PooledClassDetection:
            return PooledClassDetection(**each(lambda column: column.classes[k].record))

        return PooledDetectionRecord(
            iou_thresholds=self.thresholds,
            froc_iou_threshold=self.froc_threshold,
            false_positives_per_image=self.rates,
            classes={name: of_class(k) for k, name in enumerate(self.froc.class_names)},
            mean=PooledMeanDetection(**each(lambda column: column.mean_record)),
        )


def pool_detection(
    runs: Sequence[FoldEvaluation], seeds: Sequence[Sequence[FoldEvaluation]], names: tuple[str, ...]
) -> PooledDetection | None:
    """Pool the runs; ``seeds`` are the groups of runs, one per seed, that have all folds. None without detections."""
    found = next((run.record.detection for run in runs if run.record.detection), None)
    if found is None:
        return None
    thresholds, rates = found.iou_thresholds, found.froc.false_positives_per_image
    rows = [[_row(run.record.detection, name, len(thresholds) + len(rates) + 2) for run in runs] for name in names]

    def column(place: int, pooled: Sequence[float] = (math.nan,) * len(names)) -> Column:
        values = [tuple(row[place] for row in of_runs) for of_runs in rows]
        return Column(tuple(Spread(*pair) for pair in zip(values, pooled, strict=True)), names)

    return PooledDetection(
        thresholds=tuple(thresholds),
        froc_threshold=found.froc.iou_threshold,
        rates=tuple(rates),
        average_precision=tuple(column(t) for t in range(len(thresholds))),
        sensitivity=tuple(column(len(thresholds) + r) for r in range(len(rates))),
        froc=column(-2),
        pointing=column(-1, [average([_pointing(group, k, name) for group in seeds]) for k, name in enumerate(names)]),
    )


def _row(detection: DetectionRecord | None, name: str, length: int) -> list[float]:
    """Numbers of one run and class: AP at every T, sensitivity at every rate, its mean, pointing game."""
    if detection is None:
        return [math.nan] * length
    sensitivity = detection.froc.sensitivity[name]
    precision = detection.average_precision[name]
    return [*precision, *sensitivity, statistics.fmean(sensitivity), detection.pointing_game[name]]


def _pointing(group: Sequence[FoldEvaluation], k: int, name: str) -> float:
    """The pointing game over the annotations of all folds: the runs' values, weighted by their numbers of annotations.

    NaN if a run with annotations has no maps.
    """
    shares = []
    for run in group:
        annotations = int((run.predictions.n_boxes[:, k] > 0).sum())
        if annotations:
            share = run.record.detection.pointing_game[name] if run.record.detection else math.nan
            shares.append((annotations, share))
    total = sum(annotations for annotations, _ in shares)
    return sum(annotations * share for annotations, share in shares) / total if total else math.nan
