"""The runs of a cross-validation: their stored evaluations, the pooled result, and its record."""

from cxrfast.evaluation.cross_validation.fold_evaluation import FoldEvaluation
from cxrfast.evaluation.cross_validation.pooling import PooledResult, pool
from cxrfast.evaluation.cross_validation.record import CrossValidationHead, CrossValidationRecord

__all__ = ["CrossValidationHead", "CrossValidationRecord", "FoldEvaluation", "PooledResult", "pool"]
