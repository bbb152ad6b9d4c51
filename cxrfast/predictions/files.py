"""Reads predictions of any program: CSV of scores or boxes, COCO JSON, npz of heat maps.

The formats are described in docs/evaluation.md. Nothing is unpickled.
"""

import csv
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.predictions.coco import CocoNames, load_json, read_coco, read_names
from cxrfast.predictions.csv_file import read_csv
from cxrfast.predictions.maps import read_npz
from cxrfast.predictions.parsed import ParsedPredictions


class _Known(NamedTuple):
    """What the files are read with."""

    class_names: Sequence[str]
    contents: Mapping[Path, Any]  # of the JSON files
    coco: CocoNames | None  # for lists of results


def _read_csv(path: Path, into: ParsedPredictions, known: _Known) -> None:
    read_csv(path, into, known.class_names)


def _read_json(path: Path, into: ParsedPredictions, known: _Known) -> None:
    read_coco(path, known.contents[path], into, known.coco)


def _read_npz(path: Path, into: ParsedPredictions, known: _Known) -> None:
    read_npz(path, into)


_READERS: dict[str, Callable[[Path, ParsedPredictions, _Known], None]] = {
    ".csv": _read_csv,
    ".json": _read_json,
    ".npz": _read_npz,
}


def read_files(paths: Sequence[Path], class_names: Sequence[str], data: Path | None = None) -> ParsedPredictions:
    """Read several files as one prediction.

    Args:
        paths: files that end in .csv, .json or .npz.
        class_names: classes of the data set. They tell which columns of a wide CSV hold scores.
        data: the data set. If it is a COCO file, it explains the ids of a list of results.

    Raises:
        UsageError: a file of another kind.
        CxrfastError: with file and line, a file that cannot be read or contradicts another.
    """
    found = ParsedPredictions()
    paths = [Path(path) for path in paths]
    for path in paths:
        if path.suffix.lower() not in _READERS:
            expected = ", ".join(_READERS)
            raise UsageError(f"predictions: {path} is of an unknown kind; expected a file ending in {expected}")
        if not path.is_file():
            raise CxrfastError(f"predictions: no file {path}")
    contents = {path: load_json(path) for path in paths if path.suffix.lower() == ".json"}
    known = _Known(class_names, contents, _coco_names(contents, data))
    for path in paths:
        try:
            _READERS[path.suffix.lower()](path, found, known)
        except (OSError, csv.Error, zipfile.BadZipFile) as error:
            raise CxrfastError(f"{path} cannot be read ({error})") from error
    return found


def _coco_names(files: dict[Path, Any], data: Path | None) -> CocoNames | None:
    """The images and categories for lists of results, from another file or from the data set; None without lists."""
    if not any(isinstance(content, list) for content in files.values()):
        return None
    known = [names for path, content in files.items() if (names := read_names(path, content)) is not None]
    if not known and data is not None and data.is_file() and data.suffix.lower() == ".json":
        own = read_names(data, load_json(data))
        known = [own] if own is not None else []
    if len(known) > 1:
        raise UsageError(
            f"predictions: {known[0].path} and {known[1].path} both name images and categories for the list of "
            "results; give one of the two"
        )
    return known[0] if known else None
