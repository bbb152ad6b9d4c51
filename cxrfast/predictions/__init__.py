"""Predictions in files: our own table, CSV, COCO-style JSON with run-length masks, and maps in npz."""

from cxrfast.predictions.table import Predictions, concatenate, empty_overlaps, read_predictions

__all__ = [
    "Predictions",
    "concatenate",
    "empty_overlaps",
    "read_predictions",
]
