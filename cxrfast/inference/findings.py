"""Findings on an image, as objects and as JSON.

Coordinates are continuous and half-open: a box ``x1, y1, x2, y2`` covers x from x1 up to x2, the first pixel of a row
covers x from 0 to 1, and the whole image is ``0, 0, width, height``.
"""

import json
import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

import cxrfast
from cxrfast._files import write_text

NOTICE = "Research use only. Not a medical device; not for diagnosis."
COORDINATES = (
    "[x1, y1, x2, y2] in pixels of the image, continuous and half-open; the whole image is [0, 0, width, height]"
)


@dataclass(frozen=True)
class FoundBox:
    """The bounding box of one connected region of patches."""

    xyxy: tuple[float, float, float, float]  # pixels of the original image
    confidence: float  # largest value of the map in the region, in (0, 1)
    mean: float  # mean value of the map in the region
    area: float  # of the region, not of its box, in square pixels


@dataclass(frozen=True)
class ClassFinding:
    """Score and boxes of one class."""

    name: str
    score: float  # in (0, 1)
    detected: bool  # the score is at least the score threshold
    score_threshold: float
    map_threshold: float
    boxes: tuple[FoundBox, ...]  # most confident first; may be empty even if the class is detected

    @property
    def numbers(self) -> tuple[str, str]:
        """Score and score threshold in as many decimals as tell them apart, and from 0: 0.42 and 0.31."""
        for digits in range(2, 7):
            score, threshold = (f"{value:.{digits}f}" for value in (self.score, self.score_threshold))
            hidden = any(
                value and not float(text) for value, text in ((self.score, score), (self.score_threshold, threshold))
            )
            if not hidden and (score != threshold or self.score == self.score_threshold):
                return score, threshold
        return f"{self.score:.3g}", f"{self.score_threshold:.3g}"


@dataclass(frozen=True)
class Localization:
    """All findings on one image."""

    source: str | None  # path of the image, if it came from a file
    image: np.ndarray  # [H, W] float32 in [0, 1], the original
    classes: tuple[ClassFinding, ...]  # all K, in the model's order
    maps: Tensor  # [K, P, P] float32 in (0, 1), on the CPU
    top: int | None
    model: dict[str, Any]  # method, weights, label_version, image_size, learnt_from
    notes: tuple[str, ...] = ()  # assumptions made to read the image
    warnings: tuple[str, ...] = ()  # why the findings are not to be trusted

    @property
    def height(self) -> int:
        return self.image.shape[0]

    @property
    def width(self) -> int:
        return self.image.shape[1]

    @property
    def findings(self) -> tuple[ClassFinding, ...]:
        """The reported classes, highest score first: the detected classes or, if ``top`` was given, that many."""
        ranked = sorted(self.classes, key=lambda finding: -finding.score)
        return tuple(ranked[: self.top] if self.top is not None else [f for f in ranked if f.detected])

    def to_dict(self) -> dict[str, Any]:
        """The content of :meth:`to_json`, without maps."""
        return {
            "notice": NOTICE,
            "warnings": list(self.warnings),
            "cxrfast": cxrfast.__version__,
            "image": self.source,
            "width": self.width,
            "height": self.height,
            **({"notes": list(self.notes)} if self.notes else {}),
            "model": self.model,
            "coordinates": COORDINATES,
            "findings": [_finding_to_dict(finding) for finding in self.findings],
            "scores": {finding.name: _short(finding.score) for finding in self.classes},
            "score_thresholds": {finding.name: _short(finding.score_threshold) for finding in self.classes},
        }

    def to_json(self) -> str:
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        # Join the lines of each box. JSON strings contain no line breaks, so that only lists of numbers match.
        return re.sub(r"\[\n([-+.e\d,\s]+)\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"

    def save_json(self, path: str | os.PathLike) -> None:
        write_text(path, self.to_json())


def _finding_to_dict(finding: ClassFinding) -> dict[str, Any]:
    return {
        "class": finding.name,
        "score": _short(finding.score),
        "detected": finding.detected,
        "score_threshold": _short(finding.score_threshold),
        "map_threshold": _short(finding.map_threshold),
        "boxes": [
            {"xyxy": list(box.xyxy), "confidence": _short(box.confidence), "mean": _short(box.mean), "area": box.area}
            for box in finding.boxes
        ],
    }


def _short(value: float) -> float:
    """The shortest decimal that rounds to the same float32 value: 0.1, not 0.10000000149."""
    return float(str(np.float32(value)))
