"""Metrics and the evaluation of trained models."""

from cxrfast.evaluation.evaluator import evaluate
from cxrfast.evaluation.localization_accuracy import (
    BestOverlap,
    Overlap,
    best_overlap,
    grid_ceiling,
    localization_accuracy,
    patch_overlap,
)
from cxrfast.evaluation.map_thresholds import AnnotatedMaps, annotated_maps, cross_validated_overlap, fit_map_thresholds
from cxrfast.evaluation.metrics import auroc, mean_without_nan, operating_points
from cxrfast.evaluation.predictions import Predictions
from cxrfast.evaluation.result import EvaluationResult

__all__ = [
    "AnnotatedMaps",
    "BestOverlap",
    "EvaluationResult",
    "Overlap",
    "Predictions",
    "annotated_maps",
    "auroc",
    "best_overlap",
    "cross_validated_overlap",
    "evaluate",
    "fit_map_thresholds",
    "grid_ceiling",
    "localization_accuracy",
    "mean_without_nan",
    "operating_points",
    "patch_overlap",
]
