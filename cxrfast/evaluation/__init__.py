"""Protocols, ground truth, and the evaluation of trained models."""

from cxrfast.evaluation.evaluator import Answers, collect_answers, evaluate, score_answers
from cxrfast.evaluation.ground_truth import Truth
from cxrfast.evaluation.localization import AccuracyTable, Localization, score_localization
from cxrfast.evaluation.map_file import write_maps
from cxrfast.evaluation.pooling import PooledResult, pool
from cxrfast.evaluation.protocols import PROTOCOLS, Comparison, Folds, Protocol, find_protocol
from cxrfast.evaluation.result import EvaluationResult
from cxrfast.evaluation.run_numbers import RunNumbers
from cxrfast.evaluation.scoring import Facts, score_predictions
from cxrfast.evaluation.sources import BoxSource, MapSource, MaskSource

__all__ = [
    "PROTOCOLS",
    "AccuracyTable",
    "Answers",
    "BoxSource",
    "Comparison",
    "EvaluationResult",
    "Facts",
    "Folds",
    "Localization",
    "MapSource",
    "MaskSource",
    "PooledResult",
    "Protocol",
    "RunNumbers",
    "Truth",
    "collect_answers",
    "evaluate",
    "find_protocol",
    "pool",
    "score_answers",
    "score_localization",
    "score_predictions",
    "write_maps",
]
