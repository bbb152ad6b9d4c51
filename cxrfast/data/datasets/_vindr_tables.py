"""The tables of VinDr-CXR: what each reader says about each image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cxrfast.data.class_names import ClassMatcher, is_no_finding
from cxrfast.data.datasets.shared.gathering import KnownSets
from cxrfast.data.tables.box_columns import four_numbers
from cxrfast.data.tables.csv_table import Column, CsvTable, is_empty, parse_number
from cxrfast.data.tables.values import parse_size
from cxrfast.errors import CxrfastError

Pixels = tuple[float, float, float, float]

# The findings that have boxes, in the order of the release's tables, and those of the Kaggle competition by class_id.
LOCAL = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Clavicle fracture",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Nodule/Mass",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "Rib fracture",
    "Other lesion",
)
KAGGLE = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
)

CONSENSUS = ""  # the reader of tables without a column of readers

_IMAGE: Column = ("image_id", "image", "id")
_READER: Column = ("rad_id", "radiologist_id")
_EDGES = ("x_min", "y_min", "x_max", "y_max")
_WIDTH: Column = ("width", "original_width")
_HEIGHT: Column = ("height", "original_height")


@dataclass
class PixelBox:
    pixels: Pixels
    table: CsvTable
    line: int


@dataclass
class ReaderRows:
    """What one reader says about one image, in pixels."""

    present: set[str] = field(default_factory=set)
    known: frozenset[str] = frozenset()
    boxes: dict[str, dict[Pixels, PixelBox]] = field(default_factory=dict)
    labelled: bool = False  # has a row of image labels
    no_finding: bool = False


@dataclass
class ImageRows:
    """One image of the tables."""

    part: str | None
    table: str
    readers: dict[str, ReaderRows] = field(default_factory=dict)
    size: tuple[float, float] | None = None  # of the original image, if a table has it


@dataclass
class Tables:
    """Everything that the tables say, and counts for the notes."""

    images: dict[str, ImageRows] = field(default_factory=dict)
    spellings: dict[str, str] = field(default_factory=dict)
    twice: int = 0
    blank: int = 0
    contradicted: int = 0


def label_columns(path: Path) -> list[str]:
    """The names of classes in the header of a table of image labels."""
    table = CsvTable(path, [_IMAGE], [_READER])
    taken = set(table.column.values())
    return [
        name
        for place, name in enumerate(table.header)
        if place not in taken and name and not name.casefold().startswith("unnamed:") and name.casefold() != "index"
    ]


def read_labels(path: Path, part: str | None, classes: Sequence[str], tables: Tables) -> None:
    """One row for each image and reader, one column for each class: 1, 0 or blank."""
    table = CsvTable(path, [_IMAGE], [_READER])
    matcher = ClassMatcher(classes)
    columns: list[tuple[str, int]] = []
    nothing: int | None = None
    for name in label_columns(path):
        of = matcher.match(name)
        if is_no_finding(name):
            nothing = table.header.index(name)
        elif of is not None:
            columns.append((of, table.header.index(name)))
            if of != name:
                tables.spellings[name] = of
    shared = KnownSets()
    last = max([nothing or 0, *(place for _, place in columns)])
    for line, row in table.rows():
        if len(row) <= last:
            raise table.error(line, f"{len(row)} fields, expected {last + 1}")
        image, reader = _who(table, row, line)
        present, known = set(), set()
        absent_all = nothing is not None and _flag(table, line, table.header[nothing], row[nothing]) == 1
        for name, place in columns:
            value = _flag(table, line, name, row[place])
            if value is None and not absent_all:
                tables.blank += 1
                continue
            known.add(name)
            if value:
                present.add(name)
        if absent_all and present:
            tables.contradicted += 1
        draft = _draft(tables, image, part, path, reader, table, line)
        fixed = shared.share(known)
        if draft.labelled:
            if (draft.present, draft.known) != (present, fixed):
                raise table.error(
                    line, f"image {image} of reader {reader or 'consensus'} has other labels in a row above"
                )
            tables.twice += 1
        draft.present, draft.known, draft.labelled, draft.no_finding = present, fixed, True, absent_all


def read_boxes(path: Path, part: str | None, classes: Sequence[str], tables: Tables) -> None:
    """One row for each box, and for each reader who found nothing a row "No finding"."""
    table = CsvTable(path, [_IMAGE, "class_name", *_EDGES], [_READER, _WIDTH, _HEIGHT])
    matcher = ClassMatcher(classes)
    number = table.numbers(table.column[edge] for edge in _EDGES)
    local = frozenset(classes) if set(classes) == set(KAGGLE) else frozenset(LOCAL).intersection(classes)
    for line, row in table.rows():
        image, reader = _who(table, row, line)
        name = row[table.column["class_name"]].strip()
        draft = _draft(tables, image, part, path, reader, table, line)
        _note_size(table, row, line, tables.images[image])
        if not draft.labelled and not draft.known:
            draft.known = local
        if is_no_finding(name):
            draft.no_finding = True
            continue
        of = matcher.match(name)
        if of is None:
            raise table.error(line, f"unknown class {name!r} of a box, expected one of {', '.join(classes)}")
        if of != name:
            tables.spellings[name] = of
        try:
            pixels = four_numbers([row[table.column[edge]] for edge in _EDGES], _EDGES, number)
        except ValueError as error:
            raise table.error(line, str(error)) from None
        if pixels is None:  # a finding without a place
            draft.present.add(of)
        elif pixels in draft.boxes.setdefault(of, {}):
            tables.twice += 1
        else:
            draft.boxes[of][pixels] = PixelBox(pixels, table, line)


def read_sizes(path: Path, tables: Tables) -> None:
    """Sizes of the original images: dim0 is the height, dim1 the width, as in numpy."""
    table = CsvTable(
        path, [_IMAGE, ("dim1", "width", "columns", "original_width"), ("dim0", "height", "rows", "original_height")]
    )
    for line, row in table.rows():
        entry = tables.images.get(row[table.column["image_id"]].strip())
        if entry is not None and entry.size is None:
            entry.size = _size(table, line, row[table.column["dim1"]], row[table.column["dim0"]])


def _who(table: CsvTable, row: Sequence[str], line: int) -> tuple[str, str]:
    image = row[table.column["image_id"]].strip()
    if not image:
        raise table.error(line, "'image_id' is empty")
    if "rad_id" not in table.column:
        return image, CONSENSUS
    reader = row[table.column["rad_id"]].strip()
    if is_empty(reader):
        raise table.error(line, f"'rad_id' of image {image} is empty, expected the reader")
    return image, reader


def _draft(
    tables: Tables, image: str, part: str | None, path: Path, reader: str, table: CsvTable, line: int
) -> ReaderRows:
    entry = tables.images.setdefault(image, ImageRows(part, path.name))
    if entry.part != part:
        raise table.error(line, f"image {image} is in {path.name} and in {entry.table}, expected one part")
    return entry.readers.setdefault(reader, ReaderRows())


def _flag(table: CsvTable, line: int, name: str, cell: str) -> int | None:
    try:
        value = parse_number({"true": "1", "false": "0"}.get(cell.strip().casefold(), cell))
    except ValueError:
        value = -1.0
    if value not in (None, 0.0, 1.0):
        raise table.error(line, f"'{name}' is {cell.strip()!r}, expected 1, 0 or blank")
    return None if value is None else int(value)


def _note_size(table: CsvTable, row: Sequence[str], line: int, entry: ImageRows) -> None:
    if "width" in table.column and "height" in table.column and entry.size is None:
        width, height = row[table.column["width"]], row[table.column["height"]]
        if not (is_empty(width) or is_empty(height)):
            entry.size = _size(table, line, width, height)


def _size(table: CsvTable, line: int, width: str, height: str) -> tuple[float, float]:
    try:
        values = parse_size(width), parse_size(height)
    except ValueError:
        values = None, None
    if values[0] is None or values[1] is None:
        raise table.error(line, f"size of the image is {width.strip()}×{height.strip()}, expected two numbers above 0")
    return values[0], values[1]


def find_table(root: Path, stem: str, folders: Sequence[str] = ("", "annotations")) -> Path | None:
    """``stem``.csv, also compressed, in one of the folders."""
    for folder in folders:
        for suffix in (".csv", ".csv.gz"):
            if (root / folder / (stem + suffix)).is_file():
                return root / folder / (stem + suffix)
    return None


def part_tables(root: Path) -> dict[str, Mapping[str, Path]]:
    """Part -> its tables "labels" and "boxes" in the release on PhysioNet."""
    found: dict[str, Mapping[str, Path]] = {}
    for part in ("train", "test"):
        both = {"labels": find_table(root, f"image_labels_{part}"), "boxes": find_table(root, f"annotations_{part}")}
        there = {kind: path for kind, path in both.items() if path is not None}
        if there:
            found[part] = there
    if not found:
        raise CxrfastError(
            f"no annotations/image_labels_train.csv, annotations/annotations_train.csv or train.csv in {root}; copy "
            "the tables of VinDr-CXR there"
        )
    return found
