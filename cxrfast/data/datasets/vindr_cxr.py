"""Reader for VinDr-CXR (Nguyen et al. 2022): the release on PhysioNet, the Kaggle competition, and resized copies.

Three radiologists read each training image. ``DataOptions.readers`` says how their readings become one label; the rules
are in ``shared/readers.py``. The test images of the release have the labels of a consensus of five radiologists.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cxrfast.data.class_names import ClassMatcher, describe_matches, is_no_finding
from cxrfast.data.datasets._vindr_tables import (
    CONSENSUS,
    KAGGLE,
    LOCAL,
    ImageRows,
    PixelBox,
    ReaderRows,
    Tables,
    find_table,
    label_columns,
    part_tables,
    read_boxes,
    read_labels,
    read_sizes,
)
from cxrfast.data.datasets.interface import DataOptions, DataSource, Layout
from cxrfast.data.datasets.shared.gathering import CLIPPED, REPEATED_ROWS, KnownSets, counted, file_notes
from cxrfast.data.datasets.shared.readers import Reading, merge_readings
from cxrfast.data.images import DICOM_SUFFIXES, image_size
from cxrfast.data.records import Box, Record
from cxrfast.data.tables.csv_table import column_names
from cxrfast.data.tables.image_files import ImageFiles, pixel_box
from cxrfast.errors import CxrfastError

_KAGGLE_COLUMNS = frozenset({"image_id", "class_name", "rad_id", "x_min"})
_STEMS = ("image_labels_train", "annotations_train", "image_labels_test", "annotations_test")
_TOLERANCE = 0.02  # share of the image's longer side by which a box may leave it


@dataclass
class _Counts:
    """What the notes say."""

    clipped: int = 0
    unplaced: int = 0  # boxes of missing images whose size is unknown
    implied: int = 0
    contradicted: int = 0
    disputed: int = 0
    outvoted: Counter[str] = field(default_factory=Counter)
    readers: Counter[int] = field(default_factory=Counter)
    consensus: int = 0


def read_vindr_cxr(root: Path, options: DataOptions = DataOptions()) -> DataSource:  # noqa: B008, frozen
    """Read the tables under ``root``, merge the readers, and find the images that exist.

    Reads ``annotations/image_labels_{train,test}.csv`` and ``annotations/annotations_{train,test}.csv`` of PhysioNet,
    which may also lie in ``root``, or ``train.csv`` of Kaggle. Images are ``train/<image_id>.dicom`` and ``test/…``, or
    PNG or JPEG copies. Boxes are in pixels of the original image, so a copy needs its size: columns ``width`` and
    ``height`` in the table of boxes, or a table ``train_meta.csv`` with ``image_id``, ``dim0`` (height) and ``dim1``
    (width).

    Raises :class:`CxrfastError`, with file and line, for files that are missing or inconsistent.
    """
    root = Path(root)
    tables, classes, read = _read_tables(root)
    for stem in ("train_meta", "test_meta"):
        sizes = find_table(root, stem)
        if sizes is not None:
            read_sizes(sizes, tables)
    files = ImageFiles(root)
    counts = _Counts()
    places = _find_images(files, tables)
    records, missing = [], []
    shared = KnownSets()
    for image, rows in tables.images.items():
        if places[image] is None:
            missing.append(image)
            if options.images_required:
                continue
        records.append(_record(root, image, places[image], rows, options, counts, shared))
    names = ", ".join(read)
    if not records:
        raise CxrfastError(
            f"none of the {len(missing)} images of {names} was found in {root} (first: {missing[0]}); unpack them into "
            "train/ and test/"
            if missing
            else f"{names} in {root} have no rows; restore the original files"
        )
    rule = options.readers or "majority"
    notes = [
        f"images read from {names}: {len(records)}",
        *file_notes(files, set(places.values()), missing, names, required=options.images_required),
        *_describe(counts, tables, rule),
        "the data set names no patients: every image counts as a patient of its own",
    ]
    class_notes = [text for text in (describe_matches(tables.spellings),) if text]
    return DataSource(
        root, "vindr-cxr", tuple(records), classes, _label_version(rule, counts), notes, class_notes, "image"
    )


def _record(
    root: Path,
    image: str,
    place: str | None,
    rows: ImageRows,
    options: DataOptions,
    counts: _Counts,
    shared: KnownSets,
) -> Record:
    """The record of one image."""
    size = _original_size(root, place, rows)
    readings = [_reading(draft, size, counts, options) for _, draft in sorted(rows.readers.items())]
    rule = options.readers or "majority"
    merged = merge_readings(readings, rule)
    _count(rows, merged.present, merged.disputed, counts)
    present = merged.present
    if not options.boxes_imply_labels:
        present = merge_readings([Reading(one.present, one.known) for one in readings], rule).present
    name = place or image
    return Record(
        image=name,
        path=root / name,
        patient=name,
        labels=shared.share(present),
        known=shared.share(merged.known),
        boxes=merged.boxes,
        width=None if size is None else round(size[0]),
        height=None if size is None else round(size[1]),
        split=rows.part,
    )


def _find_images(files: ImageFiles, tables: Tables) -> dict[str, str | None]:
    """Image -> its file, in the folder of its part or else anywhere."""
    places: dict[str, str | None] = {}
    image_of: dict[str, str] = {}
    for image, rows in tables.images.items():
        place = files.find(f"{rows.part or 'train'}/{image}") or files.find(image)
        if place is not None and image_of.setdefault(place, image) != image:
            raise CxrfastError(f"images {image_of[place]} and {image} of the tables are one file, {place}; rename one")
        places[image] = place
    return places


def _read_tables(root: Path) -> tuple[Tables, tuple[str, ...], list[str]]:
    """The tables, the classes and the names of the tables."""
    tables = Tables()
    kaggle = _kaggle_table(root)
    if kaggle is not None:
        read_boxes(kaggle, None, KAGGLE, tables)
        return tables, KAGGLE, [kaggle.name]
    parts = part_tables(root)
    names: dict[str, None] = {}
    for there in parts.values():
        if "labels" in there:
            matcher = ClassMatcher(tuple(names))
            columns = (name for name in label_columns(there["labels"]) if not is_no_finding(name))
            names.update(dict.fromkeys(name for name in columns if matcher.match(name) is None))
    classes = tuple(names) or LOCAL
    read = []
    for part, there in parts.items():
        if "labels" in there:
            read_labels(there["labels"], part, classes, tables)
            read.append(there["labels"].name)
        if "boxes" in there:
            read_boxes(there["boxes"], part, classes, tables)
            read.append(there["boxes"].name)
    return tables, classes, read


def _kaggle_table(root: Path) -> Path | None:
    path = find_table(root, "train", ("",))
    if any(find_table(root, stem) is not None for stem in _STEMS):  # the release comes first
        return None
    if path is None or not _KAGGLE_COLUMNS.issubset(column_names(path) or ()):
        return None
    return path


def _original_size(root: Path, path: str | None, rows: ImageRows) -> tuple[float, float] | None:
    """Width and height of the original image, which the boxes refer to; None if nothing needs it.

    Raises :class:`CxrfastError` for an image with boxes whose original size is not known.
    """
    boxed = [box for draft in rows.readers.values() for of in draft.boxes.values() for box in of.values()]
    if rows.size is not None or not boxed or path is None:
        return rows.size
    if path.lower().endswith(DICOM_SUFFIXES):
        return image_size(root / path)
    first = min(boxed, key=lambda box: box.line)
    raise CxrfastError(
        f"{first.table.path}, line {first.line}: boxes are in pixels of the original image, and the original size of "
        f"{path} is not known; add the columns width and height of the original to {first.table.path.name}, or a table "
        "train_meta.csv (image_id, dim0 = height, dim1 = width)"
    )


def _reading(draft: ReaderRows, size: tuple[float, float] | None, counts: _Counts, options: DataOptions) -> Reading:
    """One reader's findings, with boxes as fractions."""
    boxes: dict[str, tuple[Box, ...]] = {}
    for name, of in draft.boxes.items():
        counts.implied += draft.labelled and name not in draft.present
        if size is None:
            counts.unplaced += len(of)
        else:
            boxes[name] = tuple(_fractions(box, size, counts) for box in of.values())
    counts.contradicted += draft.no_finding and bool(draft.present or draft.boxes)
    # Without image labels the rows of boxes are the labels.
    stated = options.boxes_imply_labels or not draft.labelled
    present = draft.present | draft.boxes.keys() if stated else draft.present
    return Reading(frozenset(present), draft.known, boxes)


def _fractions(box: PixelBox, size: tuple[float, float], counts: _Counts) -> Box:
    try:
        inside, clipped = pixel_box(box.pixels, *size, tolerance=max(1.0, _TOLERANCE * max(size)))
    except ValueError as error:
        raise box.table.error(box.line, str(error)) from None
    counts.clipped += clipped
    return inside


def _count(rows: ImageRows, present: frozenset[str], disputed: frozenset[str], counts: _Counts) -> None:
    found = {name for draft in rows.readers.values() for name in draft.present | draft.boxes.keys()}
    counts.outvoted.update(found - present)
    counts.disputed += len(disputed)
    if CONSENSUS in rows.readers:
        counts.consensus += 1
    else:
        counts.readers[len(rows.readers)] += 1


def _label_version(rule: str, counts: _Counts) -> str:
    if not counts.readers:
        return "consensus"
    low, high = min(counts.readers), max(counts.readers)
    of = f"{high} reader{'s' if high > 1 else ''}" if low == high else f"{low} to {high} readers"
    return f"{rule} of {of}" + (", consensus in test" if counts.consensus else "")


def _describe(counts: _Counts, tables: Tables, rule: str) -> list[str]:
    notes = []
    if counts.readers:
        many = "; ".join(f"images by {number}: {count}" for number, count in sorted(counts.readers.items()))
        notes.append(f"readers merged by {rule}; {many}")
    notes += counted((counts.consensus, "images with labels of a consensus"))
    if counts.outvoted:
        listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.outvoted.items()))
        notes.append(f"findings of single readers without a majority, absent: {counts.outvoted.total()} ({listed})")
    return notes + counted(
        (counts.disputed, "findings with a majority whose boxes do not overlap, of which all boxes are kept"),
        (counts.implied, "findings of readers with a box but not the label, present"),
        (counts.contradicted, "readings of 'No finding' beside a finding, of which the finding is taken"),
        (counts.clipped, CLIPPED),
        (counts.unplaced, "boxes of missing images of unknown size, left out"),
        (tables.twice, REPEATED_ROWS),
        (tables.blank, "blank labels, unknown for that reader"),
    )


def _recognise(path: Path) -> str | None:
    if not path.is_dir():
        return None
    for stem in _STEMS:
        table = find_table(path, stem)
        names = () if table is None else column_names(table) or ()
        if table is not None and "image_id" in names and ("class_name" in names or stem.startswith("image_labels")):
            return table.relative_to(path).as_posix()
    kaggle = _kaggle_table(path)
    return None if kaggle is None else f"the columns of {kaggle.name}"


LAYOUT = Layout(
    "vindr-cxr",
    "VinDr-CXR",
    "a table annotations/annotations_train.csv, or train.csv with image_id, class_name, rad_id and x_min",
    _recognise,
    read_vindr_cxr,
    frozenset({"readers"}),
)
