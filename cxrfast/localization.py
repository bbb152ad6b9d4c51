"""From an image file to findings with boxes in the pixels of that image.

Coordinates are continuous and half-open: a box ``x1, y1, x2, y2`` covers x from x1 up to x2, the first pixel of a row
covers x from 0 to 1, and the whole image is ``0, 0, width, height``.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import cxrfast
from cxrfast._files import write_text
from cxrfast._inputs import expand_inputs, output_stems
from cxrfast.data.images import read_image
from cxrfast.data.transforms import to_input
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.ops import component_boxes
from cxrfast.prediction import Predictor, predict

NOTICE = "Research use only. Not a medical device; not for diagnosis."
COORDINATES = (
    "[x1, y1, x2, y2] in pixels of the image, continuous and half-open; the whole image is [0, 0, width, height]"
)


@dataclass(frozen=True)
class FoundBox:
    """One connected region of patches over the threshold of the map."""

    xyxy: tuple[float, float, float, float]  # pixels of the original image
    confidence: float  # largest value of the map in the region, in (0, 1)
    mean: float  # mean value of the map in the region
    area: float  # of the region itself, not of the box, in square pixels


@dataclass(frozen=True)
class ClassFinding:
    """What the model says of one class."""

    name: str
    score: float  # in (0, 1)
    detected: bool  # the score is at least the score threshold
    map_threshold: float
    boxes: tuple[FoundBox, ...]  # most confident first; may be empty though the class is detected


@dataclass(frozen=True)
class Localization:
    """All that was found on one image."""

    source: str | None  # path of the image, if it came from a file
    image: np.ndarray  # [H, W] float32 in [0, 1], the original
    classes: tuple[ClassFinding, ...]  # all K, in the model's order
    maps: Tensor  # [K, P, P] float32 in (0, 1), on the CPU
    score_threshold: float
    top: int | None
    model: dict[str, Any]  # method, weights, label_version, image_size

    @property
    def height(self) -> int:
        return self.image.shape[0]

    @property
    def width(self) -> int:
        return self.image.shape[1]

    @property
    def findings(self) -> tuple[ClassFinding, ...]:
        """What is reported, highest score first: the detected classes, or the ``top`` classes if that was asked for."""
        ranked = sorted(self.classes, key=lambda finding: -finding.score)
        return tuple(ranked[: self.top] if self.top is not None else [f for f in ranked if f.detected])

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`to_json` writes; the map is not in it."""
        return {
            "notice": NOTICE,
            "cxrfast": cxrfast.__version__,
            "image": self.source,
            "width": self.width,
            "height": self.height,
            "model": self.model,
            "score_threshold": self.score_threshold,
            "coordinates": COORDINATES,
            "findings": [_finding_to_dict(finding) for finding in self.findings],
            "scores": {finding.name: _short(finding.score) for finding in self.classes},
        }

    def to_json(self) -> str:
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        # A box on one line. Strings hold no line breaks in JSON, so only lists of numbers match.
        return re.sub(r"\[\n([-+.e\d,\s]+)\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"

    def save_json(self, path: str | os.PathLike) -> None:
        write_text(path, self.to_json())

    def save_overlay(self, path: str | os.PathLike) -> None:
        """Write a PNG: the original, and beside it the heat map and boxes on it."""
        from cxrfast.rendering import save_overlay

        save_overlay(self, path)


def _finding_to_dict(finding: ClassFinding) -> dict[str, Any]:
    return {
        "class": finding.name,
        "score": _short(finding.score),
        "detected": finding.detected,
        "map_threshold": _short(finding.map_threshold),
        "boxes": [
            {"xyxy": list(box.xyxy), "confidence": _short(box.confidence), "mean": _short(box.mean), "area": box.area}
            for box in finding.boxes
        ],
    }


def _short(value: float) -> float:
    """The shortest decimal that is this value in float32, which it was computed in: 0.1, not 0.10000000149."""
    return float(str(np.float32(value)))


def localize(
    predictor: Predictor,
    image: str | os.PathLike | np.ndarray,
    *,
    score_threshold: float = 0.5,
    top: int | None = None,
) -> Localization:
    """What the model finds on one image, and where.

    A class is *detected* if its score is at least ``score_threshold``, and the detected classes are reported. Its boxes
    enclose the connected regions (8 neighbours) of patches whose value in the map is at least the class's threshold
    ``predictor.thresholds``. Score and map are two outputs: a class may be detected without a patch over the threshold,
    when many weak patches add up, and is then reported without a box.

    Args:
        image: a file that :func:`cxrfast.data.images.read_image` reads, or grey values ``[H, W]`` in [0, 1].
        top: report the ``top`` classes of the highest scores instead, detected or not.

    Raises :class:`CxrfastError` for a file that cannot be read.
    """
    if not 0 <= score_threshold <= 1:
        raise UsageError(f"score threshold is {score_threshold}; expected a value in [0, 1]")
    if top is not None and top < 1:
        raise UsageError(f"top is {top}; expected a number of classes, 1 or more")
    source = None if isinstance(image, np.ndarray) else os.fspath(image)
    pixels = _check_pixels(image) if isinstance(image, np.ndarray) else read_image(image)
    prediction = predict(predictor, to_input(pixels, predictor.image_size)[None])
    boxes = _boxes(prediction.maps, predictor.thresholds, *pixels.shape)
    scores = prediction.scores[0].tolist()
    return Localization(
        source=source,
        image=pixels,
        classes=tuple(
            ClassFinding(name, score, score >= score_threshold, threshold, found)
            for name, score, threshold, found in zip(
                predictor.class_names, scores, predictor.thresholds.tolist(), boxes, strict=True
            )
        ),
        maps=prediction.maps[0].float().cpu(),
        score_threshold=score_threshold,
        top=top,
        model={
            "method": predictor.method,
            "weights": str(predictor.weights),
            "label_version": predictor.label_version,
            "image_size": predictor.image_size,
        },
    )


def _check_pixels(image: np.ndarray) -> np.ndarray:
    if image.ndim != 2 or image.size == 0 or image.dtype.kind != "f":
        raise ValueError(f"expected grey values as floats [H, W] in [0, 1], got {image.dtype} {list(image.shape)}")
    if not (image.min() >= 0 and image.max() <= 1):  # NaN too
        raise ValueError(f"expected grey values in [0, 1], got {image.min():g} to {image.max():g}")
    return np.ascontiguousarray(image, dtype=np.float32)


def _boxes(
    maps: Tensor,  # [1, K, P, P]
    thresholds: Tensor,  # [K]
    height: int,
    width: int,
) -> list[tuple[FoundBox, ...]]:
    """For each of the K classes its boxes in an image of ``height`` × ``width`` pixels, most confident first."""
    num_classes, rows, columns = maps.shape[1:]
    found = component_boxes(maps, thresholds.to(maps))
    # Multiplied first, in float64: a box that ends with the grid ends at exactly the image's width
    corners = found.boxes.double().cpu() * torch.tensor([width, height] * 2) / torch.tensor([columns, rows] * 2)
    areas = found.area.double().cpu() * (width * height) / (columns * rows)
    per_class: list[list[FoundBox]] = [[] for _ in range(num_classes)]
    for k, xyxy, peak, mean, area in zip(
        found.channel.tolist(), corners.tolist(), found.peak.tolist(), found.mean.tolist(), areas.tolist(), strict=True
    ):
        per_class[k].append(FoundBox((xyxy[0], xyxy[1], xyxy[2], xyxy[3]), peak, mean, area))
    return [tuple(sorted(boxes, key=lambda box: -box.confidence)) for boxes in per_class]


class Output(NamedTuple):
    """What was written for one image."""

    source: Path
    json: Path
    overlay: Path
    findings: tuple[ClassFinding, ...]


class Batch(NamedTuple):
    """What became of the inputs of :func:`localize_many`."""

    outputs: list[Output]
    failures: dict[str, str]  # input -> why, in one line


def localize_many(
    predictor: Predictor,
    inputs: Sequence[str | os.PathLike],
    out_dir: str | os.PathLike,
    *,
    score_threshold: float = 0.5,
    top: int | None = None,
) -> Batch:
    """Localise every image of ``inputs`` and write ``<stem>.json`` and ``<stem>.png`` to ``out_dir``.

    ``inputs`` are files, folders (all images below them) and glob patterns; an image that is named twice is done once.
    Of several images with the same stem the first keeps it, the others become ``<stem>-2``, ``<stem>-3``, …; each JSON
    says which image it is of. An input that fails is listed in ``failures``, and the others are done.

    Raises :class:`UsageError` if an image lies in ``out_dir``, where its picture could overwrite it.
    """
    from tqdm import tqdm

    out_dir = Path(out_dir)
    files, failures = expand_inputs(inputs, skip=out_dir)
    for file in files:
        if file.resolve().parent == out_dir.resolve():
            raise UsageError(
                f"{file} lies in the output folder {out_dir}, where it could be overwritten; choose another"
            )
    outputs = []
    for file, stem in zip(tqdm(files, desc="localizing", unit="image", disable=None), output_stems(files), strict=True):
        written = out_dir / f"{stem}.json", out_dir / f"{stem}.png"
        try:
            result = localize(predictor, file, score_threshold=score_threshold, top=top)
            result.save_overlay(written[1])
            result.save_json(written[0])
        except UsageError:
            raise  # wrong options are wrong for every image
        except CxrfastError as error:
            failures[str(file)] = str(error)
        else:
            outputs.append(Output(file, *written, result.findings))
    return Batch(outputs, failures)
