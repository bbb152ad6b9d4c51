"""Takes data set objects of torchxrayvision (Cohen et al. 2022), without importing that package.

What is used: ``pathologies``, ``labels`` [N, K] with NaN for unknown, the table ``csv`` with one row for each item,
``imgpath``, and ``pathology_masks`` of items where ``csv["has_masks"]`` is true. Subsets, filtered and merged data sets
are followed to the objects that they consist of.
"""

import copy
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cxrfast.data.class_names import is_no_finding
from cxrfast.data.datasets.interface import DataSource, Grouping
from cxrfast.data.datasets.shared.gathering import KnownSets, counted
from cxrfast.data.records import Box, Record
from cxrfast.data.tables.csv_table import is_empty
from cxrfast.data.tables.image_files import ImageFiles
from cxrfast.data.tables.values import MAX_AGE, parse_identifier, parse_sex, parse_view, without_zeros
from cxrfast.errors import CxrfastError, UsageError

# The column that names the image, in the tables that the package reads.
_IMAGE_COLUMNS = (
    "Path",  # CheXpert
    "PngPath",  # BRAX
    "Image Index",  # ChestX-ray14
    "ImageID",  # PadChest
    "dicom_id",  # MIMIC-CXR
    "image_id",  # VinDr-CXR
    "ImageId",  # SIIM-ACR
    "imageid",  # OpenI
    "file_name",  # TBX11K
    "fname",  # NLM tuberculosis
    "filename",  # COVID-19
    "patientId",  # RSNA pneumonia
)
_VIEWS = {"l": "lateral", "ap supine": "AP", "ap_horizontal": "AP"}


class _Item(NamedTuple):
    """One item of a data set, in the object that holds it."""

    holder: Any
    row: int  # of it in the holder


def from_torchxrayvision(
    dataset: Any, *, image_paths: Sequence[str | os.PathLike] | None = None, images_required: bool = True
) -> DataSource:
    """Images, labels and boxes of a data set object of torchxrayvision.

    Masks become boxes, one for each connected area, if the object was made with ``pathology_masks=True``; the images
    with masks are then read once. Transforms of the object are not applied: images are read from their files.

    Args:
        dataset: any object of ``torchxrayvision.datasets``, also ``SubsetDataset``, ``FilterDataset`` and
            ``MergeDataset``.
        image_paths: the file of each item. Default: found under ``imgpath`` by the names in ``csv``.
        images_required: leave out items without an image file.

    Raises:
        UsageError: an object of another kind, labels that are not 1, 0 or NaN, or images that cannot be named.
        CxrfastError: no image was found, or one cannot be read.

    Example::

        import torchxrayvision as xrv

        data = xrv.datasets.NIH_Dataset("ChestX-ray14/images", pathology_masks=True)
        source = from_torchxrayvision(data)
        train = XrayDataset(source.records, source.class_names, image_size=512)
    """
    names, labels = _labels(dataset)
    items = _items(dataset, len(labels))
    holders = list({id(item.holder): item.holder for item in items}.values())
    root, places = _places(items, holders, image_paths)
    notes: list[str] = []
    tables = [_Details(holder, f"{n}/" if len(holders) > 1 else "") for n, holder in enumerate(holders)]
    details = {id(holder): table for holder, table in zip(holders, tables, strict=True)}
    with_masks = any(getattr(holder, "pathology_masks", False) is True for holder in holders)
    if not with_masks:
        notes.append("no boxes: the data set was made without pathology_masks=True")
    records: dict[str, Record] = {}
    missing: list[str] = []
    twice = ungrouped = 0
    shared = KnownSets()
    for item, row, place in zip(items, labels, places, strict=True):
        path = Path(os.path.normpath(root / place))
        if not path.is_file():
            missing.append(place)
            if images_required:
                continue
        boxes = _boxes(item, names, details[id(item.holder)])
        present = frozenset(n for n, value in zip(names, row, strict=True) if n and value == 1) | frozenset(boxes)
        known = frozenset(n for n, value in zip(names, row, strict=True) if n and value == value) | frozenset(boxes)
        patient, facts = details[id(item.holder)].of(item.row)
        ungrouped += patient is None
        record = Record(
            image=place,
            path=path,
            patient=patient or place,
            labels=present,
            boxes=boxes,
            known=shared.share(known),
            **facts,
        )
        other = records.setdefault(place, record)
        if other is not record:
            if other != record:
                raise CxrfastError(f"dataset: image {place} is there twice, with different values; keep one of them")
            twice += 1
    if not records:
        raise CxrfastError(f"dataset: none of the {len(labels)} images was found in {root} (first: {places[0]})")
    grouping: Grouping = "image" if ungrouped == len(records) + twice else "patient"
    version = " + ".join(dict.fromkeys(type(holder).__name__ for holder in holders))
    notes.insert(0, f"images of {version} under {root}: {len(records)}")
    notes += counted(
        (len(missing), f"images without a file, {'left out' if images_required else 'kept without pixels'}", missing),
        (twice, "images that are there twice, taken once"),
        (ungrouped, "images without a patient, each taken as its own"),
    )
    if with_masks:
        notes.append("masks became boxes, one for each connected area")
    classes = tuple(name for name in names if name)
    dropped = len(names) - len(classes)
    class_notes = counted((dropped, "pathologies without a name or called No Finding, which are no classes"))
    return DataSource(root, "torchxrayvision", tuple(records.values()), classes, version, notes, class_notes, grouping)


def _labels(dataset: Any) -> tuple[list[str], np.ndarray]:
    """The K names, "" for those that are no class, and the labels [N, K]."""
    lacking = [name for name in ("pathologies", "labels", "csv") if not hasattr(dataset, name)]
    if lacking:
        raise UsageError(
            f"dataset: {type(dataset).__name__} has no {', '.join(lacking)}; expected an object of "
            "torchxrayvision.datasets"
        )
    names = [str(name).strip() for name in dataset.pathologies]
    labels = np.asarray(dataset.labels, dtype=np.float64)
    if labels.ndim != 2 or labels.shape[1] != len(names):
        raise UsageError(f"dataset: labels are {list(labels.shape)}, expected [N, {len(names)}] for its pathologies")
    odd = labels[~(np.isnan(labels) | (labels == 0) | (labels == 1))]
    if len(odd):
        raise UsageError(f"dataset: labels have the value {odd[0]:g}, expected 1, 0 or NaN (unknown)")
    for k, name in enumerate(names):
        if not name and not np.isnan(labels[:, k]).all():
            raise UsageError(f"dataset: pathology {k} has labels but no name; name it")
        if name and names.index(name) != k:
            raise UsageError(f"dataset: pathology {name!r} is there twice; keep one of the two")
    if not len(labels):
        raise UsageError("dataset: it has no items; check its views and filters")
    return ["" if is_no_finding(name) else name for name in names], labels


def _items(dataset: Any, count: int) -> list[_Item]:
    """Where each item comes from."""
    if hasattr(dataset, "datasets") and hasattr(dataset, "which_dataset"):
        parts = [_items(part, len(part)) for part in dataset.datasets]
        items = [item for part in parts for item in part]
    elif hasattr(dataset, "dataset") and hasattr(dataset, "idxs"):
        inner = _items(dataset.dataset, len(dataset.dataset))
        items = [inner[int(n)] for n in np.arange(len(inner))[np.asarray(dataset.idxs)]]
    else:
        items = [_Item(dataset, n) for n in range(count)]
        if len(dataset.csv) != count:
            raise UsageError(
                f"dataset: csv of {type(dataset).__name__} has {len(dataset.csv)} rows, labels {count}; expected one "
                "row for each item"
            )
    if len(items) != count:
        raise UsageError(f"dataset: {type(dataset).__name__} has {count} labels for {len(items)} items")
    return items


def _places(
    items: Sequence[_Item], holders: Sequence[Any], image_paths: Sequence[str | os.PathLike] | None
) -> tuple[Path, list[str]]:
    """The folder of all images, and the path of each item relative to it."""
    if image_paths is not None:
        if len(image_paths) != len(items):
            raise UsageError(f"image_paths: expected {len(items)} paths, one for each item, got {len(image_paths)}")
        absolute = [os.path.abspath(path) for path in image_paths]
        root = Path(os.path.commonpath([os.path.dirname(path) for path in absolute]))
        return root, [Path(path).relative_to(root).as_posix() for path in absolute]
    roots = [_imgpath(holder) for holder in holders]
    root = Path(os.path.commonpath(roots))
    found = {id(holder): _named_files(holder, Path(at)) for holder, at in zip(holders, roots, strict=True)}
    inside = {id(holder): os.path.relpath(at, root) for holder, at in zip(holders, roots, strict=True)}
    places = [Path(inside[id(item.holder)], found[id(item.holder)][item.row]).as_posix() for item in items]
    return root, places


def _imgpath(holder: Any) -> str:
    folder = getattr(holder, "imgpath", None)
    if not isinstance(folder, str | os.PathLike) or not os.path.isdir(folder):
        raise UsageError(
            f"dataset: {type(holder).__name__} has no folder imgpath (it is {folder!r}); give the files as image_paths"
        )
    return os.path.abspath(folder)


def _named_files(holder: Any, folder: Path) -> list[str]:
    """The file of each row of ``csv``, relative to the folder; for a missing one its name in the table."""
    column = next((name for name in _IMAGE_COLUMNS if name in holder.csv.columns), None)
    if column is None:
        raise UsageError(
            f"dataset: csv of {type(holder).__name__} names no images (expected a column {', '.join(_IMAGE_COLUMNS)}); "
            "give the files as image_paths"
        )
    files = ImageFiles(folder)
    names = [str(name) for name in holder.csv[column].tolist()]
    return [files.find(name) or name for name in names]


class _Details:
    """Patient, view, age and sex from ``csv``, and the masks."""

    def __init__(self, holder: Any, prefix: str):
        self.prefix = prefix  # patients of merged data sets have numbers of their own
        columns = {
            name: holder.csv[name].tolist()
            for name in ("patientid", "view", "age_years", "sex_male", "sex_female", "has_masks")
            if name in holder.csv.columns
        }
        self._columns = columns
        self.plain: Any = None
        if getattr(holder, "pathology_masks", False) is True and "has_masks" in columns:
            self.plain = copy.copy(holder)
            self.plain.transform = self.plain.data_aug = None  # masks must fit the image as it is in its file
            self.names = [str(name).strip() for name in holder.pathologies]

    def has_masks(self, index: int) -> bool:
        return self.plain is not None and bool(self._columns["has_masks"][index])

    def of(self, index: int) -> tuple[str | None, dict[str, Any]]:
        """Patient, None where there is none; view, age and sex."""
        patient = without_zeros(parse_identifier(self._text("patientid", index)) or "")
        view = self._text("view", index)
        age = self._number("age_years", index)
        sexes = [sex for sex, name in (("M", "sex_male"), ("F", "sex_female")) if self._number(name, index) == 1]
        facts = {
            "view": _VIEWS.get(view.casefold()) or parse_view(view),
            "age": int(age) if age is not None and 0 <= age <= MAX_AGE else None,
            "sex": parse_sex(sexes[0]) if len(sexes) == 1 else None,
        }
        return (self.prefix + patient if patient else None), facts

    def _text(self, name: str, index: int) -> str:
        values = self._columns.get(name)
        text = "" if values is None else str(values[index]).strip()
        return "" if is_empty(text) else text

    def _number(self, name: str, index: int) -> float | None:
        values = self._columns.get(name)
        try:
            value = float(values[index]) if values is not None else float("nan")
        except (TypeError, ValueError):
            return None
        return value if value == value else None


def _boxes(item: _Item, names: Iterable[str], details: _Details) -> dict[str, tuple[Box, ...]]:
    """Class -> bounding boxes of the connected areas of its mask."""
    if not details.has_masks(item.row):
        return {}
    from scipy import ndimage

    try:
        masks = details.plain[item.row].get("pathology_masks", {})
    except Exception as error:  # of the package, or of a damaged file
        raise CxrfastError(
            f"dataset: item {item.row} of {type(item.holder).__name__} cannot be read ({error}); leave it out, or "
            "make the data set with pathology_masks=False"
        ) from error
    boxes: dict[str, tuple[Box, ...]] = {}
    for k, mask in masks.items():
        name = details.names[int(k)]
        pixels = np.asarray(mask)
        pixels = pixels.reshape(pixels.shape[-2:]) > 0
        if name not in names or not pixels.any():
            continue
        height, width = pixels.shape
        areas, _ = ndimage.label(pixels, structure=np.ones((3, 3)))
        boxes[name] = tuple(
            (x.start / width, y.start / height, x.stop / width, y.stop / height) for y, x in ndimage.find_objects(areas)
        )
    return boxes
