"""Protocols, ground truth, and the evaluation of trained models."""

from cxrfast.evaluation.evaluator import ModelOutputs, collect_outputs, evaluate, score_outputs
from cxrfast.evaluation.ground_truth import GroundTruth
from cxrfast.evaluation.localization import AccuracyTable, Localization, score_localization
from cxrfast.evaluation.map_file import write_maps
from cxrfast.evaluation.pooling import PooledResult, pool
from cxrfast.evaluation.protocols import PROTOCOLS, Comparison, Folds, Protocol, find_protocol
from cxrfast.evaluation.result import EvaluationResult
from cxrfast.evaluation.run_numbers import RunNumbers
from cxrfast.evaluation.scoring import EvaluationMetadata, score_predictions
from cxrfast.evaluation.sources import BoxSource, MapSource, MaskSource

__all__ = [
    "PROTOCOLS",
    "AccuracyTable",
    "BoxSource",
    "Comparison",
    "EvaluationMetadata",
    "EvaluationResult",
    "Folds",
    "GroundTruth",
    "Localization",
    "MapSource",
    "MaskSource",
    "ModelOutputs",
    "PooledResult",
    "Protocol",
    "RunNumbers",
    "collect_outputs",
    "evaluate",
    "find_protocol",
    "pool",
    "score_localization",
    "score_outputs",
    "score_predictions",
    "write_maps",
]
