"""Reader for CheXpert (Irvin et al. 2019): the full and the small release, whole or in part."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cxrfast.data.class_names import class_key, describe_matches
from cxrfast.data.datasets.interface import DataOptions, DataSource, Layout
from cxrfast.data.datasets.shared.chexpert_labels import LabelColumns, LabelCounts, RowLabels
from cxrfast.data.datasets.shared.gathering import REPEATED_ROWS, counted, file_notes, odd_ages
from cxrfast.data.records import Record
from cxrfast.data.tables.csv_table import CsvTable, column_names
from cxrfast.data.tables.image_files import ImageFiles
from cxrfast.data.tables.values import MAX_AGE, parse_age, parse_sex, parse_view
from cxrfast.errors import CxrfastError

_PARTS = {"train": "train", "valid": "val", "val": "val", "val_labels": "val", "test": "test", "test_labels": "test"}
_PLACE = re.compile(r"(patient\d+)/(study\d+)/view\d+(?:_([a-z]+))?", re.IGNORECASE)


class _Reader:
    """Reads the tables one after the other, with what they have in common."""

    def __init__(self, root: Path, options: DataOptions):
        self.root = root
        self.options = options
        self.uncertain = options.uncertain or "ignore"
        self.files = ImageFiles(root)
        self.records: list[Record] = []
        self.counts = LabelCounts()
        self.class_names: tuple[str, ...] = ()
        self.spellings: dict[str, str] = {}
        self.notes: list[str] = []
        self.missing: list[str] = []
        self.twice = self.old = 0
        self.lines: dict[str, tuple[str, RowLabels]] = {}  # path in a table -> table, labels
        self.image_of: dict[str, str] = {}  # file -> path in a table

    def read(self, path: Path, part: str) -> None:
        table = CsvTable(path, ["Path"], ["Sex", "Age", "Frontal/Lateral", "AP/PA"])
        columns = LabelColumns(table, self.uncertain, self.class_names)
        if not columns.class_names:
            raise CxrfastError(f"{path} has no column of a CheXpert class; restore the original file")
        self.class_names = columns.class_names
        self.spellings.update(columns.spellings)
        before, empty = len(self.records), True
        counts = LabelCounts()
        for line, row in table.rows():
            name = row[table.column["Path"]].strip().replace("\\", "/")
            labels = columns.labels(row, line)
            empty = empty and labels.empty
            if self._is_twice(table, line, name, labels):
                continue
            record = self._record(table, line, row, name, labels, path)
            if record is not None:
                counts.add(labels)
                self.records.append(replace(record, split=part))
        if empty and len(self.records) > before:
            self.notes.append(f"{path.name} holds no label: all classes are unknown in its images")
            nothing = frozenset[str]()
            self.records[before:] = [replace(record, known=nothing) for record in self.records[before:]]
        else:
            self.counts.blank += counts.blank
            self.counts.uncertain += counts.uncertain
            self.counts.contradicted += counts.contradicted
        if table.missing:
            self.notes.append(f"{path.name} has no column {', '.join(table.missing)}: left empty")

    def _is_twice(self, table: CsvTable, line: int, name: str, labels: RowLabels) -> bool:
        first = self.lines.get(name)
        if first is None:
            self.lines[name] = (table.path.name, labels)
            return False
        if first[0] != table.path.name:
            raise table.error(line, f"{name} is in {first[0]} too")
        if first[1] != labels:
            raise table.error(line, f"{name} has other labels in a row above")
        self.twice += 1
        return True

    def _record(
        self, table: CsvTable, line: int, row: Sequence[str], name: str, labels: RowLabels, path: Path
    ) -> Record | None:
        place = _PLACE.search(name)
        if place is None:
            raise table.error(line, f"'Path' is {name!r}, expected …/patient00001/study1/view1_frontal.jpg")
        found = self._find(name, path.parent)
        if found is None:
            self.missing.append(name)
            if self.options.images_required:
                return None
        elif self.image_of.setdefault(found, name) != name:
            raise table.error(line, f"{name} and {self.image_of[found]} are one file, {found}")
        cells = {column: row[at] for column, at in table.column.items()}
        try:
            age = parse_age(cells.get("Age", ""))
        except ValueError as error:
            raise table.error(line, str(error)) from None
        if (age or 0) > MAX_AGE:
            self.old += 1
            age = None
        return Record(
            image=found or name,
            path=self.root / (found or name),
            patient=place[1].casefold(),
            study=f"{place[1]}/{place[2]}".casefold(),
            labels=labels.present,
            known=labels.known,
            view=_view(cells.get("Frontal/Lateral", ""), cells.get("AP/PA", ""), place[3] or ""),
            age=age,
            sex=parse_sex(cells.get("Sex", "")),
        )

    def _find(self, name: str, folder: Path) -> str | None:
        """As the table has it, beside the table, or by patient, study and view (the batches of the full release)."""
        tail = name.partition("/")[2]
        beside = (folder / tail).relative_to(self.root).as_posix() if tail and ".." not in name else ""
        if beside in self.files:
            return beside
        parts = name.split("/")
        return self.files.find(name) or self.files.find("/".join(parts[-3:]))


def _view(side: str, projection: str, of_name: str) -> str | None:
    """ "lateral", or "AP", "PA" or "frontal" for a frontal image; from the file's name if the table does not say."""
    view = parse_view(side) or parse_view(of_name)
    if view != "frontal":
        return view
    known = parse_view(projection)
    return known if known in ("AP", "PA") else "frontal"


def read_chexpert(root: Path, options: DataOptions = DataOptions()) -> DataSource:  # noqa: B008, frozen
    """Read ``train.csv``, ``valid.csv`` and ``test.csv`` and find the images that exist.

    ``root`` holds the tables, or is the folder above. Uncertain labels (−1) are unknown unless ``options.uncertain`` is
    "zero" or "one". Blank labels are absent, as the authors count them; the notes give their number.

    Raises :class:`CxrfastError`, with file and line, for files that are missing or inconsistent.
    """
    root = Path(root)
    tables = _find_tables(root)
    if not tables:
        raise CxrfastError(f"no train.csv, valid.csv or test.csv of CheXpert in {root}; copy them there")
    reader = _Reader(root, options)
    for path, part in tables:
        reader.read(path, part)
    names = ", ".join(path.name for path, _ in tables)
    if not reader.records:
        first = f" (first: {reader.missing[0]})" if reader.missing else ""
        raise CxrfastError(
            f"none of the {len(reader.lines)} images of {names} was found in {root}{first}; unpack the images there"
        )
    notes = [
        f"images read from {names}: {len(reader.records)}",
        *file_notes(reader.files, reader.image_of, reader.missing, names, required=options.images_required),
        *reader.notes,
        *reader.counts.notes(reader.uncertain),
        *counted((reader.twice, REPEATED_ROWS), odd_ages(reader.old)),
    ]
    class_notes = [text for text in (describe_matches(reader.spellings),) if text]
    version = f"uncertain: {reader.uncertain}"
    return DataSource(root, "chexpert", tuple(reader.records), reader.class_names, version, notes, class_notes)


def _find_tables(root: Path) -> list[tuple[Path, str]]:
    """The tables of ``root``, else those of the first sub-folder that has some, with the part that each describes."""
    if not root.is_dir():
        return []
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        found: dict[str, Path] = {}
        for stem, part in _PARTS.items():
            for path in (folder / f"{stem}.csv", folder / f"{stem}.csv.gz"):
                if path.is_file() and _is_chexpert(path):
                    found.setdefault(part, path)
        if found:
            return [(path, part) for part, path in found.items()]
    return []


def _is_chexpert(path: Path) -> bool:
    names = column_names(path) or []
    keys = {class_key(name) for name in names}
    return "path" in names and {class_key("Cardiomegaly"), class_key("Enlarged Cardiomediastinum")} <= keys


def _recognise(path: Path) -> str | None:
    tables = _find_tables(path)
    return f"the columns of {tables[0][0].relative_to(path).as_posix()}" if tables else None


LAYOUT = Layout(
    "chexpert",
    "CheXpert",
    "a table train.csv, valid.csv or test.csv with Path and the CheXpert classes",
    _recognise,
    read_chexpert,
    frozenset({"uncertain"}),
)
