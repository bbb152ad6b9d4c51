"""Reads heat maps of any program from an npz of plain arrays, described in docs/evaluation.md."""

from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from cxrfast import _npz
from cxrfast._json import parse_json
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.predictions.parsed import Maps, ParsedPredictions
from cxrfast.regions.rule import RegionRule, Select, Shape

_REQUIRED = ("images", "classes", "maps")
_OPTIONAL = ("scores", "thresholds", "operating_points", "region_rule", "image_size")


def read_npz(path: Path, into: ParsedPredictions) -> None:
    """Read images [n], classes [K], maps [n, K, P, Q], and optionally scores [n, K] and defaults of the method."""
    arrays = _load(path)
    images, classes = _read_names(arrays, "images", path), _read_names(arrays, "classes", path)
    into.add_maps(Maps(path, images, classes, _read_maps(arrays["maps"], len(images), len(classes), path)))
    if "scores" in arrays:
        scores = _read_numbers(arrays, "scores", (len(images), len(classes)), path)
        for image, row in zip(images, scores.tolist(), strict=True):
            for class_name, value in zip(classes, row, strict=True):
                into.add_score(image, class_name, value, str(path))
    for what in ("thresholds", "operating_points"):
        if what in arrays:
            values = _read_numbers(arrays, what, (len(classes),), path)
            if np.isnan(values).any():
                raise CxrfastError(f"{path}: {what} are {values.tolist()}; expected a number for each class")
            for class_name, value in zip(classes, values.tolist(), strict=True):
                into.add_to_method(what, class_name, value, path)
    size = 0
    if "image_size" in arrays:
        size = arrays["image_size"].item() if arrays["image_size"].shape == () else -1
        if not isinstance(size, int) or size < 0:
            raise CxrfastError(f"{path}: image_size is {arrays['image_size']}; expected one whole number of pixels")
        into.add_to_method("image_size", "", size, path)
    if "region_rule" in arrays:
        rule = _read_rule(str(arrays["region_rule"]), path)
        if rule.needs_image_size and not size:
            pixels = max(rule.opening, rule.closing)
            what = "opens" if rule.opening > 1 else "closes"
            raise CxrfastError(f"{path}: region_rule {what} by {pixels} pixels of no known image; add image_size")
        into.add_to_method("region_rule", "", rule, path)


def _load(path: Path) -> dict[str, np.ndarray]:
    """The arrays with known names. Nothing is unpickled."""
    try:
        held = _npz.array_names(path)
    except ValueError as error:
        raise CxrfastError(
            f"{path} is no npz archive, or only a piece of one ({error}); write it with numpy.savez"
        ) from error
    missing = [name for name in _REQUIRED if name not in held]
    if missing:
        raise CxrfastError(f"{path} has no array {', '.join(missing)} (it has {', '.join(held) or 'none'}); add it")
    try:
        return _npz.read_npz(path, (*_REQUIRED, *_OPTIONAL))
    except ValueError as error:
        raise CxrfastError(f"{path} cannot be read ({error}); save plain arrays, without objects") from error


def _read_names(arrays: dict[str, np.ndarray], what: str, path: Path) -> tuple[str, ...]:
    array = arrays[what]
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise CxrfastError(f"{path}: {what} are {array.dtype} {list(array.shape)}; expected a list of names")
    names = tuple(array.astype(str).tolist())
    if len(set(names)) < len(names):
        raise CxrfastError(f"{path}: {what} have {Counter(names).most_common(1)[0][0]} twice; keep one of the two")
    return names


def _read_numbers(arrays: dict[str, np.ndarray], what: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    array = arrays[what]
    if array.shape != shape or array.dtype.kind not in "fiu":
        raise CxrfastError(f"{path}: {what} are {array.dtype} {list(array.shape)}; expected numbers {list(shape)}")
    return array


def _read_maps(maps: np.ndarray, n: int, k: int, path: Path) -> Tensor:  # [n, k, P, Q]
    if maps.ndim != 4 or maps.shape[:2] != (n, k) or 0 in maps.shape[2:] or maps.dtype.kind not in "fiu":
        raise CxrfastError(f"{path}: maps are {maps.dtype} {list(maps.shape)}; expected numbers [{n}, {k}, P, Q]")
    values = torch.from_numpy(maps.astype(np.float32))
    if not torch.isfinite(values).all():
        raise CxrfastError(f"{path}: maps have values that are no finite numbers")
    if values.numel() and not (values.min() >= 0 and values.max() <= 1):
        raise CxrfastError(
            f"{path}: maps have values from {values.min():g} to {values.max():g}; expected 0 to 1, "
            "scale them as your method does before it looks for regions"
        )
    return values


def _read_rule(text: str, path: Path) -> RegionRule:
    try:
        fields = parse_json(text)
        rule = RegionRule(**{**fields, "levels": tuple(fields.get("levels", ()))})
        known = rule.shape in get_args(Shape) and rule.select in get_args(Select)
        numbers = (*rule.levels, rule.gate or 0, rule.opening, rule.closing)
        if not known or not all(isinstance(value, float | int) for value in numbers):
            raise ValueError(text)
    except (AttributeError, TypeError, ValueError, UsageError) as error:
        raise CxrfastError(f"{path}: region_rule is not one of cxrfast ({error}); leave it out") from error
    return rule
