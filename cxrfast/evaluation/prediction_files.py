"""Reads predictions that anybody has written: CSV of scores or boxes, COCO-style JSON, npz of heat maps.

The formats are described in docs/evaluation.md. Nothing is unpickled.
"""

import csv
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxrfast.data.labels import CLASSES
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation.rle import decode_rle

FRAME = 1024.0
"""Boxes of a CSV without columns `width` and `height` are in pixels of an image of this size, as ChestX-ray14's are."""


@dataclass(frozen=True)
class Region:
    """One box, or one mask with the box around it."""

    image: str
    class_name: str
    xyxy: tuple[float, float, float, float]  # fractions of the image
    score: float
    mask: Tensor | None = None  # bool [H, W]


@dataclass
class FoundInFiles:
    """What some files say, by the names that they use."""

    scores: dict[tuple[str, str], float] = field(default_factory=dict)  # (image, class) -> probability
    regions: list[Region] = field(default_factory=list)
    has_regions: bool = False  # also if a file of regions has none
    maps: dict[str, Tensor] = field(default_factory=dict)  # image -> [classes, P, Q]
    map_classes: tuple[str, ...] = ()
    own: Mapping[str, Any] = field(default_factory=dict)  # what the file of maps says about its method


def read_file(path: Path, into: FoundInFiles) -> None:
    """Add what one file says, by its suffix: .csv, .json or .npz."""
    readers = {".csv": _read_csv, ".json": _read_coco, ".npz": _read_npz}
    if path.suffix.lower() not in readers:
        raise UsageError(f"predictions: {path} is of an unknown kind; expected a file ending in .csv, .json or .npz")
    if not path.is_file():
        raise CxrfastError(f"predictions: no file {path}")
    try:
        readers[path.suffix.lower()](path, into)
    except (OSError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise CxrfastError(f"{path} cannot be read ({error})") from error


# CSV: boxes, one row for each image and class, or one column for each class


def _read_csv(path: Path, into: FoundInFiles) -> None:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = {name.strip().lower(): name for name in reader.fieldnames or ()}
        image = columns.get("image") or columns.get("image index")
        if image is None:
            raise CxrfastError(f"{path} has no column 'image' (columns: {', '.join(columns) or 'none'}); add it")
        score = next((columns[name] for name in ("prob", "score", "confidence") if name in columns), None)
        corners = [columns.get(name) for name in ("x1", "y1", "x2", "y2")]
        sides = [columns.get(name) for name in ("x", "y", "w", "h")]
        is_boxes = None not in corners or None not in sides
        into.has_regions |= is_boxes
        wide = {} if "class" in columns else _class_columns(reader.fieldnames or ())
        if not wide and "class" not in columns:
            raise CxrfastError(
                f"{path} has no column 'class', nor one for each class; its columns are {', '.join(columns)}"
            )
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if is_boxes and "class" in columns:
                names = corners if None not in corners else sides
                box = [_number(row[str(name)], where) for name in names]
                if None in corners:
                    box = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
                width, height = (
                    _number(row[columns[n]], where) if n in columns else FRAME for n in ("width", "height")
                )
                value = 1.0 if score is None else _number(row[score], where)
                into.regions.append(_region(row[image], row[columns["class"]], box, (width, height), value, where))
            elif "class" in columns and score is not None:
                if row[score]:
                    into.scores[row[image], row[columns["class"]]] = _probability(_number(row[score], where), where)
            elif "class" in columns:
                raise CxrfastError(
                    f"{path} has a column 'class' but neither 'prob', 'score' nor x1, y1, x2, y2; add them"
                )
            else:
                for name, class_name in wide.items():
                    if row[name]:
                        into.scores[row[image], class_name] = _probability(_number(row[name], where), where)


def _class_columns(names: Sequence[str]) -> dict[str, str]:
    """Column -> class: columns prob_CLASS if there are any, for then a column CLASS holds labels; else CLASS."""
    stripped = {name: name.strip() for name in names}
    named = {name: text.removeprefix("prob_") for name, text in stripped.items() if text.startswith("prob_")}
    return named or {name: text for name, text in stripped.items() if text in CLASSES}


def _region(
    image: str,
    class_name: str,
    box: Sequence[float],
    size: tuple[float, float],
    score: float,
    where: str,
    mask: Tensor | None = None,
) -> Region:
    x1, y1, x2, y2 = box
    if not (x2 > x1 and y2 > y1 and min(size) > 0):
        raise CxrfastError(f"{where}: box {list(box)} has no area; expected x1 < x2 and y1 < y2")
    fractions = (x1 / size[0], y1 / size[1], x2 / size[0], y2 / size[1])
    return Region(image, class_name, fractions, _probability(score, where), mask)


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        raise CxrfastError(f"{where}: {cell!r} is no number") from None
    if not np.isfinite(value):
        raise CxrfastError(f"{where}: {cell!r} is no finite number")
    return value


def _probability(value: float, where: str) -> float:
    if not 0 <= value <= 1:
        raise CxrfastError(f"{where}: score {value:g}; expected 0 to 1, pass scores through a sigmoid first")
    return value


# COCO


def _read_coco(path: Path, into: FoundInFiles) -> None:
    """A data set with `images`, `categories` and `annotations`, whose annotations have a score."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CxrfastError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error
    if not isinstance(content, dict) or not all(key in content for key in ("images", "categories", "annotations")):
        raise CxrfastError(
            f"{path}: expected an object with 'images', 'categories' and 'annotations'; put a bare list of results "
            "under 'annotations' and add the images and categories of its data set"
        )
    into.has_regions = True
    try:
        images = {image["id"]: image for image in content["images"]}
        classes = {category["id"]: str(category["name"]) for category in content["categories"]}
        for number, entry in enumerate(content["annotations"]):
            where = f"{path}, annotation {number}"
            image, name = images[entry["image_id"]], classes[entry["category_id"]]
            size = (float(image["width"]), float(image["height"]))
            score = float(entry.get("score", 1.0))
            mask, box = None, entry.get("bbox")
            if entry.get("segmentation"):
                mask = decode_rle(entry["segmentation"], int(size[1]), int(size[0]), where)
                if not mask.any():
                    continue
                box = _around(mask)
            if box is None:
                raise CxrfastError(f"{where}: neither 'bbox' nor 'segmentation'; add one of them")
            x, y, w, h = (float(value) for value in box)
            into.regions.append(_region(image["file_name"], name, (x, y, x + w, y + h), size, score, where, mask))
    except (KeyError, TypeError, ValueError) as error:
        raise CxrfastError(f"{path}: not as COCO writes it ({type(error).__name__}: {error})") from error


def _around(mask: Tensor) -> list[float]:
    y, x = mask.nonzero(as_tuple=True)
    return [float(x.min()), float(y.min()), float(x.max() - x.min() + 1), float(y.max() - y.min() + 1)]


# Heat maps


def _read_npz(path: Path, into: FoundInFiles) -> None:
    """images [n], classes [K], maps [n, K, P, Q]; optionally scores [n, K] and what the method says about regions."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except ValueError as error:
        raise CxrfastError(f"{path}: {error}; save plain arrays, without objects") from error
    missing = [name for name in ("images", "classes", "maps") if name not in arrays]
    if missing:
        raise CxrfastError(f"{path} has no array {', '.join(missing)} (it has {', '.join(arrays) or 'none'}); add it")
    maps = arrays["maps"]
    names, classes = [str(name) for name in arrays["images"]], tuple(str(name) for name in arrays["classes"])
    if maps.ndim != 4 or maps.shape[:2] != (len(names), len(classes)) or maps.dtype.kind not in "fiu":
        raise CxrfastError(
            f"{path}: maps are {maps.dtype} {list(maps.shape)}; expected numbers [{len(names)}, {len(classes)}, P, Q]"
        )
    values = torch.from_numpy(maps.astype(np.float32))
    if not torch.isfinite(values).all():
        raise CxrfastError(f"{path}: maps have values that are no finite numbers")
    if len(values) and not (values.min() >= 0 and values.max() <= 1):
        raise CxrfastError(
            f"{path}: maps have values from {values.min():g} to {values.max():g}; expected 0 to 1, "
            "scale them as your method does before it looks for regions"
        )
    into.has_regions, into.map_classes, into.own = True, classes, arrays
    into.maps.update(zip(names, values, strict=True))
    if "scores" in arrays:
        for name, row in zip(names, arrays["scores"].tolist(), strict=True):
            for class_name, value in zip(classes, row, strict=True):
                into.scores[name, class_name] = _probability(value, str(path))
