"""Reader for a manifest: one table of images and labels, and optionally a table of boxes. See docs/data.md."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxrfast.data.class_names import ClassMatcher, describe_matches
from cxrfast.data.datasets.formats._manifest_boxes import BoxSheet, Draft, read_box_table
from cxrfast.data.datasets.formats._manifest_columns import (
    LongLabels,
    WideColumns,
    check_header,
    image_column,
    roles,
    wide_columns,
)
from cxrfast.data.datasets.formats._manifest_images import ManifestImages
from cxrfast.data.datasets.formats._manifest_labels import ManifestLabels
from cxrfast.data.datasets.interface import DataOptions, DataSource, Layout
from cxrfast.data.datasets.shared.gathering import REPEATED_ROWS, counted, group
from cxrfast.data.tables.box_columns import BoxColumns
from cxrfast.data.tables.box_rows import box_columns, parse_pair
from cxrfast.data.tables.csv_table import CsvTable, column_names, is_empty
from cxrfast.data.tables.values import (
    parse_age,
    parse_identifier,
    parse_part,
    parse_sex,
    parse_size,
    parse_view,
)
from cxrfast.errors import CxrfastError

TABLE_ENDS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


class ManifestReader:
    """Reads one manifest. The table is read three times, so that its rows are never all in memory as text."""

    def __init__(self, path: Path, options: DataOptions):
        self.path = path
        self.options = options
        self.notes: list[str] = []
        self.class_notes: list[str] = []
        table = self._open()
        check_header(table)
        self.roles = roles(table.header)
        if image_column(table.header) is None:
            there = ", ".join(name for name in table.header if name) or "none"
            raise CxrfastError(f"{path} has no column 'image' (columns found: {there}); add one, with paths of images")
        if "labels" in self.roles and "label" in self.roles:
            one, other = (table.header[self.roles[role]] for role in ("labels", "label"))
            raise CxrfastError(f"{path}: columns '{one}' and '{other}' may both list findings; remove or rename one")
        self.box_columns: BoxColumns | None = box_columns(table, refuse_parts=False)
        self.per_finding = "label" in self.roles  # one row for each finding, hence several rows for an image
        self.drafts: dict[str, Draft] = {}
        self.names: dict[str, str | None] = {}  # a name in the table -> identity; None: left out
        self.odd_ages: list[str] = []
        self.repeated = self.total = 0
        self._find_images()
        self.long = self._learn_labels()
        self.wide = self._learn_classes()
        self.inner = BoxSheet(table, self.box_columns) if self.box_columns else None

    def _open(self) -> CsvTable:
        return CsvTable(self.path, ())

    def _find_images(self) -> None:
        one = self.roles.get("image", self.roles.get("file"))
        assert one is not None
        self.at_image = one
        self.at_file = self.roles.get("file") if "image" in self.roles else None
        names = dict.fromkeys(row[one].strip() for _, row in self._open().rows() if len(row) > one)
        self.images = ManifestImages(
            self.path,
            [name for name in names if name],
            named_apart=self.at_file is not None,
            required=self.options.images_required,
            notes=self.notes,
        )

    def _learn_labels(self) -> LongLabels | None:
        at = self.roles.get("labels", self.roles.get("label"))
        if at is None:
            return None
        table = self._open()
        long = LongLabels(table.header[at], ("|", ";") if self.per_finding else ("|", ";", ","))
        try:
            long.learn(Counter(row[at] for _, row in table.rows() if len(row) > at))
        except CxrfastError as error:
            raise CxrfastError(f"{self.path}: {error}") from None
        return long

    def _learn_classes(self) -> WideColumns:
        taken = {*self.roles.values(), *(self.box_columns.places if self.box_columns else ())}
        found = wide_columns(self._open(), taken, keep_empty=self.long is None)
        self.notes.extend(found.notes)
        return found

    def read(self) -> DataSource:
        table = self._open()
        for line, row in table.rows():
            self._read_row(table, line, row)
        if not self.total:
            raise CxrfastError(f"{self.path} has no rows; add one for each image")
        self.images.check(self.total)
        self.notes.insert(0, f"images in {self.path.name}: {self.total}; read: {len(self.drafts)}")
        self.notes.extend(self.images.notes())
        if self.odd_ages:
            first, count = self.odd_ages[0], len(self.odd_ages)
            self.notes.append(f"{self.path.name}: ages in words (first: {first!r}), taken as unknown: {count}")
        self.notes += counted((self.repeated, f"{self.path.name}: {REPEATED_ROWS}"))
        self._read_boxes()
        return self._source()

    def _read_row(self, table: CsvTable, line: int, row: list[str]) -> None:
        if len(row) < len(table.header):
            row = [*row, *[""] * (len(table.header) - len(row))]  # blank header fields at the end; others were checked
        name = row[self.at_image].strip()
        if is_empty(name):
            raise table.error(line, f"'{table.header[self.at_image]}' is empty")
        try:
            identity = self._identity(name, row)
            if identity is None:
                return
            image, path = identity
            details = self._details(row)
            wide = tuple(row[place].strip() for place in self.wide.classes.values())
            wide += (row[self.wide.no_finding].strip(),) if self.wide.no_finding is not None else ()
            findings = self.long.parse(row[self._at_labels()]) if self.long else None
        except (ValueError, CxrfastError) as error:
            raise table.error(line, str(error)) from None
        new = Draft(line, image, path, details, wide)
        draft = self.drafts.setdefault(image, new)
        if draft is not new:
            self._check_repeated(table, line, draft, new, findings)
        if findings is not None:
            draft.listed = True
            draft.present |= findings
            draft.no_finding |= not findings
            if draft.no_finding and draft.present:
                raise table.error(line, f"image {name} has no finding in one row and {min(draft.present)} in another")
        if self.inner:
            self._add_box(table, line, row, draft, findings)

    def _at_labels(self) -> int:
        return self.roles.get("labels", self.roles.get("label", -1))

    def _identity(self, name: str, row: list[str]) -> tuple[str, Path] | None:
        file = row[self.at_file].strip() if self.at_file is not None else None
        if file is not None and is_empty(file):
            raise ValueError(f"the path of image {name} is empty")
        known = self.names.get(name)
        if known is not None and known in self.drafts and file in (None, self.drafts[known].details["file"]):
            return known, self.drafts[known].path
        if name in self.names and known is None:
            return None
        found = self.images.find(name, file)
        self.total += 1
        self.names[name] = found[0] if found else None
        if file is not None:
            self.names.setdefault(file, self.names[name])
        return found

    def _details(self, row: list[str]) -> dict[str, Any]:
        text = {role: row[place].strip() for role, place in self.roles.items()}
        view, side = parse_view(text.get("view", "")), parse_view(text.get("side", ""))
        no_boxes = self.box_columns is None
        width = _size(text.get("width", "")) if no_boxes else None
        height = _size(text.get("height", "")) if no_boxes else None
        return {
            "patient": parse_identifier(text.get("patient", "")) or "",
            "study": parse_identifier(text.get("study", "")),
            "split": self._part(text.get("split", "")),
            "view": side if side == "lateral" else view or side,
            "age": self._age(text.get("age", "")),
            "sex": parse_sex(text.get("sex", "")),
            "width": width,
            "height": height,
            "file": text.get("file") if self.at_file is not None else None,
        }

    def _part(self, cell: str) -> str | None:
        try:
            return parse_part(cell)
        except ValueError as error:
            name = self._open().header[self.roles["split"]]
            raise ValueError(f"{error}; if column '{name}' is no split, rename it") from None

    def _age(self, cell: str) -> int | None:
        """No result depends on ages, so text such as "85 or more" is an unknown age and no error."""
        try:
            return parse_age(cell)
        except ValueError:
            self.odd_ages.append(cell)
            return None

    def _check_repeated(self, table: CsvTable, line: int, old: Draft, new: Draft, findings: frozenset | None) -> None:
        """Rows of one image may add findings or boxes; what they repeat must be equal."""
        for key, value in new.details.items():
            if value != old.details[key] and value not in (None, ""):
                if old.details[key] not in (None, ""):
                    raise table.error(
                        line, f"image {old.image} has {key} {value!r}, but {old.details[key]!r} in line {old.line}"
                    )
                old.details[key] = value
        if new.wide != old.wide:
            raise table.error(line, f"image {old.image} has other labels than in line {old.line}")
        if not (self.per_finding or self.box_columns):
            if self.long and (set(findings or ()), findings is not None) != (old.present, old.listed):
                raise table.error(line, f"image {old.image} has other findings than in line {old.line}")
            self.repeated += 1
        elif not self.box_columns and findings is not None and findings <= old.present and old.listed:
            self.repeated += 1

    def _add_box(self, table: CsvTable, line: int, row: list[str], draft: Draft, findings: frozenset | None) -> None:
        """Keep the box of a row, whose class is the finding of the row, or the only class of the table."""
        assert self.inner is not None
        classes = findings if self.long else frozenset(self.wide.classes)
        if not self.inner.add(line, row, draft.image, min(classes, default="") if classes else ""):
            return
        if not classes or len(classes) != 1:
            what = f"the classes {', '.join(sorted(classes))}" if classes else "no class"
            raise table.error(line, f"the box of image {draft.image} has {what}, expected one")

    def wide_classes(self) -> list[str]:
        return list(self.wide.classes)

    def _read_boxes(self) -> None:
        """Boxes of the manifest itself, and of the table beside it."""
        if self.inner:
            self.inner.resolve(self.drafts, self.notes)
        beside = box_table_of(self.path)
        if beside is None:
            return
        if self.inner:
            raise CxrfastError(
                f"{self.path} has columns of boxes, and {beside.name} lies beside it; remove one of them"
            )
        read_box_table(beside, self).resolve(self.drafts, self.notes, self._frames())

    def _frames(self) -> dict[str, tuple[float, float]]:
        """Frames of boxes that the manifest itself states: image -> size."""
        width, height = self.roles.get("frame_width"), self.roles.get("frame_height")
        if width is None or height is None:
            return {}
        table, frames = self._open(), {}
        for line, row in table.rows():
            image, pair = self.names.get(row[self.at_image].strip()), parse_pair(table, line, row, width, height)
            if image is not None and pair is not None:
                frames[image] = pair
        return frames

    def _source(self) -> DataSource:
        long = list(self.long.names.values()) if self.long else []
        long = [name for name in long if name not in self.wide.classes]
        class_names = (*self.wide.classes, *long)
        ClassMatcher(class_names)  # refuses a column and a listed class of one finding
        labels = ManifestLabels(self.path, self.options, self.wide, self.long, long)
        records = [labels.record(draft) for draft in self.drafts.values()]
        if self.long:
            matched = describe_matches(self.long.spellings)
            self.class_notes.extend([matched] if matched else [])
        self.notes.extend(labels.notes())
        if not class_names:
            self.notes.append(f"{self.path.name} has no labels: add a column for each class (1, 0, empty), or 'labels'")
        grouped, grouping = group(records, self.notes)
        return DataSource(
            self.images.root,
            LAYOUT.name,
            grouped,
            class_names,
            self.path.name,
            self.notes,
            self.class_notes,
            grouping,
        )


def box_table_of(path: Path) -> Path | None:
    """The table of boxes that belongs to a manifest: boxes.csv beside manifest.csv, NAME_boxes.csv beside NAME.csv."""
    stem = _stem(path)
    names = ["boxes", "bboxes", "manifest_boxes"] if stem.casefold() == "manifest" else [f"{stem}_boxes"]
    return _first_of(path.parent, [name + end for name in names for end in TABLE_ENDS])


def _first_of(folder: Path, names: Sequence[str]) -> Path | None:
    """The file in the folder whose name, without regard to case, is the first one of ``names``."""
    places = {name.lower(): place for place, name in reversed(list(enumerate(names)))}
    found = [file for file in folder.iterdir() if file.name.lower() in places and file.is_file()]
    return min(found, key=lambda file: (places[file.name.lower()], file.name), default=None)


def box_table_name(path: Path) -> str:
    """The name under which the boxes of a manifest are written."""
    stem = _stem(path)
    return "boxes.csv" if stem.casefold() == "manifest" else f"{stem}_boxes.csv"


def _stem(path: Path) -> str:
    end = max((end for end in TABLE_ENDS if path.name.lower().endswith(end)), key=len, default="")
    return path.name.removesuffix(path.name[len(path.name) - len(end) :]) if end else path.name


def _size(cell: str) -> int | None:
    """The size of the original image, which places no box: other text is an unknown size."""
    try:
        size = parse_size(cell)
    except ValueError:
        return None
    return None if size is None else int(size)


def _table_in(path: Path) -> Path | None:
    if path.is_file():
        return path if path.name.lower().endswith(TABLE_ENDS) else None
    return _first_of(path, [f"manifest{end}" for end in TABLE_ENDS])


def tables_of_images(folder: Path) -> list[str]:
    """The tables in a folder that have a column of images, so that they may be manifests under another name."""
    tables = sorted(path for path in folder.iterdir() if path.is_file() and path.name.lower().endswith(TABLE_ENDS))
    return [path.name for path in tables if image_column(column_names(path) or ()) is not None]


def _recognise(path: Path) -> str | None:
    table = _table_in(path)
    if table is None:
        return None
    return f"the table {table.name}" if column_names(table) is not None or table.suffix == ".parquet" else None


def _read(path: Path, options: DataOptions) -> DataSource:
    table = _table_in(path)
    if table is None:
        names = " or ".join(f"manifest{end}" for end in TABLE_ENDS)
        raise CxrfastError(f"{path} has no {names}; write one with the columns image and one for each class")
    return ManifestReader(table, options).read()


LAYOUT = Layout(
    "manifest",
    "manifest",
    "a table manifest.csv (or .tsv, .parquet) with a column 'image', or such a table as a file",
    _recognise,
    _read,
    frozenset({"uncertain"}),
)
