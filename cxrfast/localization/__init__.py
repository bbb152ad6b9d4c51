"""From an image to findings with boxes in its own pixels, as a picture and as JSON."""

from cxrfast.localization.batch import Batch, Output, localize_many
from cxrfast.localization.findings import NOTICE, ClassFinding, FoundBox, Localization
from cxrfast.localization.localize import localize
from cxrfast.localization.rendering import draw, save_overlay

__all__ = [
    "NOTICE",
    "Batch",
    "ClassFinding",
    "FoundBox",
    "Localization",
    "Output",
    "draw",
    "localize",
    "localize_many",
    "save_overlay",
]
