"""Reader for the SIIM-ACR Pneumothorax Segmentation challenge (Kaggle 2019)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cxrfast.data.datasets.interface import DataOptions, DataSource, Layout
from cxrfast.data.datasets.shared.gathering import REPEATED_ROWS, counted, file_notes
from cxrfast.data.images import IMAGE_SUFFIXES
from cxrfast.data.records import Box, Record
from cxrfast.data.tables.csv_table import CsvTable, column_names, is_empty
from cxrfast.data.tables.image_files import ImageFiles
from cxrfast.errors import CxrfastError

PNEUMOTHORAX = "Pneumothorax"
SIDE = 1024  # masks are 1024×1024, as the released images are; also those of resized copies

_TABLES = ("stage_2_train.csv", "train-rle.csv")
_IMAGE_FOLDERS = ("dicom-images-train", "dicom-images-test", "stage_2_images")
_IMAGE, _RLE = "ImageId", "EncodedPixels"


@dataclass
class _Case:
    """The rows of one image."""

    negative: bool = False  # -1
    unknown: bool = False  # an empty cell
    masks: dict[str, Box] = field(default_factory=dict)  # run lengths -> bounding box


def read_siim_acr(root: Path, options: DataOptions = DataOptions()) -> DataSource:  # noqa: B008, frozen
    """Read ``train-rle.csv`` or ``stage_2_train.csv``, and find the images that exist.

    A mask becomes its bounding box, as fractions of the 1024×1024 image. Images are
    ``dicom-images-train/<study>/<series>/<ImageId>.dcm``, or PNG or JPEG copies in any folder that is not of masks.

    Raises :class:`CxrfastError`, with file and line, for files that are missing or inconsistent.
    """
    root = Path(root)
    path = _find_table(root)
    if path is None:
        raise CxrfastError(f"no {' or '.join(_TABLES)} in {root}; copy it there from the SIIM-ACR challenge")
    notes: list[str] = []
    cases = _read_cases(path, notes)
    files = _image_files(root)
    known: Mapping[bool, frozenset[str]] = {True: frozenset({PNEUMOTHORAX}), False: frozenset()}
    records, missing, used = [], [], set()
    for name, case in cases.items():
        place = files.find(name)
        if place is None:
            missing.append(name)
            if options.images_required:
                continue
        elif place in used:
            raise CxrfastError(f"{path}: image {name} and one above are the same file {place}; keep one of them")
        used.add(place)
        boxes = tuple(dict.fromkeys(case.masks.values()))
        records.append(
            Record(
                image=place or name,
                path=root / (place or name),
                patient=name,
                labels=known[bool(boxes)],
                boxes={PNEUMOTHORAX: boxes} if boxes else {},
                known=known[not case.unknown],
            )
        )
    if not records:
        raise CxrfastError(
            f"none of the {len(cases)} images of {path} was found in {root}; unpack them into {_IMAGE_FOLDERS[0]}/"
        )
    notes.insert(0, f"images read from {path.name}: {len(records)}; each mask is its bounding box")
    notes[1:1] = file_notes(files, used, missing, path.name, required=options.images_required)
    notes.append(
        "the tables name no patients: splits are by image. The images are from ChestX-ray14, where a patient may have "
        "several"
    )
    return DataSource(root, "siim-acr", tuple(records), (PNEUMOTHORAX,), "radiologists", notes, [], "image")


def _find_table(root: Path) -> Path | None:
    names = (root / (name + suffix) for name in _TABLES for suffix in ("", ".gz"))
    return next((path for path in names if path.is_file()), None)


def _image_files(root: Path) -> ImageFiles:
    """Pictures of masks often have the names of their images: folders of masks are left out."""
    official = [name for name in _IMAGE_FOLDERS if (root / name).is_dir()]
    if official:
        return ImageFiles(root, official)
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in root.iterdir() if path.is_file()):
        return ImageFiles(root)
    return ImageFiles(root, [path.name for path in folders if "mask" not in path.name.casefold()])


def _read_cases(path: Path, notes: list[str]) -> dict[str, _Case]:
    """One row for each mask, and one with -1 for each image without pneumothorax."""
    table = CsvTable(path, [_IMAGE, _RLE])
    cases: dict[str, _Case] = {}
    twice = 0
    for line, row in table.cells():
        name, text = row[_IMAGE], " ".join(row[_RLE].split())
        if is_empty(name):
            raise table.error(line, f"'{_IMAGE}' is empty")
        case = cases.setdefault(name, _Case())
        negative, unknown = text in ("-1", "-1.0"), is_empty(text)
        twice += (negative and case.negative) or (unknown and case.unknown) or text in case.masks
        if negative:
            case.negative = True
        elif unknown:
            case.unknown = True
        elif text not in case.masks:
            try:
                case.masks[text] = _bounding_box(text)
            except ValueError as error:
                raise table.error(line, f"'{_RLE}' of {name} {error}") from None
        if case.negative + case.unknown + bool(case.masks) > 1:
            raise table.error(line, f"image {name} has '{_RLE}' {text[:20] or 'empty'!r}, but other rows contradict it")
    if not cases:
        raise CxrfastError(f"{path} has no rows; restore the original file")
    blank = sum(case.unknown for case in cases.values())
    notes += counted((twice, REPEATED_ROWS), (blank, f"images with an empty '{_RLE}', unknown"))
    return cases


def _bounding_box(text: str) -> Box:
    """The bounding box of SIIM's relative run lengths, as fractions.

    Pixels are counted down the columns. Each pair of numbers is a distance from the end of the run before (from the
    first pixel for the first run) and the length of a run. No mask is drawn, so the numbers cannot exhaust the memory.
    """
    try:
        numbers = [int(word) for word in text.split()]
    except ValueError:
        raise ValueError(f"is {text[:40]!r}, expected -1 or pairs of whole numbers") from None
    if len(numbers) % 2:
        raise ValueError(f"has {len(numbers)} numbers, expected pairs of distance and length")
    left, top, right, bottom = SIDE, SIDE, 0, 0
    position = 0
    for distance, length in zip(numbers[::2], numbers[1::2], strict=True):
        start = position + distance
        position = start + length
        if distance < 0 or length < 1:
            raise ValueError(f"has a run of distance {distance} and length {length}, expected at least 0 and 1")
        if position > SIDE * SIDE:
            raise ValueError(
                f"has a run that ends at pixel {position}, expected at most {SIDE * SIDE}; distances are from the end "
                "of the run before"
            )
        last = position - 1
        left, right = min(left, start // SIDE), max(right, last // SIDE + 1)
        one_column = start // SIDE == last // SIDE
        top = min(top, start % SIDE if one_column else 0)
        bottom = max(bottom, last % SIDE + 1 if one_column else SIDE)
    return (left / SIDE, top / SIDE, right / SIDE, bottom / SIDE)


def _recognise(path: Path) -> str | None:
    if not path.is_dir():
        return None
    table = _find_table(path)
    if table is None or not {_IMAGE.casefold(), _RLE.casefold()}.issubset(column_names(table) or ()):
        return None
    return table.name


LAYOUT = Layout(
    "siim-acr",
    "SIIM-ACR Pneumothorax Segmentation",
    f"a table {' or '.join(_TABLES)}",
    _recognise,
    read_siim_acr,
)
