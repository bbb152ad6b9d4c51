"""Inference: findings on an image, with boxes in its pixel coordinates, as objects, JSON and pictures."""

from cxrfast.inference.batch import Batch, Output, localize_many
from cxrfast.inference.findings import NOTICE, ClassFinding, FoundBox, Localization
from cxrfast.inference.localize import localize
from cxrfast.inference.model import TrainedModel, load_predictor
from cxrfast.inference.rendering import draw, save_overlay

__all__ = [
    "NOTICE",
    "Batch",
    "ClassFinding",
    "FoundBox",
    "Localization",
    "Output",
    "TrainedModel",
    "draw",
    "load_predictor",
    "localize",
    "localize_many",
    "save_overlay",
]
