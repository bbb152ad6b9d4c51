"""Protocols, ground truth, the evaluation of models and of predictions from files, and its records."""

from cxrfast.evaluation.cross_validation import (
    CrossValidationHead,
    CrossValidationRecord,
    FoldEvaluation,
    PooledResult,
    pool,
)
from cxrfast.evaluation.evaluator import ModelOutputs, collect_outputs, evaluate, score_outputs
from cxrfast.evaluation.ground_truth import GroundTruth
from cxrfast.evaluation.localization import AccuracyTable, LocalizationResult, score_localization
from cxrfast.evaluation.map_file import write_maps
from cxrfast.evaluation.protocols import PROTOCOLS, Folds, HitCriterion, Protocol, find_protocol
from cxrfast.evaluation.record import EvaluationRecord
from cxrfast.evaluation.result import EvaluationResult
from cxrfast.evaluation.scoring import EvaluationMetadata, score_predictions
from cxrfast.evaluation.sources import BoxSource, MapSource, MaskSource

__all__ = [
    "PROTOCOLS",
    "AccuracyTable",
    "BoxSource",
    "CrossValidationHead",
    "CrossValidationRecord",
    "EvaluationMetadata",
    "EvaluationRecord",
    "EvaluationResult",
    "FoldEvaluation",
    "Folds",
    "GroundTruth",
    "HitCriterion",
    "LocalizationResult",
    "MapSource",
    "MaskSource",
    "ModelOutputs",
    "PooledResult",
    "Protocol",
    "collect_outputs",
    "evaluate",
    "find_protocol",
    "pool",
    "score_localization",
    "score_outputs",
    "score_predictions",
    "write_maps",
]
