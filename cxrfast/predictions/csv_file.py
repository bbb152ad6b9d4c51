"""Reads predictions from a CSV table: boxes, one row for each image and class, or one column for each class."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cxrfast.data.class_names import ClassMatcher, class_key, is_no_finding
from cxrfast.data.tables.box_columns import BoxColumns, column_key
from cxrfast.data.tables.csv_table import CsvTable
from cxrfast.errors import CxrfastError
from cxrfast.predictions.frames import FRAME, Frames
from cxrfast.predictions.parsed import ParsedPredictions

_IMAGE = ("image", "imageindex", "imageid", "imagename", "imagepath", "filename", "filepath", "path", "patientid")
_CLASS = ("class", "classname", "findinglabel", "finding", "category", "categoryname")
_SCORE = ("prob", "score", "confidence", "probability", "conf")
_LISTED = 8  # columns that a note names


def read_csv(path: Path, into: ParsedPredictions, class_names: Sequence[str]) -> None:
    """Read scores or boxes. With one column for each class, ``class_names`` tell which columns hold scores."""
    table = _Table(path)
    boxes = table.boxes
    if table.class_name is None:
        if boxes is not None:
            raise CxrfastError(f"{path} has boxes ({', '.join(boxes.names)}) but no column 'class'; add it")
        _read_wide(table, into, class_names)
    elif boxes is not None:
        _read_boxes(table, boxes, into)
    elif table.score is not None:
        for where, row in table.rows():
            if row[table.score].strip():
                name, of = row[table.image].strip(), row[table.class_name].strip()
                into.add_score(name, of, table.number(row[table.score], where), where)
    else:
        raise CxrfastError(f"{path} has a column 'class' but neither 'prob', 'score' nor x1, y1, x2, y2; add them")


class _Table:
    """A table with what its columns hold."""

    def __init__(self, path: Path):
        self.path = path
        self.text = CsvTable(path, [])
        self.header = self.text.header
        twice = [name for name, n in Counter(self.header).items() if name and n > 1]
        if twice:
            raise CxrfastError(f"{path} has column '{twice[0]}' twice; keep one of the two")
        place = {column_key(name): n for n, name in reversed(list(enumerate(self.header)))}
        image = next((place[name] for name in _IMAGE if name in place), None)
        if image is None:
            there = ", ".join(name for name in self.header if name) or "none"
            raise CxrfastError(f"{path} has no column 'image' (columns: {there}); add it")
        self.image: int = image
        self.class_name = next((place[name] for name in _CLASS if name in place), None)
        self.score = next((place[name] for name in _SCORE if name in place), None)
        try:
            self.boxes = BoxColumns.among(self.header)
        except ValueError as error:
            raise CxrfastError(f"{path}: {error}") from None
        self.numeric = self._box + (() if self.score is None else (self.score,))  # columns that hold numbers

    @property
    def _box(self) -> tuple[int, ...]:
        return () if self.boxes is None else (*self.boxes.places, *(self.boxes.size or ()))

    def rows(self, needed: Sequence[int] = ()) -> Iterator[tuple[str, list[str]]]:
        """(place for error messages, fields) of every row, complete in the columns that are read."""
        columns = [self.image, self.class_name, *self._box, self.score, *needed]
        ordered = [column for column in columns if column is not None]
        for line, row in self.text.rows():
            where = f"{self.path}, line {line}"
            short = next((column for column in ordered if column >= len(row)), None)
            if short is not None:
                raise CxrfastError(f"{where}: the row ends before column '{self.header[short]}'; complete or remove it")
            if any(cell.strip() for cell in row[len(self.header) :]):
                raise CxrfastError(
                    f"{where}: {len(row)} fields, expected {len(self.header)} as in the header; quote fields that "
                    "contain the delimiter"
                )
            yield where, row

    def number(self, cell: str, where: str) -> float:
        value = self.number_or_none(where)(cell)
        if value is None:  # also NaN, which a network that has failed writes as a score
            raise CxrfastError(f"{where}: {cell!r} is no finite number")
        return value

    def number_or_none(self, where: str) -> Callable[[str], float | None]:
        number = self.text.numbers(self.numeric)

        def parse(cell: str) -> float | None:
            try:
                return number(cell)
            except ValueError as error:
                reason = "finite number" if "finite" in str(error) else "number"
                raise CxrfastError(f"{where}: {cell!r} is no {reason}") from None

        return parse


def _read_boxes(table: _Table, columns: BoxColumns, into: ParsedPredictions) -> None:
    """A row whose box is empty names an image without a box."""
    assert table.class_name is not None
    frames = Frames(table.path, into)
    into.has_regions = True
    boxes = as_sides = away = empty = 0
    for where, row in table.rows():
        image, of = row[table.image].strip(), row[table.class_name].strip()
        try:
            box, size = columns.read(row, table.number_or_none(where))
        except ValueError as error:
            raise CxrfastError(f"{where}: {error}; complete or remove the row") from None
        if box is None:
            empty += 1
            into.images[image] = None
            if of and not is_no_finding(of):
                into.add_region_classes(of)
            continue
        if columns.size is not None and size is None:
            raise CxrfastError(f"{where}: the width or height of the image is empty; complete the row")
        width, height = size or (FRAME, FRAME)
        boxes += 1
        as_sides += abs(box[2] - box[0] - width) < 0.5 and abs(box[3] - box[1] - height) < 0.5
        away += max(box[:2]) > 0.5
        score = 1.0 if table.score is None else table.number(row[table.score], where)
        frames.add(image, of, box, (width, height), score, where)
    if columns.size_may_be_sides and away and as_sides == boxes:
        raise CxrfastError(
            f"{table.path}: width and height are the sides of every box, not of the image; remove them, or write the "
            "image's as image_width and image_height"
        )
    frames.close()
    if empty:
        into.notes.append(f"rows of {table.path.name} without a box, no region on their images: {empty}")
    if columns.unused:
        used, unused = ", ".join(columns.names), ", ".join(columns.unused)
        into.notes.append(f"boxes of {table.path.name} are read from {used}; not read: {unused}")


def _read_wide(table: _Table, into: ParsedPredictions, class_names: Sequence[str]) -> None:
    columns = _class_columns(table, class_names)
    if not columns:
        names = ", ".join(name for name in table.header if name)
        raise CxrfastError(f"{table.path} has no column 'class', nor one for each class; its columns are {names}")
    table.numeric = tuple(columns)
    for where, row in table.rows(list(columns)):
        for column, of in columns.items():
            if row[column].strip():
                into.add_score(row[table.image].strip(), of, table.number(row[column], where), where)
    unread = [name for n, name in enumerate(table.header) if name and n != table.image and n not in columns]
    if unread:
        more = f" and {len(unread) - _LISTED} more" if len(unread) > _LISTED else ""
        into.notes.append(f"columns of {table.path.name} that are not read: {', '.join(unread[:_LISTED])}{more}")


def _class_columns(table: _Table, class_names: Sequence[str]) -> dict[int, str]:
    """Column -> class. If there are columns prob_CLASS, these hold the scores; else columns that mean a class do.

    Two columns whose names contain the same class are an error, because one of them may hold labels.
    """
    header = list(enumerate(table.header))
    named = {n: name[len("prob_") :] for n, name in header if name.casefold().startswith("prob_")}
    if named:
        return named
    matcher = ClassMatcher(class_names)
    meant = {n: of for n, name in header if n != table.image and (of := matcher.match(name)) is not None}
    for n, of in meant.items():
        name = table.header[n]
        keys = {column_key(name), column_key(of), column_key(class_key(of))}
        for other, text in header:
            same = meant.get(other) == of
            contains = other not in meant and any(key in column_key(text) for key in keys)
            if other != n and (same or contains):
                remedy = f"Call the one with the scores prob_{name}, in all classes"
                raise CxrfastError(f"{table.path}: column '{name}' or '{text}'? {remedy}")
    return {n: table.header[n] for n in meant}
