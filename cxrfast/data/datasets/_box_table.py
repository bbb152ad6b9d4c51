"""Boxes in tables: the columns that hold them, their units and their frame."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cxrfast.data.datasets._images import pixel_box
from cxrfast.data.datasets._manifest_columns import squash
from cxrfast.data.datasets._tables import CsvTable, is_empty
from cxrfast.data.datasets._values import parse_size
from cxrfast.data.records import Box
from cxrfast.errors import CxrfastError

Size = tuple[float, float]

_FRACTION_TOLERANCE = 0.005  # by which a fraction may leave the image: about two pixels of 512

# Names without separators, so that x_min and xmin are one; and what the last two numbers are.
_SYSTEMS: tuple[tuple[tuple[str, str, str, str], str], ...] = (
    (("x", "y", "w", "h"), "sides"),
    (("bboxx", "y", "w", "h"), "sides"),  # the header "Bbox [x,y,w,h]", which its commas split
    (("bboxx", "bboxy", "bboxw", "bboxh"), "sides"),
    (("bboxx", "bboxy", "bboxwidth", "bboxheight"), "sides"),
    (("xmin", "ymin", "xmax", "ymax"), "corners"),
    (("bboxxmin", "bboxymin", "bboxxmax", "bboxymax"), "corners"),
    (("bboxx1", "bboxy1", "bboxx2", "bboxy2"), "corners"),
    (("x1", "y1", "x2", "y2"), "corners"),
    (("x0", "y0", "x1", "y1"), "corners"),
    (("left", "top", "right", "bottom"), "corners"),
    (("cx", "cy", "w", "h"), "centre"),
    (("xcenter", "ycenter", "w", "h"), "centre"),
)
# These use width and height as sides, so they count only where no other columns give a box.
_SYSTEMS_OF_WIDTH: tuple[tuple[tuple[str, str, str, str], str], ...] = (
    (("x", "y", "width", "height"), "sides"),
    (("xmin", "ymin", "width", "height"), "sides"),
    (("left", "top", "width", "height"), "sides"),
    (("cx", "cy", "width", "height"), "centre"),
    (("xcenter", "ycenter", "width", "height"), "centre"),
)


@dataclass(frozen=True)
class BoxColumns:
    """Where a table has its boxes.

    ``width,height`` are the sides of a box where it cannot be read without them (``x,y,width,height``). Beside columns
    that give the whole box they are the size of the image.
    """

    places: tuple[int, int, int, int]
    kind: str  # "sides", "corners" or "centre"
    names: tuple[str, str, str, str]
    uses_width: bool  # the columns width and height are sides of the box
    number: Callable[[str], float | None]  # of the text in a cell


def box_columns(table: CsvTable) -> BoxColumns | None:
    """The columns of boxes, or None. Raises :class:`CxrfastError` if two sets of columns give boxes."""
    places: dict[str, int] = {}
    for place, name in enumerate(table.header):
        places.setdefault(squash(name), place)
    found = [(names, kind, False) for names, kind in _SYSTEMS if all(name in places for name in names)]
    found = found or [(names, kind, True) for names, kind in _SYSTEMS_OF_WIDTH if all(name in places for name in names)]
    if len(found) > 1:
        one, other = (", ".join(table.header[places[name]] for name in names) for names, _, _ in found[:2])
        raise CxrfastError(f"{table.path}: boxes are given twice, by {one} and by {other}; remove one of the two")
    if not found:
        single = next((places[name] for name in ("bbox", "box", "bndbox", "boundingbox") if name in places), None)
        if single is not None:
            raise CxrfastError(
                f"{table.path}: column '{table.header[single]}' does not say which numbers it holds; split it into "
                "x_min, y_min, x_max, y_max"
            )
        return None
    names, kind, uses_width = found[0]
    at = tuple(places[name] for name in names)
    shown = tuple(table.header[place] for place in at)
    return BoxColumns(at, kind, shown, uses_width, table.number_parser(at))  # type: ignore[arg-type]


@dataclass(frozen=True)
class BoxRow:
    """One row with a box, as it is written."""

    line: int
    image: str
    class_name: str
    numbers: tuple[float, float, float, float]
    frame: Size | None  # stated in this row
    size: Size | None  # columns width and height, where they are not the sides

    def corners(self, kind: str) -> Box:
        a, b, c, d = self.numbers
        if kind == "sides":
            return a, b, a + c, b + d
        return (a - c / 2, b - d / 2, a + c / 2, b + d / 2) if kind == "centre" else self.numbers


def parse_numbers(table: CsvTable, columns: BoxColumns, line: int, row: Sequence[str]) -> Box | None:
    """The four numbers of a row; None if all four cells are empty."""
    cells = [row[place].strip() for place in columns.places]
    if all(is_empty(cell) for cell in cells):
        return None
    shown = f"box [{', '.join(columns.names)}] is [{', '.join(cells)}]"
    try:
        numbers = [columns.number(cell) for cell in cells]
    except ValueError:
        raise table.error(line, f"{shown}, expected four numbers") from None
    if any(number is None for number in numbers):
        raise table.error(line, f"{shown}, expected four numbers or four empty cells")
    return tuple(numbers)  # type: ignore[return-value]


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
            box, was_clipped = pixel_box(row.corners(columns.kind), *frame, tolerance=tolerance)
        except ValueError as error:
            assumed = not fractions and row.frame is None and "outside" in str(error)
            advice = "; if it is in pixels of another size, state that in frame_width and frame_height" * assumed
            raise table.error(row.line, f"{error}{advice}") from None
        clipped += was_clipped
        boxes.append(box)
    notes.append(f"{table.path.name}: {len(rows)} boxes, {_describe(columns, rows, fractions, sizes)}")
    if clipped:
        notes.append(f"{table.path.name}: {clipped} boxes leave their image slightly: clipped")
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
        x1, y1, x2, y2 = row.corners(columns.kind)
        return x2 - x1, y2 - y1

    def equals(row: BoxRow) -> bool:
        assert row.size is not None
        return all(abs(a - b) <= 1.0 for a, b in zip(row.size, sides(row), strict=True))

    if not all(equals(row) for row in with_size):
        return [row.size for row in rows]
    if all(max(abs(edge) for edge in row.corners(columns.kind)[:2]) <= 1 for row in with_size):
        raise table.error(
            with_size[0].line,
            "width and height may be the sides of the box or the size of the image; rename them to frame_width and "
            "frame_height, or remove them",
        )
    notes.append(f"{table.path.name}: width and height repeat the sides of the boxes")
    return None
