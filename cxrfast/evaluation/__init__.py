"""Metrics and the evaluation of trained models."""

from cxrfast.evaluation.bootstrap import (
    Interval,
    PairedDifference,
    Statistic,
    bootstrap_interval,
    bootstrap_interval_with_mean,
    paired_bootstrap,
    paired_bootstrap_with_mean,
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
from cxrfast.evaluation.evaluator import Answers, collect_answers, evaluate, score_answers
from cxrfast.evaluation.localization import AccuracyTable, Localization, OwnRule, score_localization
from cxrfast.evaluation.localization_accuracy import (
    BestOverlap,
    Overlap,
    best_overlap,
    grid_ceiling,
    localization_accuracy,
    patch_overlap,
)
from cxrfast.evaluation.map_thresholds import AnnotatedMaps, annotated_maps, fit_map_thresholds
from cxrfast.evaluation.metrics import auroc, average_precision, mean_without_nan, operating_points
from cxrfast.evaluation.pooling import PooledResult, pool
from cxrfast.evaluation.predictions import Predictions, write_maps
from cxrfast.evaluation.protocols import PROTOCOLS, Comparison, Folds, Protocol, find_protocol
from cxrfast.evaluation.result import EvaluationResult
from cxrfast.evaluation.run_numbers import RunNumbers
from cxrfast.evaluation.scoring import Facts, score_predictions
from cxrfast.evaluation.sources import BoxSource, MapSource, Mask, MaskSource
from cxrfast.evaluation.truth import Truth

__all__ = [
    "FROC",
    "PROTOCOLS",
    "AccuracyTable",
    "AnnotatedMaps",
    "Answers",
    "BestOverlap",
    "BoxSource",
    "Boxes",
    "Comparison",
    "EvaluationResult",
    "Facts",
    "Folds",
    "Interval",
    "Localization",
    "MapSource",
    "Mask",
    "MaskSource",
    "Overlap",
    "OwnRule",
    "PairedDifference",
    "PooledResult",
    "Predictions",
    "Protocol",
    "ReliabilityCurve",
    "RunNumbers",
    "Statistic",
    "Truth",
    "annotated_maps",
    "auroc",
    "average_precision",
    "best_overlap",
    "bootstrap_interval",
    "bootstrap_interval_with_mean",
    "box_average_precision",
    "box_overlap",
    "calibrate",
    "collect_answers",
    "evaluate",
    "expected_calibration_error",
    "find_protocol",
    "fit_map_thresholds",
    "fit_temperature",
    "froc",
    "grid_ceiling",
    "localization_accuracy",
    "match_boxes",
    "mean_without_nan",
    "negative_log_likelihood",
    "operating_points",
    "paired_bootstrap",
    "paired_bootstrap_with_mean",
    "patch_overlap",
    "pointing_game",
    "pool",
    "reliability_curve",
    "score_answers",
    "score_localization",
    "score_predictions",
    "union_overlap",
    "weighted_auroc",
    "weighted_average_precision",
    "weighted_mean",
    "write_maps",
]
