"""The boxes of a manifest, in its own rows or in a table beside it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cxrfast.data.class_names import ClassMatcher, class_key, describe_matches, is_no_finding
from cxrfast.data.datasets.formats._manifest_columns import (
    LongLabels,
    check_fields,
    check_header,
    image_column,
    label_value,
    roles,
)
from cxrfast.data.datasets.shared.gathering import REPEATED_BOXES, counted
from cxrfast.data.image_names import ImageIndex
from cxrfast.data.images import image_size
from cxrfast.data.records import Box
from cxrfast.data.tables.box_columns import BoxColumns
from cxrfast.data.tables.box_rows import (
    BoxRow,
    Size,
    box_columns,
    parse_numbers,
    parse_pair,
    resolve_boxes,
)
from cxrfast.data.tables.csv_table import CsvTable, is_empty
from cxrfast.errors import CxrfastError


@dataclass(slots=True)
class Draft:
    """An image as far as its rows are read."""

    line: int
    image: str
    path: Path
    details: dict[str, Any]  # the other fields of its record
    wide: tuple[str, ...]  # cells of the columns that are classes
    present: set[str] = field(default_factory=set)  # findings that a cell or a row lists
    listed: bool = False  # its findings are listed, so all other classes of lists are absent
    no_finding: bool = False
    boxes: dict[str, tuple[Box, ...]] = field(default_factory=dict)


class BoxSheet:
    """Rows with boxes, to be resolved when all of them are known: a table has one unit."""

    def __init__(self, table: CsvTable, columns: BoxColumns):
        self.table = table
        self.columns = columns
        self.rows: list[BoxRow] = []
        self.found = roles(table.header)

    def add(self, line: int, row: list[str], image: str, class_name: str) -> bool:
        """Keep the box of a row; False if its cells are empty."""
        numbers = parse_numbers(self.table, self.columns, line, row)
        if numbers is None:
            return False
        frame = parse_pair(self.table, line, row, self.found.get("frame_width"), self.found.get("frame_height"))
        size = None
        if not self.columns.uses_width:
            size = parse_pair(self.table, line, row, self.found.get("width"), self.found.get("height"))
        self.rows.append(BoxRow(line, image, class_name, numbers, frame, size))
        return True

    def resolve(self, drafts: Mapping[str, Draft], notes: list[str], frames: Mapping[str, Size] | None = None) -> None:
        """Give the boxes to their images. ``frames`` are sizes that the manifest states for boxes."""
        sizes: dict[str, Size] = {}

        def size_of(row: BoxRow) -> Size:
            if row.image not in sizes:
                sizes[row.image] = (frames or {}).get(row.image) or self._size_of_file(drafts[row.image], row.line)
            return sizes[row.image]

        repeated = 0
        boxes = resolve_boxes(self.table, self.columns, self.rows, size_of, notes)
        for row, box in zip(self.rows, boxes, strict=True):
            of = drafts[row.image].boxes
            repeated += box in of.get(row.class_name, ())
            of[row.class_name] = tuple(dict.fromkeys((*of.get(row.class_name, ()), box)))
        notes += counted((repeated, f"{self.table.path.name}: {REPEATED_BOXES}"))

    def _size_of_file(self, draft: Draft, line: int) -> Size:
        stated = (draft.details["width"], draft.details["height"])
        advice = "state the frame of the boxes in columns frame_width and frame_height of the table"
        try:
            size = image_size(draft.path)
        except CxrfastError as error:
            raise self.table.error(line, f"a box in pixels of {draft.image}, but {error}; {advice}") from None
        if None not in stated and stated != size:
            raise self.table.error(
                line,
                f"a box in pixels of {draft.image}, whose file has {size[0]}×{size[1]} pixels and whose row says "
                f"{stated[0]}×{stated[1]}; {advice}",
            )
        return size


class Lists(Protocol):
    """What a table of boxes completes: the images of a manifest and their classes."""

    long: LongLabels | None
    notes: list[str]
    class_notes: list[str]

    @property
    def drafts(self) -> Mapping[str, Draft]: ...

    @property
    def names(self) -> Mapping[str, str | None]: ...  # a name in the manifest -> identity; None: left out

    def wide_classes(self) -> list[str]: ...


def read_box_table(path: Path, manifest: Lists) -> BoxSheet:
    """Read the table of boxes beside a manifest. Rows without a box list a finding, or "No finding"."""
    table = CsvTable(path, ())
    check_header(table)
    name, columns = image_column(table.header), box_columns(table, refuse_parts=True)
    found = roles(table.header)
    at_class = found.get("label", found.get("labels"))
    if name is None or columns is None:
        what = "'image'" if name is None else "of boxes (x_min, y_min, x_max, y_max; or x, y, width, height)"
        there = ", ".join(name for name in table.header if name) or "none"
        raise CxrfastError(f"{path} has no column {what} (columns found: {there}); name the columns so")
    classes = _Classes(table, at_class, manifest)
    sheet = BoxSheet(table, columns)
    at_image = table.header.index(name)
    strangers: dict[str, int] = {}
    identities = list(manifest.drafts)
    index = ImageIndex(identities)
    for line, row in table.rows():
        check_fields(table, line, row)
        image = row[at_image].strip()
        identity = _identity(table, line, image, manifest.names, index, identities)
        draft = None if identity is None else manifest.drafts.get(identity)
        if draft is None:
            if image not in manifest.names:
                strangers.setdefault(image, line)
            continue
        class_name = classes.of(line, row)
        if class_name is None:
            if parse_numbers(table, columns, line, row) is not None:
                raise table.error(line, "a box of 'No finding'")
            classes.mark_empty(line, draft)
        elif not sheet.add(line, row, draft.image, class_name) or classes.listing:
            classes.mark(line, draft, class_name)
    manifest.notes.extend(
        counted((len(strangers), f"{path.name}: images that are not in the manifest, boxes left out", list(strangers)))
    )
    classes.finish()
    return sheet


def _identity(
    table: CsvTable,
    line: int,
    image: str,
    names: Mapping[str, str | None],
    index: ImageIndex,
    identities: Sequence[str],
) -> str | None:
    if is_empty(image):
        raise table.error(line, "the name of the image is empty")
    if image in names:
        return names[image]
    try:
        place = index.find(image)
    except CxrfastError as error:
        raise table.error(line, str(error)) from None
    return None if place is None else identities[place]


class _Classes:
    """The classes of boxes, matched with those of the manifest."""

    def __init__(self, table: CsvTable, at: int | None, manifest: Lists):
        self.table = table
        self.at = at
        self.wide = manifest.wide_classes()
        self.manifest = manifest
        self.listing = False  # the boxes are the only labels
        if at is None and len(self.wide) != 1:
            raise CxrfastError(f"{table.path} has no column 'label' with the classes of its boxes; add one")
        if not self.wide and manifest.long is None:
            self.listing = True
            manifest.long = LongLabels(table.header[at or 0], ())
            manifest.long.learn(Counter(row[at] for _, row in CsvTable(table.path, ()).rows() if at is not None))
        known = [*self.wide, *(manifest.long.names.values() if manifest.long else ())]
        self.matcher = ClassMatcher(list(dict.fromkeys(known)))
        self.matched: dict[str, str] = {}

    def of(self, line: int, row: list[str]) -> str | None:
        """The class of a row, None for "No finding"."""
        text = self.wide[0] if self.at is None else row[self.at].strip()
        if is_empty(text):
            raise self.table.error(line, "a box without a class")
        if is_no_finding(text):
            return None
        if text not in self.matched:
            found = self.matcher.match(text)
            if found is None and self.manifest.long is None:
                expected = ", ".join(self.wide)
                raise self.table.error(line, f"class {text!r} of a box is no column of the manifest ({expected})")
            if found is None and self.manifest.long is not None:
                found = self.manifest.long.names.setdefault(class_key(text), text)
            self.matched[text] = found or text
        return self.matched[text]

    def mark(self, line: int, draft: Draft, class_name: str) -> None:
        if draft.no_finding:
            raise self.table.error(line, f"image {draft.image} has {class_name}, and no finding in another row")
        if class_name in self.wide:
            draft.boxes.setdefault(class_name, ())
        else:
            draft.listed = True
            draft.present.add(class_name)

    def mark_empty(self, line: int, draft: Draft) -> None:
        wide = dict(zip(self.wide, draft.wide, strict=False))
        found = next((name for name, cell in wide.items() if label_value(cell) == 1), None)
        found = found or min(draft.present | draft.boxes.keys(), default=None)
        if found is not None:
            raise self.table.error(line, f"image {draft.image} has no finding here, but {found} elsewhere")
        draft.no_finding = True
        draft.listed = not self.wide

    def finish(self) -> None:
        note = describe_matches({name: of for name, of in self.matched.items() if name != of})
        if note:
            self.manifest.class_notes.append(f"{self.table.path.name}: {note}")
