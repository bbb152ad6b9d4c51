"""Values that the tables of many data sets have: patients, ages, sexes, projections."""

import re
from collections.abc import Callable, Sequence
from functools import cache

from cxrfast.data.datasets._tables import is_empty

MAX_AGE = 120  # years; higher ages are mistakes in the tables

_SAVED_AS_NUMBER = re.compile(r"\d+\.0+")
_AGE = re.compile(r"(\d+)(?:[.,]\d*)?\s*([YMWD]?)", re.IGNORECASE)
_LATERAL = ("lateral", "lat", "ll", "rl")
_FRONTAL = {"pa": "PA", "ap": "AP", "frontal": "frontal"}


def parse_id(cell: str) -> str:
    """An identifier without leading zeros and without the ".0" of pandas: "00000001", "1" and "1.0" are the same.

    An empty cell gives "".
    """
    text = cell.strip()
    if is_empty(text):
        return ""
    if _SAVED_AS_NUMBER.fullmatch(text):
        text = text.partition(".")[0]
    return (text.lstrip("0") or "0") if text.isdecimal() else text


@cache
def parse_age(cell: str) -> int | None:
    """Whole years of "58", "58.0", "058Y", "005M" (months), "003W" (weeks) or "013D" (days); None for an empty cell.

    Raises ValueError for other text.
    """
    text = cell.strip()
    if is_empty(text):
        return None
    parts = _AGE.fullmatch(text)
    if parts is None:
        raise ValueError(f"{cell!r}, expected years as in '58' or '058Y', '005M' or '013D'")
    per_year = {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}
    return int(parts[1]) // per_year[parts[2].upper()]


@cache
def parse_view(cell: str) -> str | None:
    """ "PA", "AP", "frontal", "lateral", None for an empty cell; the text in lower case for another projection."""
    text = cell.strip().casefold()
    if is_empty(text) or text == "unknown":
        return None
    if text in _LATERAL or "lateral" in text.split():
        return "lateral"
    return _FRONTAL.get(text, text)


@cache
def parse_sex(cell: str) -> str | None:
    """ "M" or "F"; None for an empty cell or "Unknown"; other text as it is."""
    text = cell.strip()
    if is_empty(text) or text.casefold() == "unknown":
        return None
    return {"male": "M", "m": "M", "female": "F", "f": "F"}.get(text.casefold(), text)


def parse_pixels(
    cells: Sequence[str], names: Sequence[str], number: Callable[[str], float | None]
) -> tuple[float, float, float, float] | None:
    """The four numbers of a box, as ``number`` reads a cell; None if all four cells are empty.

    Raises ValueError for text and for a box of which only some cells are empty.
    """
    shown = ", ".join(f"{name} {cell.strip() or 'empty'}" for name, cell in zip(names, cells, strict=True))
    try:
        a, b, c, d = (number(cell) for cell in cells)
    except ValueError:
        raise ValueError(f"box is {shown}, expected four numbers") from None
    if a is None and b is None and c is None and d is None:
        return None
    if a is None or b is None or c is None or d is None:
        raise ValueError(f"box is {shown}, expected four numbers")
    return a, b, c, d


def count_rows(found: int, missing: Sequence[str], files: int, tables: str, *, required: bool) -> list[str]:
    """Notes on images of the tables without a file, and on image files that no table names."""
    notes = []
    if missing:
        what = "left out" if required else "kept without pixels"
        notes.append(f"{len(missing)} images of {tables} have no file (first: {missing[0]}): {what}")
    if files > found:
        notes.append(f"{files - found} image files are not in {tables}: left out")
    return notes
