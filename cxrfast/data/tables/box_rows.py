"""Rows with boxes: their units and their frame, which a table has in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cxrfast.data.records import Box
from cxrfast.data.tables.box_columns import BoxColumns
from cxrfast.data.tables.csv_table import CsvTable
from cxrfast.data.tables.image_files import pixel_box
from cxrfast.data.tables.values import parse_size
from cxrfast.errors import CxrfastError

Size = tuple[float, float]

_FRACTION_TOLERANCE = 0.005  # by which a fraction may leave the image: about two pixels of 512


def box_columns(table: CsvTable, *, refuse_parts: bool) -> BoxColumns | None:
    """As :meth:`BoxColumns.among`, for the header of a table. Raises :class:`CxrfastError` with its path."""
    try:
        return BoxColumns.among(table.header, refuse_parts=refuse_parts)
    except ValueError as error:
        raise CxrfastError(f"{table.path}: {error}") from None


@dataclass(frozen=True)
class BoxRow:
    """One row with a box, as it is written."""

    line: int
    image: str
    class_name: str
    numbers: tuple[float, float, float, float]
    frame: Size | None  # stated in this row
    size: Size | None  # columns width and height, where they are not the sides


def parse_numbers(table: CsvTable, columns: BoxColumns, line: int, row: Sequence[str]) -> Box | None:
    """The four numbers of a row; None if all four cells are empty."""
    try:
        return columns.numbers(row, table.numbers(columns.places))
    except ValueError as error:
        raise table.error(line, str(error)) from None


def parse_pair(table: CsvTable, line: int, row: Sequence[str], width: int | None, height: int | None) -> Size | None:
    """A width and a height from two columns; None if there are no such columns or one cell is empty."""
    if width is None or height is None:
        return None
    try:
        w, h = parse_size(row[width]), parse_size(row[height])
    except ValueError as error:
        raise table.error(line, str(error)) from None
    return None if w is None or h is None else (w, h)


def resolve_boxes(
    table: CsvTable, columns: BoxColumns, rows: Sequence[BoxRow], size_of: Callable[[BoxRow], Size], notes: list[str]
) -> list[Box]:
    """The boxes of the rows as fractions of their image.

    Args:
        size_of: the frame in pixels of a row that does not state it.

    Raises:
        CxrfastError: units or frame that are ambiguous, or a box outside its image.
    """
    if not rows:
        return []
    fractions = _are_fractions(table, columns, rows)
    sizes = None if fractions or columns.uses_width else _sizes(table, columns, rows, notes)
    boxes, clipped = [], 0
    for number, row in enumerate(rows):
        frame: Size = (1.0, 1.0)
        if not fractions:
            frame = row.frame or (sizes[number] if sizes else None) or size_of(row)
        tolerance = 1.0 if min(frame) > 2 else _FRACTION_TOLERANCE
        try:
            box, was_clipped = pixel_box(columns.xyxy(row.numbers), *frame, tolerance=tolerance)
        except ValueError as error:
            assumed = not fractions and row.frame is None and "outside" in str(error)
            advice = "; if it is in pixels of another size, state that in frame_width and frame_height" * assumed
            raise table.error(row.line, f"{error}{advice}") from None
        clipped += was_clipped
        boxes.append(box)
    notes.append(f"boxes in {table.path.name}: {len(rows)}, {_describe(columns, rows, fractions, sizes)}")
    if clipped:
        notes.append(f"{table.path.name}: boxes that extend a little beyond their image, clipped: {clipped}")
    return boxes


def _describe(columns: BoxColumns, rows: Sequence[BoxRow], fractions: bool, sizes: Sequence[Size | None] | None) -> str:
    if fractions or all(row.frame == (1.0, 1.0) for row in rows):
        return f"{', '.join(columns.names)} taken as fractions of the image"
    if all(row.frame for row in rows):
        return "in pixels of the frame that the table states"
    if sizes is not None:
        return "in pixels; the columns width and height are taken as the size of the image"
    return "in pixels of the image files"


def _are_fractions(table: CsvTable, columns: BoxColumns, rows: Sequence[BoxRow]) -> bool:
    """Whether all boxes are fractions of the image. The whole table has one unit."""
    if all(row.frame is not None and max(row.frame) <= 1 for row in rows):
        return False  # a frame of 1×1 states it
    names = ", ".join(columns.names)
    largest = max(max(abs(number) for number in row.numbers) for row in rows)
    small = [row for row in rows if _looks_like_fractions(row)]
    if largest <= 1 + _FRACTION_TOLERANCE:
        if not small:
            raise table.error(
                rows[0].line, f"box [{names}] holds only 0 and 1: fractions or pixels? Add frame_width and frame_height"
            )
        return True
    if small:
        large = next(row for row in rows if not _looks_like_fractions(row))
        raise table.error(
            small[0].line, f"box [{names}] looks like fractions, but that of line {large.line} does not; use one unit"
        )
    return False


def _looks_like_fractions(row: BoxRow) -> bool:
    inside = max(abs(number) for number in row.numbers) <= 1 + _FRACTION_TOLERANCE
    return inside and any(number != int(number) for number in row.numbers)


def _sizes(
    table: CsvTable, columns: BoxColumns, rows: Sequence[BoxRow], notes: list[str]
) -> Sequence[Size | None] | None:
    """The columns width and height as the size of the image, or None if they repeat the sides of the boxes."""
    with_size = [row for row in rows if row.size is not None]
    if not with_size:
        return None

    def sides(row: BoxRow) -> Size:
        x1, y1, x2, y2 = columns.xyxy(row.numbers)
        return x2 - x1, y2 - y1

    def equals(row: BoxRow) -> bool:
        assert row.size is not None
        return all(abs(a - b) <= 1.0 for a, b in zip(row.size, sides(row), strict=True))

    if not all(equals(row) for row in with_size):
        return [row.size for row in rows]
    if all(max(abs(edge) for edge in columns.xyxy(row.numbers)[:2]) <= 1 for row in with_size):
        raise table.error(
            with_size[0].line,
            "width and height may be the sides of the box or the size of the image; rename them to frame_width and "
            "frame_height, or remove them",
        )
    notes.append(f"{table.path.name}: width and height repeat the sides of the boxes")
    return None
