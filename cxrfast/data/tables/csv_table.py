"""Reader for tables of text (CSV), whose errors contain file, line, value and a remedy."""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from cxrfast.errors import CxrfastError

Column = str | tuple[str, ...]
"""A column's name, or several names under which it is known. The first one names it in :attr:`CsvTable.column`."""

_DELIMITERS = (",", ";", "\t")
_EMPTY = frozenset({"", "nan", "na", "n/a", "none", "null", "<na>"})
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
_SEPARATOR_LINE = re.compile(r"\"?sep=([,;\t])\"?(?:\r\n|\r|\n)", re.IGNORECASE)  # first line that Excel understands
# Either a thousand or a fraction: "1,024" and "1.024".
_COMMA_GROUPS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
_DOT_GROUPS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")
_DECIMAL_COMMA = re.compile(r"[+-]?(\d*|\d{1,3}(\.\d{3})+),\d*(e[+-]?\d+)?", re.IGNORECASE)


class CsvTable:
    """The rows of a CSV or Parquet file, with columns found by name.

    The file may be compressed (.gz), begin with a byte order mark, be encoded as UTF-8 or UTF-16, have lines that end
    in CR LF, and be separated by commas, semicolons or tabs; a first line ``sep=;`` states that. Names of columns are
    compared without case and surrounding spaces. Header fields without values (trailing separators) are ignored. A row
    without a field for a requested column is an error.
    """

    def __init__(self, path: Path, required: Sequence[Column], optional: Sequence[Column] = ()):
        self.path = path
        lines = _read_text(path)
        header, self.delimiter = _header(lines, required)
        self._reader = csv.reader(io.StringIO(lines, newline=""), delimiter=self.delimiter, skipinitialspace=True)
        for _ in range(2 if _SEPARATOR_LINE.match(lines) else 1):
            next(self._reader, None)
        self.header = [name.strip() for name in header]
        places: dict[str, int] = {}
        for place, name in enumerate(self.header):
            places.setdefault(name.casefold(), place)
        self.column: dict[str, int] = {}
        self._numbers: dict[tuple[int, ...], _Numbers] = {}
        self.missing: list[str] = []
        for column in (*required, *optional):
            names = (column,) if isinstance(column, str) else column
            found = next((places[name.casefold()] for name in names if name.casefold() in places), None)
            if found is not None:
                self.column[names[0]] = found
            elif column in required:
                there = ", ".join(name for name in self.header if name) or "none"
                wanted = " or ".join(f"'{name}'" for name in names)
                raise CxrfastError(f"{path} has no column {wanted} (columns found: {there}); restore the original file")
            else:
                self.missing.append(names[0])

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """(line number, fields) of every row that is not blank."""
        needed = max(self.column.values()) + 1 if self.column else 0
        try:
            for row in self._reader:
                if not any(row) or not any(map(str.strip, row)):
                    continue
                if len(row) < needed:
                    raise self.error(self._reader.line_num, f"{len(row)} fields, expected at least {needed}")
                yield self._reader.line_num, row
        except csv.Error as error:
            raise self.error(self._reader.line_num, f"the row cannot be read ({error})") from error

    def cells(self) -> Iterator[tuple[int, dict[str, str]]]:
        """(line number, column -> text without surrounding spaces) of every row, for the columns that were found.

        Slower than :meth:`rows`: for small tables.
        """
        for line, row in self.rows():
            yield line, {name: row[place].strip() for name, place in self.column.items()}

    def numbers(self, places: Iterable[int]) -> Callable[[str], float | None]:
        """Reads the cells of these columns: a number, or None for an empty cell. ValueError for other text.

        In a table that is separated by commas, other commas separate thousands ("1,024"). Other tables may also have
        decimal commas, and dots between thousands, so "1,024" and "1.024" may be a thousand or about one. Other numbers
        of these columns decide: "58,5" has a decimal comma, so dots separate thousands; "58.5" has a decimal point, so
        commas do. Without such numbers, commas separate thousands if a number is written without comma, and dots are
        decimal points if all numbers have one. Otherwise the table is refused with a :class:`CxrfastError`.
        """
        columns = tuple(places)
        if columns not in self._numbers:
            self._numbers[columns] = _Numbers(self, columns)
        return self._numbers[columns]

    def error(self, line: int, problem: str) -> CxrfastError:
        return CxrfastError(f"{self.path}, line {line}: {problem}; correct or remove the line")


class _Numbers:
    """See :meth:`CsvTable.numbers`. The table is only read for this where a number may be a thousand or a fraction."""

    def __init__(self, table: CsvTable, places: tuple[int, ...]):
        self.table = table
        self.places = places
        self.marks: tuple[bool, bool] | None = (False, False) if table.delimiter == "," else None

    def __call__(self, cell: str) -> float | None:
        if "," not in cell and not _DOT_GROUPS.fullmatch(cell.strip()):
            return parse_number(cell)
        if self.marks is None:
            self.marks = self._find_marks()
        return parse_number(cell, decimal_comma=self.marks[0], dot_groups=self.marks[1])

    def _find_marks(self) -> tuple[bool, bool]:
        """Whether there are decimal commas, and whether dots separate thousands."""
        comma = point = without = False
        commas, dots = [], []
        for line, row in CsvTable(self.table.path, ()).rows():
            for cell in (row[place].strip() for place in self.places if place < len(row)):
                if _COMMA_GROUPS.fullmatch(cell):
                    commas.append((line, cell))
                    point |= cell.count(",") > 1
                elif _DOT_GROUPS.fullmatch(cell):
                    dots.append((line, cell))
                    comma |= cell.count(".") > 1
                elif "," in cell or "." in cell:
                    comma |= cell.rfind(",") > cell.rfind(".")
                    point |= cell.rfind(".") > cell.rfind(",")
                else:
                    without = without or not is_empty(cell)
        if comma and point:
            unclear = [*commas, *dots]
        elif comma or point:
            unclear = []
        else:
            unclear = (commas if dots or not without else []) or (dots if without else [])
        if unclear:
            line, cell = unclear[0]
            raise self.table.error(
                line, f"{cell!r} may be a thousand or a fraction; write numbers without marks of thousands"
            )
        return comma, comma and not point


def is_empty(cell: str) -> bool:
    """Whether a cell has no value: blank, or a mark for a missing value such as NaN."""
    return cell.strip().casefold() in _EMPTY


def parse_number(cell: str, *, decimal_comma: bool = False, dot_groups: bool = False) -> float | None:
    """The number in a cell, None for an empty one. Raises ValueError for text that is not a finite number.

    Commas separate thousands ("1,024"), or decimals ("58,5") with ``decimal_comma``. Dots separate decimals, or
    thousands ("1.024") with ``dot_groups``. Where a table leaves that open,
    see :meth:`CsvTable.numbers`.
    """
    text = cell.strip()
    if is_empty(text):
        return None
    if dot_groups and _DOT_GROUPS.fullmatch(text):
        text = text.replace(".", "")
    elif decimal_comma and "," in text:
        if not _DECIMAL_COMMA.fullmatch(text):
            raise ValueError(f"{cell!r} is not a number")
        text = text.replace(".", "").replace(",", ".")
    elif _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    value = float(text)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{cell!r} is not a finite number")
    return value


def parse_integer(cell: str) -> int | None:
    """A whole number, also as pandas saves it beside missing values ("58.0"); None for an empty cell."""
    value = parse_number(cell)
    if value is None:
        return None
    if value != int(value):
        raise ValueError(f"{cell!r} is not a whole number")
    return int(value)


def column_names(path: Path) -> list[str] | None:
    """The header of a table in lower case, to recognise a layout; None for a file that is not a text table."""
    try:
        lines = _read_text(path, head=True)
        return [name.strip().casefold() for name in _header(lines, ())[0]]
    except CxrfastError:
        return None


def _read_text(path: Path, *, head: bool = False) -> str:
    """The text of the file, or its first lines."""
    if path.suffix.lower() == ".parquet":
        from cxrfast.data.tables.parquet import parquet_text

        return parquet_text(path, head=head)
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            data = file.read(65536) if head else file.read()
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        text = data.decode(encoding, errors="ignore" if head else "strict")
    except UnicodeDecodeError as error:
        raise CxrfastError(
            f"{path} cannot be read as a text table in UTF-8 or UTF-16 ({error}); save it as CSV in UTF-8, "
            "or restore the original file"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise CxrfastError(f"{path} cannot be read as a text table ({error}); restore the original file") from error
    if "\0" in text:
        raise CxrfastError(f"{path} cannot be read as a text table (it holds zero bytes); restore the original file")
    return text


def _header(text: str, required: Sequence[Column]) -> tuple[list[str], str]:
    """The header and the delimiter: the one with which the required columns are there, else the most frequent one."""
    stated = _SEPARATOR_LINE.match(text)
    text = text[stated.end() :] if stated else text
    end = re.search(r"[\r\n]", text)
    first = text if end is None else text[: end.start()]
    by_count = sorted(_DELIMITERS, key=lambda mark: -first.count(mark))
    if stated:
        return next(csv.reader([first], delimiter=stated[1], skipinitialspace=True), []), stated[1]

    def split(mark: str) -> list[str]:
        try:
            return next(csv.reader([first], delimiter=mark, skipinitialspace=True), [])
        except csv.Error:
            return []

    for mark in by_count:
        found = {name.strip().casefold() for name in split(mark)}
        alternatives = ((column,) if isinstance(column, str) else column for column in required)
        if all(any(name.casefold() in found for name in names) for names in alternatives):
            return split(mark), mark
    return split(by_count[0]), by_count[0]
