"""Reader for MIMIC-CXR-JPG (Johnson et al. 2019): the release on PhysioNet, whole or in part."""

from dataclasses import dataclass, field
from pathlib import Path

from cxrfast.data.class_names import class_key, describe_matches
from cxrfast.data.datasets.interface import DataOptions, DataSource, Layout
from cxrfast.data.datasets.shared.chexpert_labels import LabelColumns, LabelCounts, RowLabels
from cxrfast.data.datasets.shared.gathering import counted, file_notes
from cxrfast.data.records import Record
from cxrfast.data.tables.csv_table import CsvTable, column_names, is_empty, parse_integer
from cxrfast.data.tables.image_files import ImageFiles
from cxrfast.data.tables.values import parse_identifier, parse_part, parse_view
from cxrfast.errors import CxrfastError

_LABELLERS = ("chexpert", "negbio")  # the release has the labels of both
_STUDY = ("subject_id", "study_id")

Study = tuple[str, str]  # subject and study


@dataclass
class _Image:
    """A row of the table of metadata, or of the split if there is no metadata."""

    study: Study
    line: int
    view: str | None = None
    width: int | None = None
    height: int | None = None


@dataclass
class _Labels:
    """The table of labels, one row for each study."""

    path: Path
    columns: LabelColumns
    of_study: dict[Study, RowLabels] = field(default_factory=dict)
    twice: int = 0


def read_mimic_cxr_jpg(root: Path, options: DataOptions = DataOptions()) -> DataSource:  # noqa: B008, frozen
    """Read the tables ``mimic-cxr-2.0.0-{chexpert,metadata,split}.csv.gz`` and find the images that exist.

    Images are ``files/p10/p10000032/s50414267/<dicom_id>.jpg``. All images of a study have its labels. Uncertain labels
    (−1) are unknown unless ``options.uncertain`` is "zero" or "one". Blank labels are absent, as the authors of the
    labeller count them; the notes give their number.

    Raises :class:`CxrfastError`, with file and line, for files that are missing or inconsistent.
    """
    root = Path(root)
    labels = _read_labels(root, options)
    notes: list[str] = []
    split_path = _find(root, "split")
    splits = {} if split_path is None else _read_splits(split_path)
    if split_path is None:
        notes.append("no mimic-cxr-2.0.0-split.csv: the official split cannot be used")
    source, images = _read_images(root, split_path, notes)
    files = ImageFiles(root)
    counts = LabelCounts()
    records, missing = [], []
    used: set[str] = set()
    unlabelled = unlisted = 0
    nothing = frozenset[str]()
    for name, image in images.items():
        place = _place(files, name, image.study)
        if place is None:
            missing.append(name)
            if options.images_required:
                continue
        else:
            used.add(place)
        row = labels.of_study.get(image.study)
        if row is None:
            unlabelled += 1
        else:
            counts.add(row)
        split = splits.get(name)
        unlisted += split is None
        patient, study = image.study
        path = place or _expected(name, image.study)
        records.append(
            Record(
                image=path,
                path=root / path,
                patient=patient,
                study=study,
                labels=nothing if row is None else row.present,
                known=nothing if row is None else row.known,
                view=image.view,
                width=image.width,
                height=image.height,
                split=split,
            )
        )
    if not records:
        raise CxrfastError(
            f"none of the {len(images)} images of {source} was found in {root}; unpack files/p10/… there, or pass the "
            "folder that holds both tables and files/"
        )
    uncertain = options.uncertain or "ignore"
    notes = [
        f"images read from {source} and {labels.path.name}: {len(records)}",
        *file_notes(files, used, missing, source, required=options.images_required),
        *notes,
        *counts.notes(uncertain),
        *counted(
            (labels.twice, "studies listed twice, taken once"),
            (unlabelled, f"images of studies without a row in {labels.path.name}, whose classes are unknown"),
            (unlisted if splits else 0, "images in no official part"),
        ),
        *_describe_views(records),
    ]
    class_notes = [text for text in (describe_matches(labels.columns.spellings),) if text]
    labeller = next(name for name in _LABELLERS if name in labels.path.name)
    return DataSource(
        root,
        "mimic-cxr-jpg",
        tuple(records),
        labels.columns.class_names,
        f"{labeller}, uncertain: {uncertain}",
        notes,
        class_notes,
    )


def _find(root: Path, kind: str) -> Path | None:
    """mimic-cxr-2.0.0-``kind``.csv, also compressed and of another version."""
    found = [path for suffix in (".csv", ".csv.gz") for path in sorted(root.glob(f"mimic-cxr-*-{kind}{suffix}"))]
    return found[0] if found else None


def _read_labels(root: Path, options: DataOptions) -> _Labels:
    path = next((path for kind in _LABELLERS if (path := _find(root, kind)) is not None), None)
    if path is None:
        raise CxrfastError(f"no mimic-cxr-2.0.0-chexpert.csv or .csv.gz in {root}; copy it there from MIMIC-CXR-JPG")
    table = CsvTable(path, _STUDY)
    labels = _Labels(path, LabelColumns(table, options.uncertain or "ignore"))
    if not labels.columns.class_names:
        raise CxrfastError(f"{path} has no column of a CheXpert class; restore the original file")
    at_subject, at_study = (table.column[name] for name in _STUDY)
    for line, row in table.rows():
        study = _study(table, line, row[at_subject], row[at_study])
        values = labels.columns.labels(row, line)
        first = labels.of_study.get(study)
        if first is not None and first != values:
            raise table.error(line, f"study {study[1]} has other labels in a row above")
        labels.twice += first is not None
        labels.of_study[study] = values
    return labels


def _read_splits(path: Path) -> dict[str, str]:
    """Image -> official part."""
    table = CsvTable(path, ["dicom_id", "split"])
    at_image, at_split = table.column["dicom_id"], table.column["split"]
    splits: dict[str, str] = {}
    for line, row in table.rows():
        try:
            part = parse_part(row[at_split])
        except ValueError as error:
            raise table.error(line, str(error)) from None
        if part is None:
            continue
        name = row[at_image].strip()
        if splits.setdefault(name, part) != part:
            raise table.error(line, f"image {name} is in another part in a row above")
    return splits


def _read_images(root: Path, split_path: Path | None, notes: list[str]) -> tuple[str, dict[str, _Image]]:
    """The name of the table that lists the images, and its images by dicom_id."""
    path = _find(root, "metadata")
    if path is None:
        if split_path is None:
            raise CxrfastError(f"no mimic-cxr-2.0.0-metadata.csv or -split.csv in {root}; copy one of them there")
        path = split_path
        notes.append("no mimic-cxr-2.0.0-metadata.csv: views are unknown, so lateral images are not left out")
    table = CsvTable(path, ["dicom_id", *_STUDY], ["ViewPosition", "Rows", "Columns"])
    images: dict[str, _Image] = {}
    twice = 0
    for line, row in table.rows():
        name = row[table.column["dicom_id"]].strip()
        if is_empty(name):
            raise table.error(line, "'dicom_id' is empty")
        study = _study(table, line, *(row[table.column[column]] for column in _STUDY))
        image = _Image(study, line)
        if "ViewPosition" in table.column:
            image.view = _view(row[table.column["ViewPosition"]])
        try:
            image.width, image.height = (
                parse_integer(row[table.column[column]]) if column in table.column else None
                for column in ("Columns", "Rows")
            )
        except ValueError as error:
            raise table.error(line, f"'Rows' or 'Columns': {error}") from None
        if images.setdefault(name, image).study != study:
            raise table.error(line, f"image {name} is of another study in line {images[name].line}")
        twice += images[name] is not image
    notes += counted((twice, f"rows of {path.name} listed twice, taken once"))
    return path.name, images


def _study(table: CsvTable, line: int, subject: str, study: str) -> Study:
    """Numbers without the letters of folder names: "p10000032", "10000032" and "10000032.0" are one patient."""
    ids = (parse_identifier(subject) or "").removeprefix("p"), (parse_identifier(study) or "").removeprefix("s")
    if not all(ids):
        raise table.error(line, "'subject_id' or 'study_id' is empty")
    return ids


def _view(cell: str) -> str | None:
    """ "XTABLE LATERAL" is lateral too."""
    view = parse_view(cell)
    return "lateral" if view is not None and "lateral" in view.split() else view


def _expected(name: str, study: Study) -> str:
    return f"files/p{study[0][:2]}/p{study[0]}/s{study[1]}/{name}.jpg"


def _place(files: ImageFiles, name: str, study: Study) -> str | None:
    """The release's place, or patient/study/image in other folders, or the image's name alone, which is unique."""
    expected = _expected(name, study)
    if expected in files:
        return expected
    return files.find(expected) or files.find(f"p{study[0]}/s{study[1]}/{name}") or files.find(name)


def _describe_views(records: list[Record]) -> list[str]:
    unknown = sum(record.view is None for record in records)
    other = sorted({record.view for record in records if record.view not in (None, "PA", "AP", "lateral")})
    notes = counted((unknown if unknown < len(records) else 0, "images without a ViewPosition, kept as frontal"))
    if other:
        notes.append(f"other projections: {', '.join(other)}")
    return notes


def _recognise(path: Path) -> str | None:
    for kind in _LABELLERS:
        table = _find(path, kind) if path.is_dir() else None
        if table is not None and {"subject_id", "study_id", class_key("Edema")} <= set(column_names(table) or ()):
            return table.name
    return None


LAYOUT = Layout(
    "mimic-cxr-jpg",
    "MIMIC-CXR-JPG",
    "a table mimic-cxr-2.0.0-chexpert.csv or .csv.gz",
    _recognise,
    read_mimic_cxr_jpg,
    frozenset({"uncertain"}),
)
