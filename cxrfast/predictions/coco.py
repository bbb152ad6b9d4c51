"""Reads predictions in COCO's two JSON formats: a data set with scores, and a list of results."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cxrfast._files import read_text, reason
from cxrfast._json import parse_json
from cxrfast.data.rle import decode_rle
from cxrfast.errors import CxrfastError
from cxrfast.predictions.frames import Frames
from cxrfast.predictions.masks import Mask
from cxrfast.predictions.parsed import ParsedPredictions
from cxrfast.predictions.polygons import draw_polygons, has_no_mask

_KEYS = ("images", "categories", "annotations")
_Entries = dict[int | str, dict[str, Any]]  # id -> entry


class CocoNames(NamedTuple):
    """What the ids of a data set mean."""

    path: Path
    images: _Entries
    categories: _Entries


def load_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        CxrfastError: it is not JSON, with the line.
    """
    try:
        return parse_json(read_text(path, 2**32).removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        raise CxrfastError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error
    except (OSError, ValueError) as error:
        raise CxrfastError(f"{path} cannot be read ({reason(error)})") from error


def read_names(path: Path, content: Any) -> CocoNames | None:
    """Images and categories of a COCO file; None for a file of another kind."""
    if not isinstance(content, dict) or not {"images", "categories"} <= content.keys():
        return None
    images = _by_id(content["images"], "images", "file_name", path)
    return CocoNames(path, images, _by_id(content["categories"], "categories", "name", path))


def read_coco(path: Path, content: Any, into: ParsedPredictions, names: CocoNames | None = None) -> None:
    """Read COCO-style `images`, `categories` and `annotations` with scores, or a list of results.

    Args:
        path: for error messages.
        content: of the file.
        into: where to add the predictions.
        names: of the data set, for a list of results, which has only ids. An object beside a list, of whose
            annotations none has a score, is the ground truth of the data set and no prediction.
    """
    if isinstance(content, list):
        if names is None:
            raise CxrfastError(
                f"{path} is a list of results with ids only; give the COCO file of the data set as well, as a second "
                "--predictions or as --data"
            )
        _read_annotations(path, content, names, into, need_scores=True)
        return
    own = read_names(path, content) if isinstance(content, dict) and "annotations" in content else None
    if own is None:
        raise CxrfastError(
            f"{path}: expected an object with 'images', 'categories' and 'annotations', or a list of results"
        )
    entries = _list(content["annotations"], "annotations", path)
    if names is not None and not any("score" in entry for entry in entries):
        into.notes.append(f"{path.name} has no scores: only its images and categories are used, not its annotations")
        return
    _read_annotations(path, entries, own, into)


def _read_annotations(
    path: Path, content: Any, names: CocoNames, into: ParsedPredictions, *, need_scores: bool = False
) -> None:
    into.images |= {image["file_name"]: None for image in names.images.values()}
    into.add_region_classes(*(category["name"] for category in names.categories.values()))
    frames = Frames(path, into)
    empty = 0
    for number, entry in enumerate(_list(content, "annotations", path)):
        where = f"{path}, annotation {number}"
        image = _named(entry, "image_id", names.images, where)
        category = _named(entry, "category_id", names.categories, where)
        size = (_value(image, "width", where), _value(image, "height", where))
        score = _value(entry, "score", where) if need_scores or "score" in entry else 1.0
        mask, box = None, entry.get("bbox")
        segmentation = entry.get("segmentation")
        if not has_no_mask(segmentation):
            mask = _read_mask(segmentation, int(size[1]), int(size[0]), where)
            if mask is None:
                empty += 1
                continue
            x1, y1, x2, y2 = mask.box
            box = [x1, y1, x2 - x1, y2 - y1]
        if box is None:
            raise CxrfastError(f"{where}: neither 'bbox' nor 'segmentation'; add one of them")
        if not isinstance(box, list) or len(box) != 4:
            raise CxrfastError(f"{where}: bbox is {box}; expected [x, y, width, height]")
        x, y, w, h = (_real(value, "bbox", where) for value in box)
        frames.add(image["file_name"], category["name"], (x, y, x + w, y + h), size, score, where, mask)
    if empty:
        into.notes.append(f"{empty} masks of {path.name} have no pixel: left out")
    frames.close()


def _read_mask(segmentation: Any, height: int, width: int, where: str) -> Mask | None:
    """A mask of polygons or of runs; None if it has no pixel."""
    if isinstance(segmentation, list):
        return draw_polygons(segmentation, height, width, where)
    pixels = decode_rle(segmentation, height, width, where)
    return Mask.cut(pixels) if pixels.any() else None


def _list(content: Any, key: str, path: Path) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise CxrfastError(f"{path}: '{key}' is not a list of objects; write it as COCO does")
    return content


def _by_id(content: Any, key: str, text: str, path: Path) -> _Entries:
    """id -> entry; every entry must have a string field named `text`."""
    entries: _Entries = {}
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
