"""The metadata of a weights file, checked before a network is built from them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cxrfast._json import parse_json
from cxrfast.errors import CxrfastError

IMAGE_SIZES = (16, 8192)
"""Smallest and largest side of a network's input, in pixels."""
MAX_CLASSES = 1000


class WeightsMetadata(NamedTuple):
    """What a network is built from."""

    options: dict[str, Any]
    class_names: tuple[str, ...]
    image_size: int


def check_metadata(metadata: Mapping[str, str], path: Path) -> WeightsMetadata:
    """The metadata that :func:`cxrfast.runs.weights.save_weights` writes.

    Raises:
        CxrfastError: a value that no training writes: an image size out of :data:`IMAGE_SIZES`, operating points that
            are not one number from 0 to 1 for each class, classes that are no names or stand twice.
        KeyError, ValueError: a field that is missing, or not of its type.
    """
    classes = parse_json(metadata["class_names"])
    if not isinstance(classes, list) or not all(isinstance(name, str) and name.strip() for name in classes):
        raise ValueError("class_names is no list of names")
    if not 1 <= len(classes) <= MAX_CLASSES or len(set(classes)) < len(classes):
        raise _refused(path, "class_names", f"1 to {MAX_CLASSES} different names", f"{len(classes)}, some twice")
    size = int(metadata["image_size"])
    if not IMAGE_SIZES[0] <= size <= IMAGE_SIZES[1]:
        raise _refused(path, "image_size", f"{IMAGE_SIZES[0]} to {IMAGE_SIZES[1]} pixels", f"{size}")
    options = parse_json(metadata["options"])
    if not isinstance(options, dict):
        raise ValueError("options is no object")
    points = parse_json(metadata.get("operating_points", "null"))
    if points is not None:
        if not isinstance(points, list) or len(points) != len(classes):
            given = len(points) if isinstance(points, list) else type(points).__name__
            raise _refused(path, "operating_points", f"{len(classes)}, one for each class", f"{given}")
        wrong = next((point for point in points if not _is_share(point)), None)
        if wrong is not None:
            raise _refused(path, "operating_points", "numbers from 0 to 1", f"{wrong!r:.40}")
    for name in ("stage", "label_version"):
        if not metadata.get(name):
            raise KeyError(name)
    if parse_json(metadata.get("validated", "true")) not in (True, False):
        raise ValueError("validated is neither true nor false")
    return WeightsMetadata(options, tuple(classes), size)


def _is_share(point: Any) -> bool:
    return isinstance(point, int | float) and math.isfinite(point) and 0 <= point <= 1


def _refused(path: Path, name: str, expected: str, got: str) -> CxrfastError:
    return CxrfastError(
        f"checkpoint: {name} in the metadata of {path}: expected {expected}, got {got}; the file is damaged or edited, "
        "use an original one"
    )
