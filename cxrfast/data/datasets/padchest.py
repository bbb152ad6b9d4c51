"""Reader for PadChest (Bustos et al. 2020): 160,000 images with up to 174 findings from reports in Spanish.

Labels that are no findings, by the data set's description: "normal" means that all findings are absent. "unchanged"
refers to an earlier report, "exclude" to a report that cannot be used, "suboptimal study" to an image that was hard to
read: then findings that are listed are present, and the others are unknown.
"""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from cxrfast.data.class_names import class_key, is_no_finding
from cxrfast.data.datasets.interface import DataOptions, DataSource, Layout
from cxrfast.data.datasets.shared.gathering import REPEATED_ROWS, counted, file_notes
from cxrfast.data.records import Record
from cxrfast.data.tables.csv_table import CsvTable, column_names, is_empty, parse_integer
from cxrfast.data.tables.image_files import ImageFiles
from cxrfast.data.tables.values import MAX_AGE, parse_identifier, parse_sex
from cxrfast.errors import CxrfastError

_TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
_TABLES = re.compile(r"padchest_chest_x_ray_images_labels.*\.csv(\.gz)?", re.IGNORECASE)
_IMAGE, _LABELS, _PATIENT = "ImageID", "Labels", "PatientID"
_FOLDER, _STUDY, _DATE, _BIRTH = "ImageDir", "StudyID", "StudyDate_DICOM", "PatientBirth"
_SEX, _PROJECTION, _METHOD = "PatientSex_DICOM", "Projection", "MethodLabel"
_WIDTH, _HEIGHT = "Columns_DICOM", "Rows_DICOM"

_ROUNDED = re.compile(r"\d+(\.\d+)?e\+\d+", re.IGNORECASE)  # identifiers have up to 39 digits
_INCOMPLETE = frozenset({"unchanged", "exclude", "suboptimal study"})
_VIEWS = {"pa": "PA", "ap": "AP", "ap_horizontal": "AP", "l": "lateral", "ll": "lateral", "costal": "costal"}
_NO_VIEW = frozenset({"", "exclude", "unk", "unknown"})

_TEXT = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LIST = re.compile(rf"\[\s*(?:{_TEXT}\s*(?:,\s*{_TEXT}\s*)*,?\s*)?\]")


@dataclass
class _Counts:
    """What the notes say."""

    rows: int = 0
    twice: int = 0
    without_labels: int = 0
    incomplete: Counter[str] = field(default_factory=Counter)
    normal_beside: int = 0
    by_network: int = 0
    without_patient: int = 0
    odd_ages: int = 0


@dataclass(frozen=True)
class _Labels:
    """One cell of labels."""

    findings: frozenset[str]
    complete: bool  # findings that are not listed are absent
    special: tuple[str, ...] = ()


def read_padchest(root: Path, options: DataOptions = DataOptions()) -> DataSource:  # noqa: B008, frozen
    """Read the table, and find the images that exist, in folders ``<ImageDir>/`` or in any other.

    Classes are all findings of the table, the most frequent first. Findings with one meaning (``mass`` and ``pulmonary
    mass``) are one class under the more frequent name.

    Raises :class:`CxrfastError`, with file and line, for files that are missing or inconsistent.
    """
    root = Path(root)
    path = _find_table(root)
    if path is None:
        raise CxrfastError(f"no {_TABLE} in {root}; copy it there from PadChest (.gz is read too)")
    counts = _Counts()
    files = ImageFiles(root)
    records, frequency, missing, used = _read_records(path, files, options, counts)
    if not records:
        raise CxrfastError(f"none of the {counts.rows} images of {path} was found in {root}; unpack the images there")
    class_names, same = _classes(frequency)
    if same:
        records = [_merged(record, same) for record in records]
    notes = [f"images read from {path.name}: {len(records)}"]
    notes += file_notes(files, used, missing, path.name, required=options.images_required)
    notes += _describe(counts, len(records))
    listed = ", ".join(f"{name} = {of}" for name, of in same.items())
    class_notes = [f"labels with one meaning are one class: {listed}"] if same else []
    version = "physicians"
    if counts.by_network:
        version = "a network" if counts.by_network == len(records) else "physicians and a network"
    return DataSource(root, "padchest", tuple(records), class_names, version, notes, class_notes)


def _find_table(root: Path) -> Path | None:
    if (root / _TABLE).is_file():
        return root / _TABLE
    if not root.is_dir():
        return None
    return next((p for p in sorted(root.iterdir()) if _TABLES.fullmatch(p.name) and p.is_file()), None)


def _read_records(
    path: Path, files: ImageFiles, options: DataOptions, counts: _Counts
) -> tuple[list[Record], Counter[str], list[str], set[str]]:
    """The records, how often each finding is in the table, the images without a file, and the files that are named."""
    optional = [_FOLDER, _STUDY, _DATE, _BIRTH, _SEX, _PROJECTION, _METHOD, _WIDTH, _HEIGHT]
    table = CsvTable(path, [_IMAGE, _LABELS, _PATIENT], optional)
    frequency: Counter[str] = Counter()
    records: list[Record] = []
    missing: list[str] = []
    seen: dict[str, int] = {}
    places: set[str] = set()
    for line, row in table.cells():
        name = row[_IMAGE]
        if is_empty(name):
            raise table.error(line, f"'{_IMAGE}' is empty")
        cells = hash(tuple(row.values()))  # 160,000 rows are not kept
        if name in seen:
            if seen[name] != cells:
                raise table.error(line, f"image {name} is listed twice, with different values")
            counts.twice += 1
            continue
        seen[name] = cells
        counts.rows += 1
        try:
            labels = _parse_labels(row[_LABELS])
            frequency.update(labels.findings)
            place = _find(files, row.get(_FOLDER, ""), name)
            if place is None:
                missing.append(name)
                if options.images_required:
                    continue
            if place is not None and place in places:
                raise ValueError(f"image {name} and one above are the same file {place}")
            places.add(place or name)
            record = _record(row, labels, place or name, files.root, counts)
        except ValueError as error:
            raise table.error(line, str(error)) from None
        _count_labels(labels, row.get(_METHOD, ""), counts)
        records.append(record)
    if not counts.rows:
        raise CxrfastError(f"{path} has no rows; restore the original file")
    return records, frequency, missing, places


def _find(files: ImageFiles, folder: str, name: str) -> str | None:
    """In the folder that the table names, or anywhere: copies are often in one folder."""
    number = parse_identifier(folder)
    if number and f"{number}/{name}" in files:
        return f"{number}/{name}"
    return (files.find(f"{number}/{name}") if number else None) or files.find(name)


def _record(row: dict[str, str], labels: _Labels, place: str, root: Path, counts: _Counts) -> Record:
    study = parse_identifier(row.get(_STUDY, ""))
    patient = parse_identifier(row[_PATIENT]) or ""
    if _ROUNDED.fullmatch(patient):
        raise ValueError(f"'{_PATIENT}' is {patient!r}, rounded by another program, so patients cannot be told apart")
    if not patient:
        counts.without_patient += 1
        patient = f"study {study}" if study else f"image {row[_IMAGE]}"
    age = _age(row.get(_DATE, ""), row.get(_BIRTH, ""))
    if age is not None and not 0 <= age <= MAX_AGE:
        counts.odd_ages += 1
        age = None
    return Record(
        image=place,
        path=root / place,
        patient=patient,
        labels=labels.findings,
        width=_size(row.get(_WIDTH, "")),
        height=_size(row.get(_HEIGHT, "")),
        view=_view(row.get(_PROJECTION, "")),
        age=age,
        sex=parse_sex(row.get(_SEX, "")),
        study=study,
        known=None if labels.complete else labels.findings,
    )


@cache
def _parse_labels(cell: str) -> _Labels:
    """The findings of "['pleural effusion', 'loc right']". Places ("loc …") are no findings."""
    if is_empty(cell):
        return _Labels(frozenset(), False)
    if not _LIST.fullmatch(cell.strip()):
        raise ValueError(f"'{_LABELS}' is {cell[:60]!r}, expected a list of texts as in ['normal']")
    texts = [re.sub(r"\\(.)", r"\1", text[1:-1]) for text in re.findall(_TEXT, cell)]
    names = [" ".join(text.split()).casefold() for text in texts]
    names = [name for name in dict.fromkeys(names) if name and not name.startswith("loc ") and name != "loc"]
    special = tuple(name for name in names if name in _INCOMPLETE or is_no_finding(name))
    findings = frozenset(names) - set(special)
    return _Labels(findings, bool(names) and not _INCOMPLETE & set(special), special)


def _count_labels(labels: _Labels, method: str, counts: _Counts) -> None:
    counts.by_network += "rnn" in method.casefold()
    counts.incomplete.update(name for name in labels.special if name in _INCOMPLETE)
    counts.normal_beside += any(name not in _INCOMPLETE for name in labels.special) and bool(labels.findings)
    counts.without_labels += not labels.findings and not labels.special


@cache
def _view(cell: str) -> str | None:
    text = cell.strip().casefold().replace(" ", "_")
    return None if is_empty(text) or text in _NO_VIEW else _VIEWS.get(text, text)


@cache
def _age(date: str, birth: str) -> int | None:
    """Years between the year of birth and the date of the study, YYYYMMDD."""
    digits, year = parse_integer(date), parse_integer(birth)
    if digits is None or not year:
        return None
    if not 19000101 <= digits <= 21001231:
        raise ValueError(f"'{_DATE}' is {date!r}, expected a date as in 20140915")
    return digits // 10000 - year


def _size(cell: str) -> int | None:
    value = parse_integer(cell)
    return value if value is not None and value > 0 else None


def _classes(frequency: Counter[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """All findings, the most frequent first, and those that mean a more frequent one -> that one."""
    of_key: dict[str, str] = {}
    same: dict[str, str] = {}
    for name in sorted(frequency, key=lambda name: (-frequency[name], name)):
        other = of_key.setdefault(class_key(name), name)
        if other != name:
            same[name] = other
    total: Counter[str] = Counter()
    for name, count in frequency.items():
        total[same.get(name, name)] += count
    return tuple(sorted(total, key=lambda name: (-total[name], name))), same


def _merged(record: Record, same: dict[str, str]) -> Record:
    if record.labels.isdisjoint(same):
        return record
    labels = frozenset(same.get(name, name) for name in record.labels)
    return replace(record, labels=labels, known=None if record.known is None else labels)


def _describe(counts: _Counts, images: int) -> list[str]:
    rest = ", the others from physicians" * (counts.by_network < images)
    incomplete = ", ".join(f"{name} {count}" for name, count in sorted(counts.incomplete.items()))
    return counted(
        (counts.twice, REPEATED_ROWS),
        (counts.without_labels, "images without labels, whose classes are unknown"),
        (
            counts.incomplete.total(),
            f"labels that a report or image is incomplete ({incomplete}), so findings that are not listed are unknown",
        ),
        (counts.normal_beside, "images labelled normal beside findings, of which the findings are taken"),
        (counts.by_network, f"images with labels from a network{rest}"),
        (counts.without_patient, "images without a patient, whose study, else the image, is taken as the patient"),
        (counts.odd_ages, f"ages below 0 or over {MAX_AGE} years, taken as unknown"),
    )


def _recognise(path: Path) -> str | None:
    table = _find_table(path)
    if table is None or not {_IMAGE.casefold(), _LABELS.casefold()}.issubset(column_names(table) or ()):
        return None
    return table.name


LAYOUT = Layout(
    "padchest",
    "PadChest",
    f"a table {_TABLE}",
    _recognise,
    read_padchest,
)
