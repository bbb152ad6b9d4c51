"""The box table of ChestX-ray14."""

from collections.abc import Callable
from pathlib import Path

from cxrfast.data.datasets._tables import CsvTable
from cxrfast.data.labels import CLASSES
from cxrfast.data.records import Box

FRAME = 1024.0  # boxes are in pixels of the released 1024×1024 images, also for resized copies
TOLERANCE = 1.0  # pixels by which rounding may move an edge out of the image

# The box table names Infiltrate what the label tables name Infiltration.
ALIASES = {"Infiltrate": "Infiltration"}

# The header has nine fields (the commas split "Bbox [x,y,w,h]", and three empty fields follow), the rows have six.
_IMAGE, _LABEL, _NUMBERS = "Image Index", "Finding Label", ("Bbox [x", "y", "w", "h]")


def read_boxes(path: Path, notes: list[str]) -> dict[str, dict[str, tuple[Box, ...]]]:
    """Mapping image -> class -> xyxy boxes, as fractions of the image size. Appends messages to ``notes``."""
    table = CsvTable(path, [_IMAGE, _LABEL, *_NUMBERS])
    boxes: dict[str, dict[str, tuple[Box, ...]]] = {}
    number = table.number_parser([table.column[name] for name in _NUMBERS])
    clipped = 0
    for line, row in table.rows():
        image, label = row[table.column[_IMAGE]].strip(), row[table.column[_LABEL]].strip()
        label = ALIASES.get(label, label)
        if label not in CLASSES:
            raise table.error(line, f"unknown class {label!r} of a box, expected one of {', '.join(CLASSES)}")
        box, was_clipped = _parse_box([row[table.column[name]] for name in _NUMBERS], number, table, line)
        clipped += was_clipped
        of_class = boxes.setdefault(image, {}).get(label, ())
        if box in of_class:
            raise table.error(line, f"the same box of {label} on {image} is listed twice")
        boxes[image][label] = (*of_class, box)
    if clipped:
        notes.append(f"{clipped} boxes of {path.name} extend beyond the image by up to {TOLERANCE:g} pixel: clipped")
    return boxes


def _parse_box(cells: list[str], number: Callable[[str], float | None], table: CsvTable, line: int) -> tuple[Box, bool]:
    shown = "[" + ", ".join(cell.strip() for cell in cells) + "]"
    try:
        numbers = [value for cell in cells if (value := number(cell)) is not None]
    except ValueError:
        raise table.error(line, f"box [x, y, w, h] is {shown}, expected four numbers, all finite") from None
    if len(numbers) < 4:
        raise table.error(line, f"box [x, y, w, h] is {shown}, expected four numbers, all finite")
    x, y, w, h = numbers
    if w <= 0 or h <= 0:
        raise table.error(line, f"box [x, y, w, h] is {shown}, expected a width and a height above 0")
    right, bottom = x + w, y + h
    if (
        min(x, y) < -TOLERANCE
        or max(right, bottom) > FRAME + TOLERANCE
        or max(x, y) >= FRAME
        or min(right, bottom) <= 0
    ):
        raise table.error(line, f"box [x, y, w, h] {shown} lies outside the {FRAME:g}×{FRAME:g} image")
    inside = tuple(min(max(value, 0.0), FRAME) for value in (x, y, right, bottom))
    left, top, right_in, bottom_in = (value / FRAME for value in inside)
    return (left, top, right_in, bottom_in), inside != (x, y, right, bottom)
