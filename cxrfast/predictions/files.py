"""Reads predictions of any program: CSV of scores or boxes, COCO-style JSON, npz of heat maps.

The formats are described in docs/evaluation.md. Nothing is unpickled.
"""

import csv
import json
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxrfast.data.labels import CLASSES
from cxrfast.data.rle import decode_rle
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.predictions.maps import read_npz
from cxrfast.predictions.masks import Mask
from cxrfast.predictions.parsed import ParsedPredictions, Region, checked_score

FRAME = 1024.0
"""Side of the image in pixels for boxes of a CSV without columns `width` and `height`, as in ChestX-ray14."""


def read_file(path: Path, into: ParsedPredictions) -> None:
    """Read one file, by its suffix .csv, .json or .npz, and add its content."""
    readers = {".csv": _read_csv, ".json": _read_coco, ".npz": read_npz}
    if path.suffix.lower() not in readers:
        raise UsageError(f"predictions: {path} is of an unknown kind; expected a file ending in .csv, .json or .npz")
    if not path.is_file():
        raise CxrfastError(f"predictions: no file {path}")
    try:
        readers[path.suffix.lower()](path, into)
    except (OSError, UnicodeDecodeError, csv.Error, zipfile.BadZipFile) as error:
        raise CxrfastError(f"{path} cannot be read ({error})") from error


# CSV: boxes, one row for each image and class, or one column for each class


def _read_csv(path: Path, into: ParsedPredictions) -> None:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = {name.strip().lower(): name for name in reader.fieldnames or ()}
        twice = [
            name for name, n in Counter(name.strip() for name in reader.fieldnames or ()).items() if name and n > 1
        ]
        if twice:
            raise CxrfastError(f"{path} has column '{twice[0]}' twice; keep one of the two")
        image = columns.get("image") or columns.get("image index")
        if image is None:
            raise CxrfastError(f"{path} has no column 'image' (columns: {', '.join(columns) or 'none'}); add it")
        class_name = columns.get("class")
        score = next((columns[name] for name in ("prob", "score", "confidence") if name in columns), None)
        boxes = _BoxColumns.among(columns, score)
        wide = _class_columns(reader.fieldnames or (), path) if class_name is None else {}
        if class_name is None and not wide:
            raise CxrfastError(
                f"{path} has no column 'class', nor one for each class; its columns are {', '.join(columns)}"
            )
        if class_name is not None and score is None and boxes is None:
            raise CxrfastError(f"{path} has a column 'class' but neither 'prob', 'score' nor x1, y1, x2, y2; add them")
        frames = _Frames(path, into)
        into.has_regions |= boxes is not None and class_name is not None
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            name = _cell(row, image, where)
            if class_name is None:
                cells = [(of, _cell(row, column, where)) for column, of in wide.items()]
            elif boxes is None:
                cells = [(_cell(row, class_name, where), _cell(row, str(score), where))]
            else:
                frames.add(name, _cell(row, class_name, where), *boxes.read(row, where), where)
                continue
            for of, cell in cells:
                if cell:
                    into.add_score(name, of, _number(cell, where), where)
        frames.close()


def _cell(row: Mapping[str, str | None], column: str, where: str) -> str:
    cell = row[column]
    if cell is None:
        raise CxrfastError(f"{where}: the row ends before column '{column.strip()}'; complete or remove it")
    return cell


def _class_columns(names: Sequence[str], path: Path) -> dict[str, str]:
    """Column -> class. If there are columns prob_CLASS, these hold the scores; else columns CLASS do.

    Two columns whose names contain the same class are an error, because one of them may hold labels.
    """
    stripped = {name: name.strip() for name in names}
    named = {name: text.removeprefix("prob_") for name, text in stripped.items() if text.startswith("prob_")}
    if named:
        return named
    plain = {name: text for name, text in stripped.items() if text in CLASSES}
    for text in plain.values():
        rivals = [other for other in stripped.values() if text.lower() in other.lower() and other != text]
        if rivals:
            raise CxrfastError(
                f"{path}: column '{text}' or '{rivals[0]}'? Call the one with the scores prob_{text}, in all classes"
            )
    return plain


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise CxrfastError(f"{where}: {cell!r} is no number") from None
    if not np.isfinite(value):
        raise CxrfastError(f"{where}: {cell!r} is no finite number")
    return value


class _BoxColumns:
    """The columns of a CSV that hold boxes: two corners, or a corner and the sides."""

    def __init__(self, names: Sequence[str], sides: bool, size: Sequence[str | None], score: str | None):
        self.names, self.sides, self.size, self.score = names, sides, size, score

    @classmethod
    def among(cls, columns: Mapping[str, str], score: str | None) -> "_BoxColumns | None":
        size = [columns.get("width"), columns.get("height")]
        for names in (("x1", "y1", "x2", "y2"), ("x", "y", "w", "h")):
            if all(name in columns for name in names):
                return cls([columns[name] for name in names], "w" in names, size, score)
        return None

    def read(self, row: Mapping[str, str | None], where: str) -> tuple[list[float], tuple[float, float], float]:
        """The box as x1, y1, x2, y2, the size of its image, and its score (1 without such a column)."""
        box = [_number(_cell(row, name, where), where) for name in self.names]
        if self.sides:
            box = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
        width, height = (FRAME if name is None else _number(_cell(row, name, where), where) for name in self.size)
        return box, (width, height), 1.0 if self.score is None else _number(_cell(row, self.score, where), where)


class _Frames:
    """Collects the boxes of one file, each with the size of its image, and checks that they are in pixels of it.

    Edges outside of the image are moved to its border, with a note if that is more than a pixel.
    """

    def __init__(self, path: Path, into: ParsedPredictions):
        self.path, self.into = path, into
        self.boxes = self.clipped = self.tiny = 0

    def add(
        self,
        image: str,
        class_name: str,
        box: Sequence[float],  # x1, y1, x2, y2
        size: tuple[float, float],  # width, height
        score: float,
        where: str,
        mask: Mask | None = None,
    ) -> None:
        x1, y1, x2, y2 = box
        width, height = size
        if not (width > 0 and height > 0):
            raise CxrfastError(f"{where}: an image of width {width:g} and height {height:g}; expected more than 0")
        if not (x2 > x1 and y2 > y1):
            raise CxrfastError(f"{where}: box {list(box)} has no area; expected x1 < x2 and y1 < y2")
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            raise CxrfastError(
                f"{where}: box {list(box)} lies outside of its image of {width:g} × {height:g}; give its true size, "
                "in a CSV as columns width and height"
            )
        pixel = [1.0 if side > 1 else side / FRAME for side in size]  # an image with sides of 1 has boxes as fractions
        self.boxes += 1
        self.clipped += min(x1 / pixel[0], y1 / pixel[1]) < -1 or x2 > width + pixel[0] or y2 > height + pixel[1]
        self.tiny += min(x1, y1) >= 0 and max(x2, y2) <= 1 < min(size)
        fractions = (max(x1, 0.0) / width, max(y1, 0.0) / height, min(x2 / width, 1.0), min(y2 / height, 1.0))
        self.into.add_region(Region(image, class_name, fractions, checked_score(score, where), mask))

    def close(self) -> None:
        if self.boxes and self.tiny == self.boxes:
            raise CxrfastError(
                f"{self.path}: every box lies between 0 and 1, as fractions of the image do; multiply them by its "
                "width and height, or in a CSV add columns width and height, both 1"
            )
        if self.clipped:
            self.into.notes.append(
                f"{self.clipped} of the {self.boxes} boxes of {self.path.name} reach out of their image by more than a "
                "pixel and were cut there: is its size right?"
            )


# COCO


def _read_coco(path: Path, into: ParsedPredictions) -> None:
    """Read COCO-style `images`, `categories` and `annotations`; the annotations have scores."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CxrfastError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error
    if not isinstance(content, dict) or not all(key in content for key in ("images", "categories", "annotations")):
        raise CxrfastError(
            f"{path}: expected an object with 'images', 'categories' and 'annotations'; put a bare list of results "
            "under 'annotations' and add the images and categories of its data set"
        )
    images = _by_id(content["images"], "images", "file_name", path)
    classes = _by_id(content["categories"], "categories", "name", path)
    into.images |= {image["file_name"]: None for image in images.values()}
    into.add_region_classes(*(category["name"] for category in classes.values()))
    frames = _Frames(path, into)
    for number, entry in enumerate(_list(content["annotations"], "annotations", path)):
        where = f"{path}, annotation {number}"
        image, category = (
            _named(entry, key, of, where) for key, of in (("image_id", images), ("category_id", classes))
        )
        size = (_value(image, "width", where), _value(image, "height", where))
        score = _value(entry, "score", where) if "score" in entry else 1.0
        mask, box = None, entry.get("bbox")
        if entry.get("segmentation"):
            pixels = decode_rle(entry["segmentation"], int(size[1]), int(size[0]), where)
            if not pixels.any():
                continue
            mask = Mask.cut(pixels)
            x1, y1, x2, y2 = mask.box
            box = [x1, y1, x2 - x1, y2 - y1]
        if box is None:
            raise CxrfastError(f"{where}: neither 'bbox' nor 'segmentation'; add one of them")
        if not isinstance(box, list) or len(box) != 4:
            raise CxrfastError(f"{where}: bbox is {box}; expected [x, y, width, height]")
        x, y, w, h = (_real(value, "bbox", where) for value in box)
        frames.add(image["file_name"], category["name"], (x, y, x + w, y + h), size, score, where, mask)
    frames.close()


def _list(content: Any, key: str, path: Path) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise CxrfastError(f"{path}: '{key}' is not a list of objects; write it as COCO does")
    return content


def _by_id(content: Any, key: str, text: str, path: Path) -> dict[int | str, dict[str, Any]]:
    """id -> entry; every entry must have a string field named `text`."""
    entries: dict[int | str, dict[str, Any]] = {}
    for number, entry in enumerate(_list(content, key, path)):
        where = f"{path}, entry {number} of '{key}'"
        name = _field(entry, "id", where)
        if not isinstance(name, int | str) or not isinstance(_field(entry, text, where), str):
            raise CxrfastError(f"{where}: id {name!r}, {text} {entry[text]!r}; expected a number and a name")
        if name in entries:
            raise CxrfastError(f"{path}: '{key}' has id {name} twice; give each its own")
        entries[name] = entry
    return entries


def _field(entry: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in entry:
        raise CxrfastError(f"{where}: no '{name}'; add it")
    return entry[name]


def _named(entry: Mapping[str, Any], key: str, known: Mapping[int | str, dict[str, Any]], where: str) -> dict[str, Any]:
    name = _field(entry, key, where)
    if not isinstance(name, int | str) or name not in known:
        what = "images" if key == "image_id" else "categories"
        raise CxrfastError(f"{where}: {key} {name} is not among the '{what}'; add it there, or correct the id")
    return known[name]


def _value(entry: Mapping[str, Any], name: str, where: str) -> float:
    return _real(_field(entry, name, where), name, where)


def _real(value: Any, name: str, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not np.isfinite(value):
        raise CxrfastError(f"{where}: {name} is {value!r}; expected a finite number")
    return float(value)
