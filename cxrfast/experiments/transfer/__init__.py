"""Pretrained weights on few images: a linear probe, compared with cross-validated methods."""

from cxrfast.experiments.transfer.probe import linear_probe, pooled_features, probe_folds
from cxrfast.experiments.transfer.table import TransferComparison, compare, runs_csv, to_markdown

__all__ = [
    "TransferComparison",
    "compare",
    "linear_probe",
    "pooled_features",
    "probe_folds",
    "runs_csv",
    "to_markdown",
]
