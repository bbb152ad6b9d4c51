"""Reader for NIH ChestX-ray14 (Wang et al. 2017): the official layout, and those of copies with all images or a subset.

docs/data.md lists irregularities of the released files and how they are handled.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxrfast.data.class_names import ClassMatcher, describe_matches
from cxrfast.data.datasets._chestxray14_boxes import read_boxes
from cxrfast.data.datasets.interface import DataOptions, DataSource, Layout
from cxrfast.data.datasets.shared.gathering import IMPLIED, counted, odd_ages
from cxrfast.data.image_names import leaves_folder
from cxrfast.data.labels import CLASSES, NO_FINDING
from cxrfast.data.phantoms.marker import is_phantoms
from cxrfast.data.records import Box, Record
from cxrfast.data.tables.csv_table import CsvTable, column_names, parse_integer
from cxrfast.data.tables.image_files import ImageFiles
from cxrfast.data.tables.values import MAX_AGE, parse_age, parse_identifier, without_zeros
from cxrfast.errors import CxrfastError, UsageError

LABEL_FILES = {"2017": "Data_Entry_2017.csv", "2020": "Data_Entry_2017_v2020.csv"}
SAMPLE_FILE = "sample_labels.csv"  # a random sample of 5,606 images on Kaggle, with the 2017 labels
BOX_FILE = "BBox_List_2017.csv"
LIST_FILES = {"train_val": "train_val_list.txt", "test": "test_list.txt"}
# Kaggle's resized copy has these names.
_OTHER_NAMES = {
    BOX_FILE: "BBox_List_2017_Official_NIH.csv",
    "train_val_list.txt": "train_val_list_NIH.txt",
    "test_list.txt": "test_list_NIH.txt",
}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")

_IMAGE, _LABELS, _PATIENT = "Image Index", "Finding Labels", "Patient ID"
_FOLLOW_UP, _AGE, _SEX, _VIEW = "Follow-up #", "Patient Age", "Patient Gender", "View Position"
_WIDTH, _HEIGHT = "OriginalImage[Width", "Height]"  # one column name with a comma in it, hence two columns
_OPTIONAL = (
    _FOLLOW_UP,
    _AGE,
    (_SEX, "Patient Sex"),
    _VIEW,
    (_WIDTH, "OriginalImageWidth"),
    (_HEIGHT, "OriginalImageHeight"),
)

_MATCHER = ClassMatcher((*CLASSES, NO_FINDING))


def read_chestxray14(
    root: str | os.PathLike,
    *,
    labels: str = "auto",  # "2017", "2020" or "auto"
    boxes_imply_labels: bool = True,
    images_required: bool = True,
) -> DataSource:
    """Read the tables under ``root`` and find the images that exist.

    ``labels`` selects ``Data_Entry_2017.csv`` ("2017") or ``Data_Entry_2017_v2020.csv`` ("2020"). "auto" reads the 2017
    file, which the published results are based on, and the 2020 file only if the 2017 file is missing.

    The images may be in ``images/``, in ``images_001/images/`` … ``images_012/images/`` or beside the table. If none of
    them is there, all sub-folders are searched. Kaggle's sample has ``sample_labels.csv`` instead of the label file.

    188 boxes of the release have a class that is not among the 2017 labels of their image. A radiologist's box is
    stronger evidence than a label mined from a report, so the class becomes positive. ``boxes_imply_labels=False``
    leaves the labels unchanged.

    With ``images_required=False``, images whose file does not exist also have records.

    Raises :class:`CxrfastError`, with file and line, for files that are missing or inconsistent.
    """
    root = Path(root)
    if not root.is_dir():
        raise CxrfastError(f"no folder {root}; pass the folder that holds {LABEL_FILES['2017']} and the images")
    version, table_path = _label_file(root, labels)
    notes: list[str] = []
    CsvTable(table_path, [_IMAGE, _LABELS, _PATIENT])  # a table of another kind is an error before images are searched
    places = _find_images(root)
    if not _names_any(table_path, places):
        places = _search_folders(root, notes)
    splits = _read_lists(root)
    boxes: Mapping[str, Mapping[str, tuple[Box, ...]]] = {}
    box_path = _path(root, BOX_FILE)
    if box_path.is_file():
        boxes = read_boxes(box_path, notes)
    else:
        notes.append(f"no {BOX_FILE} in {root}: no image has boxes")

    spellings: dict[str, str] = {}
    records, total = _read_records(table_path, places, splits, boxes, notes, spellings, images_required)
    if not records:
        raise CxrfastError(
            f"none of the {total} images of {table_path} was found in {root} or its sub-folders; unpack the image "
            "archives there, or pass the folder that holds both table and images"
        )
    if boxes_imply_labels:
        records = _add_boxed_labels(records, notes)
    notes.insert(0, _describe(len(records), total, table_path.name, root))
    notes.extend(_describe_lists(root, splits, records))
    class_notes = [text for text in (describe_matches(spellings),) if text]
    named = (_path(root, name) for name in (BOX_FILE, *LIST_FILES.values()))
    tables = (table_path, *(path for path in named if path.is_file()))
    return DataSource(
        root,
        "chestxray14",
        tuple(records),
        CLASSES,
        version,
        notes,
        class_notes,
        tables=tables,
        synthetic=is_phantoms(root),
    )


def _path(root: Path, name: str) -> Path:
    """The file of this name, or of its other name if only that exists."""
    other = root / _OTHER_NAMES[name]
    return other if other.is_file() and not (root / name).is_file() else root / name


def _label_file(root: Path, labels: str) -> tuple[str, Path]:
    if labels not in ("auto", *LABEL_FILES):
        raise UsageError(f"labels is {labels!r}; expected 'auto', '2017' or '2020'")
    wanted = list(LABEL_FILES) if labels == "auto" else [labels]
    for version in wanted:
        if (root / LABEL_FILES[version]).is_file():
            return version, root / LABEL_FILES[version]
        if version == "2017" and (root / SAMPLE_FILE).is_file():
            return version, root / SAMPLE_FILE
    names = " or ".join(LABEL_FILES[version] for version in wanted)
    present = ", ".join(sorted(path.name for path in root.glob("*.csv"))) or "none"
    raise CxrfastError(
        f"no {names} in {root} (CSV files there: {present}); copy it there from the ChestX-ray14 release"
    )


def _find_images(root: Path) -> dict[str, tuple[str, str]]:
    """File name -> (folder, file name) of every image, and the same by stem for copies saved in another format."""
    folders = [root / "images"]
    for number in range(1, 13):
        folders += [root / f"images_{number:03d}" / "images", root / f"images_{number:03d}"]
    folders.append(root)
    found: dict[str, tuple[str, str]] = {}
    for folder in folders:
        if not folder.is_dir():
            continue
        for name in sorted(os.listdir(folder)):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in IMAGE_SUFFIXES:
                place = (str(folder), name)
                found.setdefault(name, place)
                found.setdefault(stem, place)
    return found


def _names_any(table_path: Path, places: Mapping[str, tuple[str, str]]) -> bool:
    """Whether one of these images is in the table."""
    if not places:
        return False
    table = CsvTable(table_path, [_IMAGE])
    at_image = table.column[_IMAGE]
    return any(_place(row[at_image].strip(), places) is not None for _, row in table.rows())


def _place(image: str, places: Mapping[str, tuple[str, str]]) -> tuple[str, str] | None:
    return places.get(image) or places.get(os.path.splitext(image)[0])


def _search_folders(root: Path, notes: list[str]) -> dict[str, tuple[str, str]]:
    """As :func:`_find_images`, in all sub-folders. Copies of one image in two folders must have the same size."""
    found: dict[str, tuple[str, str]] = {}
    twice: list[str] = []
    folders: Counter[str] = Counter()
    for path in ImageFiles(root).paths:
        folder, name = str((root / path).parent), os.path.basename(path)
        stem = os.path.splitext(name)[0]
        if stem in found:
            first = os.path.join(*found[stem])
            if os.path.getsize(first) != os.path.getsize(root / path):
                raise CxrfastError(
                    f"two different files may be image {stem}: {first} and {root / path}; move the copies that are "
                    "not wanted out of the folder"
                )
            twice.append(stem)
            continue
        found[stem] = found[name] = (folder, name)
        folders[os.path.dirname(path)] += 1
    if folders:
        most = folders.most_common(1)[0][0]
        more = f" and {len(folders) - 1} other folders" if len(folders) > 1 else ""
        notes.append(f"images found in {most}{more}")
    if twice:
        notes.append(f"image files in two folders, of which one is read: {len(twice)} (first: {twice[0]})")
    return found


def _read_lists(root: Path) -> dict[str, str]:
    """Image -> official list it is in."""
    splits: dict[str, str] = {}
    for split, file_name in LIST_FILES.items():
        path = _path(root, file_name)
        if not path.is_file():
            continue
        try:
            names = path.read_text(encoding="utf-8-sig").split()
        except (OSError, UnicodeDecodeError) as error:
            raise CxrfastError(f"{path} cannot be read ({error}); restore the original file") from error
        for name in names:
            if splits.setdefault(name, split) != split:
                raise CxrfastError(f"{name} is in {' and in '.join(LIST_FILES.values())}; remove it from one of them")
    return splits


def _read_records(
    table_path: Path,
    places: Mapping[str, tuple[str, str]],
    splits: Mapping[str, str],
    boxes: Mapping[str, Mapping[str, tuple[Box, ...]]],
    notes: list[str],
    spellings: dict[str, str],
    images_required: bool,
) -> tuple[list[Record], int]:
    """The records (of existing images only, if they are required) and the number of rows."""
    table = CsvTable(table_path, [_IMAGE, _LABELS, _PATIENT], _OPTIONAL)
    at_image, at_labels, at_patient = (table.column[name] for name in (_IMAGE, _LABELS, _PATIENT))
    records, seen = [], set()
    label_sets: dict[str, frozenset[str]] = {}  # a few hundred different cells in 112,120 rows
    over_age = 0
    for line, row in table.rows():
        image = row[at_image].strip()
        if image in seen:
            raise table.error(line, f"image {image} is listed twice")
        if not image:
            raise table.error(line, f"'{_IMAGE}' is empty")
        if leaves_folder(image):
            raise table.error(line, f"image {image!r}: expected a path inside {table_path.parent}")
        seen.add(image)
        cell = row[at_labels]
        try:
            if cell not in label_sets:
                label_sets[cell] = _parse_labels(cell, spellings)
            patient = _parse_patient(row[at_patient])
            place = _place(image, places)
            if place is None:
                if images_required:
                    continue
                place = (str(table_path.parent / "images"), image)
            details = _parse_details(row, table.column)
        except ValueError as error:
            raise table.error(line, str(error)) from None
        if (details["age"] or 0) > MAX_AGE:
            over_age += 1
            details["age"] = None
        records.append(
            Record(
                image=image,
                path=Path(*place),
                patient=patient,
                labels=label_sets[cell],
                boxes=boxes.get(image, {}),
                split=splits.get(image),
                **details,
            )
        )
    if table.missing:
        notes.append(f"{table_path.name} has no column {', '.join(table.missing)}: left empty")
    strangers = sum(image not in seen for image in boxes)
    notes += counted(
        odd_ages(over_age),
        (strangers, f"images of {BOX_FILE} that are not in {table_path.name}, whose boxes are left out"),
    )
    return records, len(seen)


def _parse_labels(cell: str, spellings: dict[str, str]) -> frozenset[str]:
    """The classes in a cell. Other spellings than the release's are added to ``spellings``."""
    names = [name.strip() for name in cell.split("|")]
    if not cell.strip() or any(name.lower() in ("", "nan", "none", "null") for name in names):
        raise ValueError(f"'{_LABELS}' is {cell!r}, expected class names or '{NO_FINDING}'")
    for place, name in enumerate(names):
        of = _MATCHER.match(name)
        if of is None:
            raise ValueError(f"unknown label {name!r}, expected '{NO_FINDING}' or one of {', '.join(CLASSES)}")
        if of != name:
            spellings[name] = names[place] = of
    if NO_FINDING in names:
        if len(names) > 1:
            raise ValueError(f"'{_LABELS}' is {cell!r}: '{NO_FINDING}' beside a finding")
        return frozenset()
    return frozenset(names)


def _parse_patient(cell: str) -> str:
    """Without leading zeros: the two label files write the same patient as 00000001 and as 1."""
    patient = parse_identifier(cell)
    if patient is None:
        raise ValueError(f"'{_PATIENT}' is {cell.strip()!r}, and splits by patient need it")
    return without_zeros(patient)


def _parse_details(row: list[str], column: Mapping[str, int]) -> dict[str, Any]:
    """The optional fields of a record."""
    text = {name: row[index].strip() for name, index in column.items()}
    return {
        "width": _parse_integer(text.get(_WIDTH, "")),
        "height": _parse_integer(text.get(_HEIGHT, "")),
        "view": text.get(_VIEW) or None,
        "age": _parse_age(text.get(_AGE, "")),
        "sex": text.get(_SEX) or None,
        "follow_up": _parse_integer(text.get(_FOLLOW_UP, "")),
    }


def _parse_age(cell: str) -> int | None:
    try:
        return parse_age(cell)
    except ValueError:
        expected = "years as in '58' or '058Y', '005M' or '013D'"
        raise ValueError(f"'{_AGE}' is {cell!r}, expected {expected}") from None


def _parse_integer(cell: str) -> int | None:
    try:
        return parse_integer(cell)
    except ValueError:
        return None


def _add_boxed_labels(records: list[Record], notes: list[str]) -> list[Record]:
    added: Counter[str] = Counter()
    result = []
    for record in records:
        extra = record.boxes.keys() - record.labels
        added.update({name: len(record.boxes[name]) for name in extra})
        result.append(replace(record, labels=record.labels | extra) if extra else record)
    if added:
        classes = ", ".join(f"{name} {count}" for name, count in sorted(added.items()))
        notes.append(f"{IMPLIED}: {added.total()} ({classes})")
    return result


def _describe(found: int, total: int, table: str, root: Path) -> str:
    if found == total:
        return f"images in {table}: {total}, all of them found under {root}"
    return f"images in {table}: {total}; found under {root}: {found}; the others are left out"


def _describe_lists(root: Path, splits: Mapping[str, str], records: list[Record]) -> list[str]:
    missing = [name for name in LIST_FILES.values() if not _path(root, name).is_file()]
    if missing:
        return [f"no {' and no '.join(missing)} in {root}: the official split cannot be used"]
    unlisted = sum(record.split is None for record in records)
    return counted((unlisted, "images in none of the official lists"))


def _recognise(path: Path) -> str | None:
    for name in (*LABEL_FILES.values(), SAMPLE_FILE):
        if (path / name).is_file() and (name != SAMPLE_FILE or _IMAGE.casefold() in (column_names(path / name) or ())):
            return name
    return None


def _read(path: Path, options: DataOptions) -> DataSource:
    return read_chestxray14(
        path,
        labels=options.labels,
        boxes_imply_labels=options.boxes_imply_labels,
        images_required=options.images_required,
    )


LAYOUT = Layout(
    "chestxray14",
    "NIH ChestX-ray14",
    f"a table {', '.join(LABEL_FILES.values())} or {SAMPLE_FILE}",
    _recognise,
    _read,
    frozenset({"labels"}),
)
