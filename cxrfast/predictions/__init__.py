"""Predictions as files: the table of scores, COCO, maps in npz, run-length encoding."""

from cxrfast.predictions.table import Predictions, concatenate, empty_overlaps, read_predictions

__all__ = [
    "Predictions",
    "concatenate",
    "empty_overlaps",
    "read_predictions",
]
