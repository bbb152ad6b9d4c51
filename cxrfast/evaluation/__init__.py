"""Metrics and the evaluation of trained models."""

from cxrfast.evaluation.bootstrap import (
    Interval,
    PairedDifference,
    bootstrap_interval,
    paired_bootstrap,
    weighted_auroc,
    weighted_average_precision,
    weighted_mean,
)
from cxrfast.evaluation.calibration import (
    ReliabilityCurve,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_curve,
)
from cxrfast.evaluation.detection import (
    FROC,
    Boxes,
    box_average_precision,
    box_overlap,
    froc,
    match_boxes,
    pointing_game,
    union_overlap,
)
from cxrfast.evaluation.evaluator import evaluate
from cxrfast.evaluation.localization_accuracy import (
    BestOverlap,
    Overlap,
    best_overlap,
    grid_ceiling,
    localization_accuracy,
    patch_overlap,
)
from cxrfast.evaluation.metrics import auroc, average_precision, mean_without_nan, operating_points
from cxrfast.evaluation.predictions import Predictions
from cxrfast.evaluation.result import EvaluationResult

__all__ = [
    "FROC",
    "BestOverlap",
    "Boxes",
    "EvaluationResult",
    "Interval",
    "Overlap",
    "PairedDifference",
    "Predictions",
    "ReliabilityCurve",
    "auroc",
    "average_precision",
    "best_overlap",
    "bootstrap_interval",
    "box_average_precision",
    "box_overlap",
    "calibrate",
    "evaluate",
    "expected_calibration_error",
    "fit_temperature",
    "froc",
    "grid_ceiling",
    "localization_accuracy",
    "match_boxes",
    "mean_without_nan",
    "negative_log_likelihood",
    "operating_points",
    "paired_bootstrap",
    "patch_overlap",
    "pointing_game",
    "reliability_curve",
    "union_overlap",
    "weighted_auroc",
    "weighted_average_precision",
    "weighted_mean",
]
