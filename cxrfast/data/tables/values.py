"""Values of tables in the forms in which people write them: views, ages, sexes, identifiers, parts of a split."""

import re
from functools import lru_cache
from itertools import pairwise

from cxrfast.data.tables.csv_table import is_empty, parse_number

MAX_AGE = 120  # years; tables hold typing errors such as 414

_VIEWS = {
    **dict.fromkeys(("pa", "posteroanterior", "postero anterior", "posterior anterior"), "PA"),
    **dict.fromkeys(("ap", "anteroposterior", "antero posterior", "anterior posterior", "ap supine", "ap erect"), "AP"),
    **dict.fromkeys(("ap horizontal", "portable"), "AP"),
    **dict.fromkeys(("frontal", "front"), "frontal"),
    **dict.fromkeys(("lateral", "lat", "l", "ll", "rl", "left lateral", "right lateral", "side"), "lateral"),
}
_SEXES = {**dict.fromkeys(("m", "male", "man"), "M"), **dict.fromkeys(("f", "female", "woman", "w"), "F")}
_PARTS = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
    **dict.fromkeys(("train val", "trainval"), "train_val"),
}
_AGE = re.compile(r"(\d+(?:[.,]\d+)?)\s*([ymwd])?(?:ears?|o|onths?|eeks?|ays?)?", re.IGNORECASE)
_GROUPED = re.compile(r"[1-9]\d{0,2}(,\d{3})+|[1-9]\d{0,2}(\.\d{3})+")
_PER_YEAR = {"y": 1, "m": 12, "w": 52, "d": 365}


def plain(text: str) -> str:
    """Lower case, with single spaces in place of separators: to compare names."""
    return re.sub(r"[\s_\-./]+", " ", text).strip().casefold()


def parse_view(cell: str) -> str | None:
    """ "PA", "AP", "frontal" or "lateral"; another projection is its text in lower case; None for an empty cell."""
    if is_empty(cell) or plain(cell) in ("unknown", "unk"):
        return None
    return _VIEWS.get(plain(cell), cell.strip().lower())


def parse_sex(cell: str) -> str | None:
    """ "M", "F", or other text as it is; None for an empty cell."""
    if is_empty(cell) or plain(cell) in ("unknown", "u"):
        return None
    return _SEXES.get(plain(cell), cell.strip())


@lru_cache(maxsize=4096)
def parse_age(cell: str) -> int | None:
    """Whole years of "58", "58.0", "058Y", "005M" (months) or "013D" (days); None for an empty cell.

    Raises ValueError for other text. An age above :data:`MAX_AGE` is returned as it is.
    """
    text = cell.strip()
    if is_empty(text):
        return None
    found = _AGE.fullmatch(text)
    if found is None:
        raise ValueError(f"age is {cell!r}, expected years as in '58' or '058Y', months '005M' or days '013D'")
    return int(float(found[1].replace(",", ".")) / _PER_YEAR[(found[2] or "y").lower()])


def parse_identifier(cell: str) -> str | None:
    """The text of an identifier; "1.0", as pandas saves 1 beside missing values, is "1". None for an empty cell."""
    text = cell.strip()
    if is_empty(text):
        return None
    return re.sub(r"[.,]0+", "", text) if re.fullmatch(r"\d+[.,]0", text) else text


def without_zeros(identifier: str) -> str:
    """ "00000003" and "3" are one patient: tables of one data set write both."""
    return (identifier.lstrip("0") or "0") if identifier.isdecimal() else identifier


def parse_part(cell: str) -> str | None:
    """ "train", "val", "test" or "train_val"; None for an empty cell. Raises ValueError for other text."""
    if is_empty(cell):
        return None
    part = _PARTS.get(plain(cell))
    if part is None:
        raise ValueError(f"part of the split is {cell!r}, expected train, val or test")
    return part


def part_of_name(name: str) -> str | None:
    """The part that a file or folder name contains as a word: "instances_val2017" gives "val"."""
    words = [re.sub(r"\d+$", "", word) for word in plain(name).split()]
    if "trainval" in words or any(pair == ("train", "val") for pair in pairwise(words)):
        return "train_val"
    found = {_PARTS[word] for word in words if word in _PARTS and len(word) > 2}
    return found.pop() if len(found) == 1 else None


def parse_size(cell: str) -> float | None:
    """A width or height in whole pixels, also "2,048", "2.048" and "2048.0"; None for an empty cell or 0.

    Raises ValueError for other text.
    """
    text = re.sub(r"[.,]0{1,2}$", "", cell.strip())
    value = parse_number(re.sub(r"[.,]", "", text) if _GROUPED.fullmatch(text) else text)
    if value is not None and (value < 0 or value != int(value)):
        raise ValueError(f"size is {cell!r}, expected a whole number above 0")
    return value or None
