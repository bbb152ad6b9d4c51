"""Metrics and the evaluation of trained models."""

from cxrfast.evaluation.evaluator import evaluate
from cxrfast.evaluation.localization_accuracy import Overlap, grid_ceiling, localization_accuracy, patch_overlap
from cxrfast.evaluation.metrics import auroc, mean_without_nan, operating_points
from cxrfast.evaluation.predictions import Predictions
from cxrfast.evaluation.result import EvaluationResult

__all__ = [
    "EvaluationResult",
    "Overlap",
    "Predictions",
    "auroc",
    "evaluate",
    "grid_ceiling",
    "localization_accuracy",
    "mean_without_nan",
    "operating_points",
    "patch_overlap",
]
