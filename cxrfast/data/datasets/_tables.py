"""Reader for CSV tables, whose errors contain file, line, value and a remedy."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from cxrfast.errors import CxrfastError


class CsvTable:
    """The rows of a CSV file, with columns found by name.

    Header fields without values (trailing commas) are ignored. A row without a value for a requested column is an
    error.
    """

    def __init__(self, path: Path, required: Sequence[str], optional: Sequence[str] = ()):
        self.path = path
        try:
            # utf-8-sig: tables saved again by a spreadsheet begin with a byte order mark
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise CxrfastError(f"{path} cannot be read as a text table ({error}); restore the original file") from error
        self._reader = csv.reader(text.splitlines())
        header = [name.strip() for name in next(self._reader, [])]
        self.column = {}
        for name in (*required, *optional):
            if name in header:
                self.column[name] = header.index(name)
            elif name in required:
                found = ", ".join(name for name in header if name) or "none"
                raise CxrfastError(f"{path} has no column '{name}' (columns found: {found}); restore the original file")
        self.missing = [name for name in optional if name not in self.column]

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """(line number, fields) of every row that is not blank."""
        needed = max(self.column.values()) + 1
        try:
            for row in self._reader:
                if not row:
                    continue
                if len(row) < needed:
                    raise self.error(self._reader.line_num, f"{len(row)} fields, expected at least {needed}")
                yield self._reader.line_num, row
        except csv.Error as error:
            raise self.error(self._reader.line_num, str(error)) from error

    def error(self, line: int, problem: str) -> CxrfastError:
        return CxrfastError(f"{self.path}, line {line}: {problem}; correct or remove the line")
