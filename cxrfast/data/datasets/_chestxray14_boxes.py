"""The box table of ChestX-ray14."""

from collections.abc import Callable
from pathlib import Path

from cxrfast.data.datasets.shared.gathering import counted
from cxrfast.data.labels import CLASSES
from cxrfast.data.records import Box
from cxrfast.data.tables.box_columns import four_numbers
from cxrfast.data.tables.csv_table import CsvTable
from cxrfast.data.tables.image_files import pixel_box

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
    clipped = 0
    places = [table.column[name] for name in _NUMBERS]
    number = table.numbers(places)
    for line, row in table.rows():
        image, label = row[table.column[_IMAGE]].strip(), row[table.column[_LABEL]].strip()
        label = ALIASES.get(label, label)
        if label not in CLASSES:
            raise table.error(line, f"unknown class {label!r} of a box, expected one of {', '.join(CLASSES)}")
        box, was_clipped = _parse_box([row[place] for place in places], number, table, line)
        clipped += was_clipped
        of_class = boxes.setdefault(image, {}).get(label, ())
        if box in of_class:
            raise table.error(line, f"the same box of {label} on {image} is listed twice")
        boxes[image][label] = (*of_class, box)
    notes += counted((clipped, f"boxes of {path.name} beyond the image by up to {TOLERANCE:g} pixel, clipped"))
    return boxes


def _parse_box(cells: list[str], number: Callable[[str], float | None], table: CsvTable, line: int) -> tuple[Box, bool]:
    try:
        numbers = four_numbers(cells, ("x", "y", "w", "h"), number)
        if numbers is None:
            raise ValueError("the box is empty, expected four finite numbers")
        x, y, w, h = numbers
        return pixel_box((x, y, x + w, y + h), FRAME, FRAME, tolerance=TOLERANCE)
    except ValueError as error:
        raise table.error(line, str(error)) from None
