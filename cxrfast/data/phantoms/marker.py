"""Tells phantoms from X-rays of people: by the file that `cxrfast synth` leaves in the folder, or by its tables."""

import csv
import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import cxrfast

MARKER = "phantoms.json"
"""File in a folder of phantoms: a JSON object with `synthetic` true, the version of cxrfast, and the parameters."""
README_FIRST_WORDS = "These are SYNTHETIC images, drawn by cxrfast's phantom generator"
"""How README.txt begins in a folder of phantoms, in every version."""
SIDE_IN_MM = 360
"""Side of every phantom. The tables have it as pixel spacing × width, which no detector of the release has."""

_TABLE = "Data_Entry_2017.csv"
_ROWS = 20  # of the table that are looked at
_LEVELS = 2  # folders above an image in which its data set is looked for: DIR/images/x.png


def write_marker(folder: Path, **parameters: Any) -> None:
    """Mark a folder as phantoms, drawn with these parameters."""
    content = {"synthetic": True, "cxrfast": cxrfast.__version__, **parameters}
    (folder / MARKER).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def is_phantoms(folder: str | os.PathLike) -> bool:
    """Whether the folder holds phantoms.

    They are known by the file :data:`MARKER`. Folders of earlier versions lack it. They are known by their README.txt,
    or by the first rows of their table: the images are squares with a side of 360 mm.
    """
    folder = Path(folder)
    try:
        if (folder / MARKER).is_file():
            return _marked(folder / MARKER)
        readme = folder / "README.txt"
        if readme.is_file():
            with readme.open(encoding="utf-8", errors="replace") as file:
                if file.read(len(README_FIRST_WORDS)) == README_FIRST_WORDS:
                    return True
        return (folder / _TABLE).is_file() and _has_geometry(folder / _TABLE)
    except OSError:
        return False


def is_phantom_image(path: str | os.PathLike) -> bool:
    """Whether an image file lies in a folder of phantoms: in the folder itself, or in its folder of images."""
    return any(is_phantoms(folder) for folder in list(Path(path).resolve().parents)[:_LEVELS])


def _marked(path: Path) -> bool:
    """A marker that cannot be read still marks: nothing else writes a file of this name."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return True
    return not isinstance(content, dict) or content.get("synthetic", True) is not False


def _has_geometry(table: Path) -> bool:
    """Whether the first rows have the size and the pixel spacing of phantoms."""
    with table.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = list(islice(csv.reader(file), 1, _ROWS + 1))
    return bool(rows) and all(_is_phantom_row(row) for row in rows)


def _is_phantom_row(row: list[str]) -> bool:
    try:
        width, height, *spacing = (float(cell) for cell in row[7:11])
    except ValueError:
        return False
    # Written with three decimals
    return len(spacing) == 2 and width == height > 0 and all(abs(x - SIDE_IN_MM / width) <= 0.0006 for x in spacing)
