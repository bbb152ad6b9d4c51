"""The numbers of one evaluation, with all that is needed to compare them: as JSON, and as a table for a terminal."""

import json
import os
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cxrfast._files import write_text
from cxrfast.evaluation.ground_truth import GroundTruth
from cxrfast.evaluation.localization import Localization, table_to_dict
from cxrfast.evaluation.protocols import Protocol
from cxrfast.evaluation.sources import Source
from cxrfast.metrics.bootstrap import Interval
from cxrfast.metrics.calibration import ReliabilityCurve
from cxrfast.metrics.classification import Mean, mean_without_nan
from cxrfast.metrics.detection import FROC, FROC_RATES
from cxrfast.predictions.table import Predictions
from cxrfast.regions.rule import MethodDefaults


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error of every class."""

    ece: Tensor  # [K] float64, of prob
    ece_calibrated: Tensor | None  # [K] float64, of prob_calibrated
    temperature: Tensor | None  # [K], from validation images
    curve: ReliabilityCurve  # of prob

    def reliability(self, k: int) -> list[dict[str, float]]:
        """The bins of class k that have images."""
        return self.curve.filled(k)


@dataclass(frozen=True)
class Detection:
    """The boxes of the method's regions as detections, and the pointing game."""

    n_images: int  # those with any annotation
    thresholds: tuple[float, ...]  # T of the IoU, [T]
    average_precision: Tensor  # [T, K]
    froc_threshold: float  # T of the IoU
    froc: FROC
    pointing: Tensor  # [K]; NaN where there are no maps


@dataclass(frozen=True)
class EvaluationResult:
    """Per class (K) and on average. NaN: the class has nothing to compute the number from."""

    protocol: Protocol
    split: str  # name of the split
    split_hash: str | None  # of the file of splits that it is from, if it is from one
    images_hash: str  # of the names of the images that were evaluated
    label_version: str  # of the labels compared with
    method: str
    weights: str
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
    localization: Localization | None  # None: no regions, or no annotated boxes
    detection: Detection | None
    notes: tuple[str, ...]
    predictions: Predictions
    ground_truth: GroundTruth  # what the predictions were compared with
    source: Source | None  # the regions before any threshold
    own: MethodDefaults

    def to_dict(self) -> dict[str, Any]:
        """Everything but the table of predictions; None for NaN, which JSON does not know."""
        facts = ("split", "split_hash", "images_hash", "label_version", "method", "weights", "shared_patients")
        means = {"auroc": self.mean_auroc, "average_precision": self.mean_average_precision}
        return {
            "protocol": self.protocol.name,
            **{name: getattr(self, name) for name in (*facts, "n_images", "n_patients", "notes")},
            "unreadable": dict(self.predictions.unreadable),
            "classes": {name: self._class(k) for k, name in enumerate(self.class_names)},
            "mean": {name: mean.to_dict() for name, mean in means.items()},
            "localization": None if self.localization is None else self._localization(self.localization),
            "detection": None if self.detection is None else self._detection(self.detection),
        }

    def _class(self, k: int) -> dict[str, Any]:
        row: dict[str, Any] = {"n_positive": self.n_positive[k], "n_negative": self.n_negative[k]}
        row["n_annotated"] = 0 if self.localization is None else int(self.localization.n_units[k])
        row["operating_point"] = _none(self.own.operating_points[k].item())
        for name in ("auroc", "average_precision"):
            value, low, high = (_none(column[k].item()) for column in getattr(self, name))
            row |= {name: value, f"{name}_interval": [low, high]}
        if self.calibration is not None:
            for name in ("ece", "ece_calibrated", "temperature"):
                column = getattr(self.calibration, name)
                row[name] = None if column is None else _none(column[k].item())
            row["reliability"] = self.calibration.reliability(k)
        return row

    def _localization(self, found: Localization) -> dict[str, Any]:
        return {
            "paper": found.protocol.paper,
            "unit": found.protocol.unit,
            "region_rule": str(found.rule),
            "stretched": found.protocol.stretched,
            "threshold": str(found.protocol.threshold),
            "thresholds": [dict(zip(self.class_names, row, strict=True)) for row in found.thresholds.tolist()],
            "fallbacks": found.fallbacks,
            "published_on": found.protocol.training,
            "grid": found.grid,
            "tables": [table_to_dict(table, self.class_names) for table in found.tables],
        }

    def _detection(self, found: Detection) -> dict[str, Any]:
        def columns(rows: Tensor) -> dict[str, Any]:  # [K, ...] of one class
            return {name: _nested(rows[k].tolist()) for k, name in enumerate(self.class_names)}

        return {
            "n_images": found.n_images,
            "iou_thresholds": found.thresholds,
            "average_precision": columns(found.average_precision.T),
            "map": [mean_without_nan(row, self.class_names).to_dict() for row in found.average_precision],
            "froc": {
                "iou_threshold": found.froc_threshold,
                "false_positives_per_image": FROC_RATES,
                "sensitivity": columns(found.froc.sensitivity),
                "curves": {
                    name: [] if found.froc.mean[k].isnan() else _rises(*found.froc.curves[k])
                    for k, name in enumerate(self.class_names)
                },
                "mean": mean_without_nan(found.froc.mean, self.class_names).to_dict(),
            },
            "pointing_game": columns(found.pointing),
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def save(self, path: str | os.PathLike) -> None:
        """Write the JSON to ``path``."""
        write_text(path, self.to_json())


def _rises(false: Tensor, found: Tensor) -> list[list[float]]:  # [points], [points]
    """[false positives per image, sensitivity] where the curve rises, and its end: all that a step curve needs."""
    last = len(found) - 1
    kept = [i for i in range(last + 1) if i in (0, last) or found[i] > found[i - 1]]
    return [[false[i].item(), found[i].item()] for i in kept]


def _nested(value: Any) -> Any:
    return [_nested(item) for item in value] if isinstance(value, list) else _none(value)


def _none(value: float) -> float | None:
    return None if value != value else value
