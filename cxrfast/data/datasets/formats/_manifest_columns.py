"""What the columns of a manifest mean."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from cxrfast.data.class_names import ClassMatcher, class_key, is_no_finding
from cxrfast.data.tables.box_columns import COORDINATES, column_key
from cxrfast.data.tables.csv_table import CsvTable, is_empty, parse_number
from cxrfast.errors import CxrfastError

# Names in lower case without separators. The first one that a table has is used.
_ROLES: dict[str, tuple[str, ...]] = {
    "image": ("image", "imageid", "imageindex", "imagename", "img", "imgid", "images", "dicomid", "sopinstanceuid"),
    "file": (
        "path",
        "filepath",
        "imagepath",
        "imgpath",
        "filename",
        "imagefilename",
        "imagefile",
        "file",
        "imgname",
        "pngpath",
        "jpgpath",
        "jpegpath",
        "dicompath",
        "dcmpath",
    ),
    "patient": ("patient", "patientid", "subject", "subjectid", "patientnumber", "mrn", "pid"),
    "study": ("study", "studyid", "studyinstanceuid", "studyuid", "exam", "examid", "accession", "accessionnumber"),
    "split": ("split", "subset", "partition", "part", "set"),
    "view": ("view", "viewposition", "projection", "appa"),
    "side": ("frontallateral",),  # beside AP/PA, in tables like those of CheXpert
    "age": ("age", "patientage", "ageyears", "ageatstudy", "anchorage"),
    "sex": ("sex", "gender", "patientsex", "patientgender"),
    "labels": ("labels", "findings", "findinglabels", "classes", "diagnoses", "classnames"),
    "label": ("label", "finding", "findinglabel", "class", "classname", "category", "categoryname", "diagnosis"),
    "frame_width": ("framewidth", "imagewidth", "imgwidth", "imagew", "imgw"),
    "frame_height": ("frameheight", "imageheight", "imgheight", "imageh", "imgh"),
    "width": ("width", "originalwidth", "originalimagewidth"),
    "height": ("height", "originalheight", "originalimageheight"),
}

# Columns that hold 0 and 1 in small tables and are no class.
_NO_CLASS = re.compile(
    r"|unnamed\d*|index|idx|row|rowid|id|number|followup|fold|count|boxid|annotationid|readerid|radid"
)

_TRUE = frozenset({"1", "true", "yes", "y", "t", "positive", "pos", "present"})
_FALSE = frozenset({"0", "false", "no", "n", "f", "negative", "neg", "absent"})
_UNCERTAIN = frozenset({"-1", "−1", "uncertain", "u", "unclear", "equivocal"})
_DISTINCT = 64  # more different values than this are no labels


@lru_cache(maxsize=1024)
def label_value(cell: str) -> int | None:
    """1, 0, −1 (uncertain), or None for an empty cell. Raises ValueError for other text."""
    if is_empty(cell):
        return None
    text = cell.strip().casefold()
    for value, texts in ((1, _TRUE), (0, _FALSE), (-1, _UNCERTAIN)):
        if text in texts:
            return value
    number = parse_number(text, decimal_comma=True) if "," in text else parse_number(text)  # "1,0"
    if number not in (1, 0, -1):
        raise ValueError(f"{cell!r}, expected 1, 0, -1 or an empty cell")
    return int(number)


def roles(header: Sequence[str]) -> dict[str, int]:
    """Role -> place of its column."""
    places: dict[str, int] = {}
    for place, name in enumerate(header):
        places.setdefault(column_key(name), place)
    return {
        role: places[next(n for n in names if n in places)] for role, names in _ROLES.items() if places.keys() & names
    }


def is_reserved(name: str) -> bool:
    """Whether a column of this name would not be taken for a class."""
    key = column_key(name)
    known = any(key in names for names in _ROLES.values()) or key in COORDINATES
    return known or _NO_CLASS.fullmatch(key) is not None or is_no_finding(name)


def image_column(header: Sequence[str]) -> str | None:
    """The name of the column that names the images."""
    found = roles(header)
    return next((header[found[role]] for role in ("image", "file") if role in found), None)


@dataclass
class WideColumns:
    """The columns that are classes, found by their values."""

    classes: dict[str, int] = field(default_factory=dict)  # class -> place
    no_finding: int | None = None
    notes: list[str] = field(default_factory=list)


class _Values:
    """The values of one column that may be a class."""

    def __init__(self, name: str):
        self.name = name
        self.counts: Counter[str] = Counter()
        self.lines: dict[str, int] = {}
        self.many = False

    def add(self, cell: str, line: int) -> None:
        if self.many:
            return
        if cell not in self.counts:
            self.lines[cell] = line
            self.many = len(self.counts) >= _DISTINCT
        self.counts[cell] += 1

    def others(self) -> list[str]:
        """The values that are no labels, in the order of their lines."""
        return [cell for cell in self.counts if not _is_label(cell)]


def _is_label(cell: str) -> bool:
    try:
        label_value(cell)
    except ValueError:
        return False
    return True


def _is_number(cell: str) -> bool:
    try:
        parse_number(cell)
    except ValueError:
        return False
    return True


def check_header(table: CsvTable) -> None:
    """Raise :class:`CxrfastError` if two columns have one name: it is not known which one counts."""
    counts = Counter(name.casefold() for name in table.header if name)
    for name in table.header:
        if counts[name.casefold()] > 1:
            raise CxrfastError(f"{table.path} has several columns '{name}'; remove or rename all but one")


def check_fields(table: CsvTable, line: int, row: Sequence[str]) -> None:
    """Raise :class:`CxrfastError` for a row with fewer or more fields than the header."""
    needed = max((place for place, name in enumerate(table.header, 1) if name), default=0)
    if len(row) < needed:
        raise table.error(line, f"{len(row)} fields, expected at least {needed}")
    if any(cell.strip() for cell in row[len(table.header) :]):
        raise table.error(
            line, f"{len(row)} fields, but the header has {len(table.header)}; put text with commas in quotes"
        )


def wide_columns(table: CsvTable, taken: set[int], *, keep_empty: bool) -> WideColumns:
    """Read the table once and find the columns of labels among those that are not ``taken``.

    ``keep_empty``: a column without any value is a class that is unknown in all images.
    """
    names = {place: name for place, name in enumerate(table.header) if place not in taken}
    columns = {place: _Values(name) for place, name in names.items() if not _NO_CLASS.fullmatch(column_key(name))}
    for line, row in table.rows():
        check_fields(table, line, row)
        for place, values in columns.items():
            values.add(row[place], line)
    found = WideColumns()
    ignored = [name for place, name in names.items() if place not in columns and name]
    for place, values in columns.items():
        if not _is_class(table, values, ignored, keep_empty):
            continue
        if is_no_finding(values.name):
            found.no_finding = place
        else:
            found.classes[values.name] = place
    ClassMatcher(list(found.classes))  # refuses two columns of one finding
    if ignored:
        found.notes.append(f"{table.path.name}: columns that are no classes are ignored: {', '.join(ignored)}")
    return found


def _is_class(table: CsvTable, values: _Values, ignored: list[str], keep_empty: bool) -> bool:
    others = values.others()
    given = sum(count for cell, count in values.counts.items() if not is_empty(cell))
    if not values.many and not others and (given or keep_empty):
        return True
    wrong = sum(values.counts[cell] for cell in others)
    text = next((cell for cell in others if not _is_number(cell)), None)
    if not values.many and text is not None and wrong * 2 < given:
        line = values.lines[text]
        raise table.error(line, f"'{values.name}' is {text!r}, expected 1, 0, -1 or an empty cell")
    example = f" ({others[0].strip()[:20]!r} in line {values.lines[others[0]]})" if others else " (empty)"
    ignored.append(values.name + example)
    return False


class LongLabels:
    """Splits cells such as ``Mass|Nodule`` into classes, which it collects in the order of their appearance."""

    def __init__(self, column: str, marks: Sequence[str] = ("|", ";", ",")):
        self.column = column
        self.marks = marks
        self.mark: str | None = None
        self.names: dict[str, str] = {}  # key -> the class's first spelling
        self.spellings: dict[str, str] = {}  # another spelling -> class

    def learn(self, cells: Counter[str]) -> None:
        """Find the separator and the classes of the whole column."""
        self.mark = next((mark for mark in self.marks if any(mark in cell for cell in cells)), None)
        for cell in cells:
            for name in self.split(cell):
                if is_no_finding(name):
                    continue
                first = self.names.setdefault(class_key(name), name)
                if name != first:
                    self.spellings[name] = first
        self._check_marks()
        if self.names and all(_is_number(name) for name in self.names.values()):
            numbers = ", ".join(sorted(self.names.values())[:5])
            raise CxrfastError(
                f"column '{self.column}' holds only the numbers {numbers}, which name no class; write names, or rename "
                "the column to the class that it labels"
            )

    def _check_marks(self) -> None:
        """Refuse rows that separate findings by different marks: they would make a class "Mass, Effusion"."""
        for name in self.names.values():
            for mark in {"|", ";", ","} - {self.mark}:
                parts = [part.strip(" '\"") for part in name.split(mark)]
                if len(parts) > 1 and all(class_key(part) in self.names for part in parts):
                    raise CxrfastError(
                        f"column '{self.column}' holds {name!r} and also {' and '.join(parts)}; separate findings by "
                        "one mark in all rows, such as |"
                    )

    def split(self, cell: str) -> list[str]:
        text = cell.strip()
        if text[:1] in "[({" and text[-1:] in "])}" and text:  # a list as Python prints it
            text = text[1:-1]
        parts = text.split(self.mark) if self.mark else [text]
        names = (part.strip().strip("'\"").strip() for part in parts)
        return [name for name in names if not is_empty(name)]

    def parse(self, cell: str) -> frozenset[str] | None:
        """The classes that a cell names; None for an empty cell. Raises ValueError for a contradiction."""
        names = self.split(cell)
        if not names:
            return None
        keys = {class_key(name) for name in names if not is_no_finding(name)}
        if keys and any(map(is_no_finding, names)):
            raise ValueError(f"'{self.column}' is {cell.strip()!r}: no finding beside a finding")
        return frozenset(self.names[key] for key in keys)
