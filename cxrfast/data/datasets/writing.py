"""Writes any data set as a manifest or as COCO JSON, which the readers of these formats read back."""

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cxrfast._files import write_text
from cxrfast.data.class_names import ClassMatcher
from cxrfast.data.datasets.formats._manifest_columns import is_reserved
from cxrfast.data.datasets.formats.manifest import box_table_name
from cxrfast.data.datasets.interface import DataSource
from cxrfast.data.images import image_size
from cxrfast.data.records import Record
from cxrfast.errors import CxrfastError, UsageError

_DETAILS = ("study", "split", "view", "age", "sex", "width", "height")


def write_manifest(source: DataSource, path: str | os.PathLike) -> list[Path]:
    """Write images and labels as a CSV table, and boxes as a table beside it.

    The columns are ``image``, ``patient``, ``study``, ``split``, ``view``, ``age``, ``sex``, where known ``width`` and
    ``height``, and one for each class: 1 present, 0 absent, empty unknown. If the manifest is not in the data folder,
    a column ``path`` gives each file relative to the manifest. ``manifest.csv`` has its boxes in ``boxes.csv``,
    ``NAME.csv`` in ``NAME_boxes.csv``, as fractions of the image (a frame of 1×1). Reading the manifest gives the same
    records, apart from follow-up numbers.

    Returns the files written. Raises :class:`CxrfastError` if one of them exists.

    Example::

        write_manifest(read_data("padchest"), "padchest.csv")
    """
    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise UsageError(f"manifest: expected a file name that ends in .csv, got {path}")
    boxes = path.with_name(box_table_name(path))
    _refuse_existing(path, boxes)
    _check_class_names(source.class_names)
    rows: list[Sequence[Any]] = list(_manifest_rows(source, path.absolute().parent))
    box_rows: list[Sequence[Any]] = [
        (record.image, name, *box, 1, 1)
        for record in source.records
        for name in source.class_names
        for box in record.boxes.get(name, ())
    ]
    written = [path]
    if box_rows:
        header = ("image", "label", "x_min", "y_min", "x_max", "y_max", "frame_width", "frame_height")
        write_text(boxes, _csv([header, *box_rows]))
        written.append(boxes)
    write_text(path, _csv(rows))
    return written


def write_coco(source: DataSource, path: str | os.PathLike) -> list[Path]:
    """Write images, labels and boxes as COCO JSON (``info``, ``images``, ``categories``, ``annotations``).

    Boxes are in pixels of the image files, whose headers are read for their sizes. A class that is present without a
    box is an annotation without ``bbox``. If any label is unknown, every image lists its absent classes in
    ``neg_category_ids``, as in LVIS; otherwise a class without an annotation is absent. The images also have the keys
    ``patient``, ``study``, ``split``, ``view``, ``age`` and ``sex``, where known.

    Returns the files written. Raises :class:`CxrfastError` if the file exists or an image has no known size.
    """
    path = Path(path)
    if path.suffix.lower() != ".json":
        raise UsageError(f"coco: expected a file name that ends in .json, got {path}")
    _refuse_existing(path)
    ids = {name: number for number, name in enumerate(source.class_names, 1)}
    folder = path.absolute().parent
    unknown = any(record.known is not None and not record.known >= ids.keys() for record in source.records)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(source.records, 1):
        width, height = _size(record)
        image = {"id": number, **_names(record, folder), "width": width, "height": height}
        image |= {"patient": record.patient} if source.grouping == "patient" else {}
        image |= {key: getattr(record, key) for key in _DETAILS[:5] if getattr(record, key) is not None}
        if unknown:
            image["neg_category_ids"] = [ids[name] for name in ids if record.label(name) == 0]
        images.append(image)
        for name in ids:
            for box in record.boxes.get(name, ()) or (None,) * (name in record.labels):
                annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": ids[name]}
                annotations.append(annotation | ({} if box is None else _coco_box(box, width, height)))
    content = {
        "info": {"description": f"{source.layout}: {source.root.name}", "version": source.label_version},
        "images": images,
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "annotations": annotations,
    }
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    return [path]


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise CxrfastError(f"{path} exists already and is not overwritten; remove it or choose another name")


def _check_class_names(names: Sequence[str]) -> None:
    ClassMatcher(names)
    for name in names:
        if is_reserved(name):
            raise CxrfastError(f"class {name!r} has the name of another column of manifests; rename it with --map")


def _manifest_rows(source: DataSource, folder: Path) -> Iterable[Sequence[Any]]:
    apart = any(_relative(record.path, folder) != record.image for record in source.records)
    details = [name for name in _DETAILS if name in _DETAILS[:5] or any(getattr(r, name) for r in source.records)]
    yield ["image", *(["path"] if apart else []), "patient", *details, *source.class_names]
    text = {1.0: "1", 0.0: "0"}
    for record in source.records:
        values = [getattr(record, name) for name in details]
        yield [
            record.image,
            *([_relative(record.path, folder)] if apart else []),
            record.patient if source.grouping == "patient" else "",
            *("" if value is None else value for value in values),
            *(text.get(record.label(name), "") for name in source.class_names),
        ]


def _relative(path: Path, folder: Path) -> str:
    try:
        return os.path.relpath(path.absolute(), folder).replace(os.sep, "/")
    except ValueError:  # on another drive
        return path.absolute().as_posix()


def _names(record: Record, folder: Path) -> dict[str, str]:
    """The file's name, and the image's own name where that is another one."""
    file_name = _relative(record.path, folder)
    return {"file_name": file_name} | ({} if file_name == record.image else {"image": record.image})


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _size(record: Record) -> tuple[int, int]:
    try:
        return image_size(record.path)
    except CxrfastError:
        if record.path.exists() or record.width is None or record.height is None:
            raise
        return record.width, record.height


def _coco_box(box: Sequence[float], width: int, height: int) -> dict[str, Any]:
    x1, y1, x2, y2 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    return {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
