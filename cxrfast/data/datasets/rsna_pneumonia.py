"""Reader for the RSNA Pneumonia Detection Challenge (Shih et al. 2019), on Kaggle since 2018.

Its one class is called Pneumonia here, as the challenge calls its target: a box is a lung opacity that is suspicious
for pneumonia. "Lung Opacity" of CheXpert or VinDr-CXR also includes opacities of other causes, which are negative here
("No Lung Opacity / Not Normal"). Therefore the two names are not synonyms; ``--map "Pneumonia=Lung Opacity"`` renames.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cxrfast.data.datasets.interface import DataOptions, DataSource, Layout
from cxrfast.data.datasets.shared.gathering import CLIPPED, REPEATED_ROWS, counted, file_notes
from cxrfast.data.images import DICOM_SUFFIXES, image_size
from cxrfast.data.records import Box, Record
from cxrfast.data.tables.box_columns import four_numbers
from cxrfast.data.tables.csv_table import Column, CsvTable, column_names, is_empty, parse_integer
from cxrfast.data.tables.image_files import ImageFiles, pixel_box
from cxrfast.data.tables.values import parse_age, parse_sex, parse_view
from cxrfast.errors import CxrfastError

PNEUMONIA = "Pneumonia"
FRAME = (1024.0, 1024.0)  # all images of the challenge have this size; boxes of resized copies are in it too

_STEMS = ("stage_2_train_labels", "stage2_train_metadata", "stage_1_train_labels")
_CLASS_STEMS = ("stage_2_detailed_class_info", "stage_1_detailed_class_info")
_IMAGE_FOLDERS = ("stage_2_train_images", "stage_1_train_images", "Training/Images")
_ID: Column = ("patientId", "patient_id")
_BOX = ("x", "y", "width", "height")
_TARGET: Column = ("Target", "label")
_VIEW: Column = ("position", "ViewPosition", "view")
_CLASSES = {"normal": "Normal", "no lung opacity / not normal": "No Lung Opacity / Not Normal"}
_CLASSES["lung opacity"] = "Lung Opacity"
_TOLERANCE = 0.02  # share of the image's longer side by which a box may leave it

Pixels = tuple[float, float, float, float]


@dataclass
class _Case:
    """One image of the table."""

    target: int
    boxes: dict[Pixels, int] = field(default_factory=dict)  # xyxy -> line
    details: tuple[int | None, str | None, str | None] = (None, None, None)  # age, sex, view
    finding: str | None = None  # of the table of detailed classes


def read_rsna_pneumonia(root: Path, options: DataOptions = DataOptions()) -> DataSource:  # noqa: B008, frozen
    """Read ``stage_2_train_labels.csv`` and ``stage_2_detailed_class_info.csv``, and find the images that exist.

    Images are ``stage_2_train_images/<patientId>.dcm``, or PNG or JPEG copies. Boxes are in pixels of the DICOM image,
    or of the released 1024×1024 image for copies. The challenge's own test images have no labels and are left out.

    Raises :class:`CxrfastError`, with file and line, for files that are missing or inconsistent.
    """
    root = Path(root)
    path = _find_table(root, _STEMS)
    if path is None:
        raise CxrfastError(f"no {_STEMS[0]}.csv in {root}; copy it there from the RSNA challenge")
    notes: list[str] = []
    table, cases = _read_labels(path, notes)
    _read_classes(root, cases, notes)
    files = ImageFiles(root)
    places = {name: _find(files, name) for name in cases}
    frames = _frames(root, places, cases, notes)
    records, missing = [], []
    clipped = 0
    labels = {1: frozenset({PNEUMONIA}), 0: frozenset[str]()}
    for name, case in cases.items():
        place = places[name]
        if place is None:
            missing.append(name)
            if options.images_required:
                continue
        boxes = []
        for pixels, line in case.boxes.items():
            box, was_clipped = _fractions(pixels, frames.get(name, FRAME), table, line)
            clipped += was_clipped
            boxes.append(box)
        age, sex, view = case.details
        records.append(
            Record(
                image=place or name,
                path=root / (place or name),
                patient=name,
                labels=labels[case.target],
                boxes={PNEUMONIA: tuple(boxes)} if boxes else {},
                view=view,
                age=age,
                sex=sex,
            )
        )
    if not records:
        raise CxrfastError(
            f"none of the {len(cases)} images of {path} was found in {root}; unpack them into {_IMAGE_FOLDERS[0]}/"
        )
    notes.insert(0, f"images read from {path.name}: {len(records)}")
    notes[1:1] = file_notes(files, set(places.values()), missing, path.name, required=options.images_required)
    notes += counted((clipped, CLIPPED))
    notes.append(
        "patientId identifies one image. The images are from ChestX-ray14, where a patient may have several, and the "
        "tables do not say which: splits are by image"
    )
    return DataSource(root, "rsna-pneumonia", tuple(records), (PNEUMONIA,), "radiologists", notes, [], "image")


def _find_table(root: Path, stems: tuple[str, ...]) -> Path | None:
    names = (root / (stem + suffix) for stem in stems for suffix in (".csv", ".csv.gz"))
    return next((path for path in names if path.is_file()), None)


def _read_labels(path: Path, notes: list[str]) -> tuple[CsvTable, dict[str, _Case]]:
    """One row for each box, and one for each image without a box."""
    table = CsvTable(path, [_ID, *_BOX, _TARGET], ["class", "age", ("sex", "gender"), _VIEW])
    cases: dict[str, _Case] = {}
    twice = unplaced = 0
    plain: set[str] = set()  # images with a row without a box
    number = table.numbers(table.column[name] for name in _BOX)
    for line, row in table.cells():
        name = row["patientId"]
        if is_empty(name):
            raise table.error(line, "'patientId' is empty")
        target = _target(table, line, row["Target"])
        try:
            pixels = four_numbers([row[column] for column in _BOX], _BOX, number)
            details = parse_age(row.get("age", "")), parse_sex(row.get("sex", "")), parse_view(row.get("position", ""))
        except ValueError as error:
            raise table.error(line, str(error)) from None
        case = cases.setdefault(name, _Case(target, details=details))
        if case.target != target:
            raise table.error(line, f"image {name} has Target {target} here and {case.target} in a row above")
        if pixels is not None and not target:
            raise table.error(line, f"image {name} has a box and Target 0")
        if "class" in table.column:
            _set_class(table, line, name, row["class"], case)
        if pixels is None:
            twice += name in plain
            unplaced += bool(target) and name not in plain
            plain.add(name)
            continue
        x, y, width, height = pixels
        xyxy = (x, y, x + width, y + height)
        twice += xyxy in case.boxes
        case.boxes.setdefault(xyxy, line)
    if not cases:
        raise CxrfastError(f"{path} has no rows; restore the original file")
    notes += counted(
        (unplaced, "images with Target 1 without a box, positives without an annotation"), (twice, REPEATED_ROWS)
    )
    return table, cases


def _target(table: CsvTable, line: int, cell: str) -> int:
    try:
        value = parse_integer(cell)
    except ValueError:
        value = None
    if value not in (0, 1):
        raise table.error(line, f"'Target' is {cell!r}, expected 1 or 0")
    return value


def _read_classes(root: Path, cases: dict[str, _Case], notes: list[str]) -> None:
    """The detailed classes, which tell healthy images from those with another finding."""
    path = _find_table(root, _CLASS_STEMS)
    if path is not None:
        table = CsvTable(path, [_ID, "class"])
        strangers = set()
        for line, row in table.cells():
            case = cases.get(row["patientId"])
            if case is None:
                strangers.add(row["patientId"])
            else:
                _set_class(table, line, row["patientId"], row["class"], case)
        notes += counted((len(strangers), f"images of {path.name} without labels, left out"))
    counts = Counter(case.finding for case in cases.values() if case.finding is not None)
    if not counts:
        notes.append(f"no {_CLASS_STEMS[0]}.csv: which images are healthy is not known")
        return
    other = counts[_CLASSES["no lung opacity / not normal"]]
    if other:
        notes.append(
            f"images with 'No Lung Opacity / Not Normal': {other}. They are negative for {PNEUMONIA}, but not healthy. "
            "They have no label, as healthy images have none"
        )


def _set_class(table: CsvTable, line: int, name: str, cell: str, case: _Case) -> None:
    finding = _CLASSES.get(" ".join(cell.casefold().split()))
    if finding is None:
        raise table.error(line, f"class is {cell!r}, expected one of {', '.join(_CLASSES.values())}")
    if case.finding not in (None, finding):
        raise table.error(line, f"image {name} is {finding!r} here and {case.finding!r} in a row above")
    if (finding == _CLASSES["lung opacity"]) != bool(case.target):
        raise table.error(line, f"image {name} is {finding!r} and has Target {case.target}")
    case.finding = finding


def _find(files: ImageFiles, name: str) -> str | None:
    exact = (files.find(f"{folder}/{name}") for folder in _IMAGE_FOLDERS)
    return next((path for path in exact if path is not None), None) or files.find(name)


def _frames(
    root: Path, places: dict[str, str | None], cases: dict[str, _Case], notes: list[str]
) -> dict[str, tuple[float, float]]:
    """Image -> the size that its boxes refer to, where that is not 1024×1024.

    A DICOM image of another size is its own frame, unless boxes do not fit it: then it is a resized copy.
    """
    sizes: dict[str, tuple[float, float]] = {}
    for name, case in cases.items():
        place = places[name]
        if case.boxes and place is not None and place.lower().endswith(DICOM_SUFFIXES):
            size = image_size(root / place)
            if size != FRAME:
                sizes[name] = size
    for name, (width, height) in sizes.items():
        room = _TOLERANCE * max(width, height)
        if any(box[2] > width + room or box[3] > height + room for box in cases[name].boxes):
            if all(max(box) <= FRAME[0] for other in sizes for box in cases[other].boxes):
                notes.append("the images are smaller than 1024×1024, and boxes do not fit them: boxes are of 1024×1024")
                return {}
            break
    return sizes


def _fractions(pixels: Pixels, frame: tuple[float, float], table: CsvTable, line: int) -> tuple[Box, bool]:
    try:
        return pixel_box(pixels, *frame, tolerance=_TOLERANCE * max(frame))
    except ValueError as error:
        raise table.error(line, str(error)) from None


def _recognise(path: Path) -> str | None:
    if not path.is_dir():
        return None
    table = _find_table(path, _STEMS)
    if table is None or not {"patientid", "target", "x", "width"}.issubset(column_names(table) or ()):
        return None
    return table.name


LAYOUT = Layout(
    "rsna-pneumonia",
    "RSNA Pneumonia Detection Challenge",
    "a table stage_2_train_labels.csv",
    _recognise,
    read_rsna_pneumonia,
)
