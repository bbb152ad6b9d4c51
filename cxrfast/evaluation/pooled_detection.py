"""Boxes as detections over the runs of a cross-validation, and the pointing game."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxrfast.evaluation.pooled_numbers import Column, Number, average, nan_for_none
from cxrfast.evaluation.run_numbers import RunNumbers


@dataclass(frozen=True)
class PooledDetection:
    """AP and FROC have no pooled numbers: they would rank the boxes of different networks together.

    A box begins at its run's own threshold, and its score is the peak of its run's map; image scores are probabilities,
    but nothing puts these peaks on one scale. The pointing game compares values of one map only, so that all
    annotations can be counted together.
    """

    thresholds: tuple[float, ...]  # T of the IoU
    froc_threshold: float  # T of the IoU
    rates: tuple[float, ...]  # false positives per image
    average_precision: tuple[Column, ...]  # [T]
    sensitivity: tuple[Column, ...]  # [rates]
    froc: Column  # mean over the rates
    pointing: Column

    def to_dict(self) -> dict[str, Any]:
        return {
            "iou_thresholds": self.thresholds,
            "froc_iou_threshold": self.froc_threshold,
            "false_positives_per_image": self.rates,
            "classes": {name: self._of_class(k) for k, name in enumerate(self.froc.class_names)},
            "mean": self._each(Column.mean_to_dict),
        }

    def _of_class(self, k: int) -> dict[str, Any]:
        return self._each(lambda column: column.classes[k].to_dict())

    def _each(self, said: Callable[[Column], Any]) -> dict[str, Any]:
        return {
            "average_precision": [said(column) for column in self.average_precision],
            "sensitivity": [said(column) for column in self.sensitivity],
            "froc": said(self.froc),
            "pointing_game": said(self.pointing),
        }


def pool_detection(
    runs: Sequence[RunNumbers], seeds: Sequence[Sequence[RunNumbers]], names: tuple[str, ...]
) -> PooledDetection | None:
    """``seeds``: the runs of every seed that has all folds. None if no run has detections."""
    found = next((run.detection for run in runs if run.detection), None)
    if found is None:
        return None
    thresholds, rates = found["iou_thresholds"], found["froc"]["false_positives_per_image"]
    rows = [[_row(run.detection, name, len(thresholds) + len(rates) + 2) for run in runs] for name in names]

    def column(place: int, pooled: Sequence[float] = (math.nan,) * len(names)) -> Column:
        values = [tuple(row[place] for row in of_runs) for of_runs in rows]
        return Column(tuple(Number(*pair) for pair in zip(values, pooled, strict=True)), names)

    return PooledDetection(
        thresholds=tuple(thresholds),
        froc_threshold=found["froc"]["iou_threshold"],
        rates=tuple(rates),
        average_precision=tuple(column(t) for t in range(len(thresholds))),
        sensitivity=tuple(column(len(thresholds) + r) for r in range(len(rates))),
        froc=column(-2),
        pointing=column(-1, [average([_pointing(group, k, name) for group in seeds]) for k, name in enumerate(names)]),
    )


def _row(detection: Mapping[str, Any] | None, name: str, length: int) -> list[float]:
    """Of one run and class: AP at every T, sensitivity at every rate, its mean, pointing game."""
    if detection is None:
        return [math.nan] * length
    sensitivity = [nan_for_none(value) for value in detection["froc"]["sensitivity"][name]]
    precision = [nan_for_none(value) for value in detection["average_precision"][name]]
    return [*precision, *sensitivity, statistics.fmean(sensitivity), nan_for_none(detection["pointing_game"][name])]


def _pointing(group: Sequence[RunNumbers], k: int, name: str) -> float:
    """Of all annotations of the class in all folds, the share that the maximum of the map is in.

    A run gives its share of its own annotations, so the shares are weighted by these. NaN where a run with annotations
    has no maps.
    """
    shares = []
    for run in group:
        annotations = int((run.predictions.n_boxes[:, k] > 0).sum())
        if annotations:
            share = nan_for_none(run.detection["pointing_game"][name]) if run.detection else math.nan
            shares.append((annotations, share))
    total = sum(annotations for annotations, _ in shares)
    return sum(annotations * share for annotations, share in shares) / total if total else math.nan
