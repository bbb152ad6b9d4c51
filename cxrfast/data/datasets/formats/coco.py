"""Reader for COCO JSON: categories, boxes, polygons and masks, also with LVIS's lists of negative categories."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cxrfast.data.class_names import class_key, is_no_finding
from cxrfast.data.datasets.formats._coco_files import CocoFile, coco_files, load_json
from cxrfast.data.datasets.formats._coco_shapes import annotation_box
from cxrfast.data.datasets.formats._manifest_columns import roles
from cxrfast.data.datasets.interface import DataOptions, DataSource, Layout
from cxrfast.data.datasets.shared.gathering import CLIPPED, REPEATED_BOXES, KnownSets, Places, counted, group
from cxrfast.data.image_names import leaves_folder
from cxrfast.data.images import image_size
from cxrfast.data.records import Box, Record
from cxrfast.data.tables.image_files import ImageFiles, pixel_box
from cxrfast.data.tables.values import parse_age, parse_identifier, parse_part, parse_sex, parse_view
from cxrfast.errors import CxrfastError


@dataclass
class _Draft:
    """An image as far as it is read."""

    image: str
    path: Path
    file: CocoFile
    details: dict[str, Any]
    size: tuple[int, int] | None
    negative: frozenset[str] | None  # classes stated to be absent; None: the file does not state them
    open: frozenset[str]  # classes whose annotations are not exhaustive
    present: set[str] = field(default_factory=set)
    boxes: dict[str, tuple[Box, ...]] = field(default_factory=dict)
    no_finding: bool = False


class _Reader:
    def __init__(self, root: Path, files: Sequence[CocoFile], options: DataOptions):
        self.root = root
        self.files = files
        self.notes: list[str] = []
        self.class_notes: list[str] = []
        self.places = Places(
            ImageFiles(root), " and ".join(dict.fromkeys(file.path.name for file in files)), options.images_required
        )
        self.names: dict[str, str] = {}  # key -> class
        self.classes: dict[CocoFile, list[str]] = {}
        self.drafts: dict[str, _Draft] = {}
        self.named_apart = self.total = 0
        self.counts = dict.fromkeys(("clipped", "crowd", "repeated", "masks", "strangers", "labels", "stated"), 0)

    def read(self) -> DataSource:
        for file in self.files:
            self._read_file(file)
        if not self.named_apart:
            self.places.check(self.total)
        shared = KnownSets()
        records = [self._record(draft, shared) for draft in self.drafts.values()]
        self._describe()
        grouped, grouping = group(records, self.notes)
        version = ", ".join(dict.fromkeys(file.path.name for file in self.files))
        class_names = tuple(self.names.values())
        return DataSource(self.root, LAYOUT.name, grouped, class_names, version, self.notes, self.class_notes, grouping)

    def _read_file(self, file: CocoFile) -> None:
        content = load_json(file.path)
        classes = self._read_categories(file, content)
        known = [name for name in classes.values() if name is not None]
        self.classes[file] = known
        if "annotations" not in content:
            self.notes.append(f"{file.path.name} has no annotations: the labels of its images are unknown")
        federated = "annotations" not in content or any("neg_category_ids" in image for image in content["images"])
        by_id: dict[Any, _Draft | None] = {}
        for entry in content["images"]:
            if "id" not in entry or not isinstance(entry.get("file_name"), str):
                raise self._error(file, "an image", entry.get("id"), "has no 'id' or no 'file_name'")
            draft = self._read_image(file, entry, classes, federated)
            if by_id.setdefault(entry["id"], draft) is not draft:
                raise self._error(file, "image", entry["id"], "has the id of another image")
        if federated and "annotations" in content:
            self.counts["stated"] += sum(draft is not None for draft in by_id.values())
        self.total += len(by_id)
        if not by_id:
            self.notes.append(f"{file.path.name} has no images")
        self._refuse_fractions(file, content)
        for entry in content.get("annotations", []):
            self._read_annotation(file, entry, by_id, classes)

    def _read_categories(self, file: CocoFile, content: dict[str, Any]) -> dict[Any, str | None]:
        """Category -> class; None for "No Finding"."""
        used = {entry.get("category_id") for entry in content.get("annotations", [])}
        above = {entry.get("supercategory") for entry in content["categories"]}
        classes: dict[Any, str | None] = {}
        of_file: dict[str, str] = {}
        for entry in content["categories"]:
            name = entry.get("name")
            if "id" not in entry or not isinstance(name, str) or not name.strip():
                raise self._error(file, "a category", entry.get("id"), "has no 'id' or no 'name'")
            name = name.strip()
            if entry["id"] in classes:
                raise self._error(file, "category", entry["id"], "is listed twice")
            if name in above and entry["id"] not in used and entry.get("supercategory") in (None, "none", ""):
                note = f"{file.path.name}: category {name!r} only groups the others: it is no class"
                self.notes.extend([note] if note not in self.notes else [])
                continue
            key = class_key(name)
            if of_file.setdefault(key, name) != name:
                raise self._error(file, "category", entry["id"], f"{name!r} means the same as {of_file[key]!r}")
            classes[entry["id"]] = of = None if is_no_finding(name) else self.names.setdefault(key, name)
            if of not in (None, name):
                self.class_notes.append(f"class names matched: {name} = {of}")
        return classes

    def _read_image(
        self, file: CocoFile, entry: dict[str, Any], classes: dict[Any, str | None], federated: bool
    ) -> _Draft | None:
        try:
            place = self._place(file, entry)
            if place is None:
                return None
            details, size = _details(entry, file), _size(entry)
        except (ValueError, CxrfastError) as error:
            raise self._error(file, "image", entry["id"], str(error)) from None
        image, path = place
        if image in self.drafts:
            raise self._error(file, "image", entry["id"], f"{image} is listed twice ({self.drafts[image].file.path})")

        def named(key: str) -> frozenset[str]:
            ids = entry.get(key) or []
            if not isinstance(ids, list) or any(of not in classes for of in ids):
                raise self._error(file, "image", entry["id"], f"'{key}' is {ids!r:.60}, expected ids of categories")
            return frozenset(name for of in ids if (name := classes[of]) is not None)

        negative = named("neg_category_ids") if federated else None
        draft = _Draft(image, path, file, details, size, negative, named("not_exhaustive_category_ids"))
        self.drafts[image] = draft
        return draft

    def _place(self, file: CocoFile, entry: dict[str, Any]) -> tuple[str, Path] | None:
        """Identity and path. A file outside the data folder needs an identity, as :func:`write_coco` writes it."""
        name, own = entry["file_name"], entry.get("image")
        target = Path(os.path.normpath(file.path.parent / name.replace("\\", "/")))
        if isinstance(own, str) and not leaves_folder(own) and target.is_file():
            self.named_apart += 1
            inside = os.path.relpath(target, self.root).replace(os.sep, "/")
            self.places.used[inside] = own
            return own, target
        if leaves_folder(name) and target.is_relative_to(self.root):
            name = target.relative_to(self.root).as_posix()
        return self.places.find(name, _near(file, self.root))

    def _read_annotation(
        self, file: CocoFile, entry: dict[str, Any], by_id: dict[Any, _Draft | None], classes: dict[Any, str | None]
    ) -> None:
        number = entry.get("id")
        if entry.get("image_id") not in by_id:
            self.counts["strangers"] += 1
            return
        if entry.get("category_id") not in classes:
            raise self._error(file, "annotation", number, f"has category_id {entry.get('category_id')!r}, not listed")
        draft = by_id[entry["image_id"]]
        if draft is None:
            return
        name = classes[entry["category_id"]]
        if name is None:
            draft.no_finding = True
        else:
            draft.present.add(name)
        if draft.no_finding and draft.present:
            raise self._error(file, "annotation", number, f"{draft.image} has no finding and {min(draft.present)}")
        if name is None:
            return
        try:
            xyxy, from_mask = annotation_box(entry, lambda: self._size_of(draft), f"annotation {number}")
            if xyxy is None:
                self.counts["labels"] += 1
                return
            box, clipped = pixel_box(xyxy, *self._size_of(draft))
        except (ValueError, CxrfastError) as error:
            raise self._error(file, "annotation", number, str(error)) from None
        self.counts["clipped"] += clipped
        self.counts["masks"] += from_mask
        self.counts["crowd"] += bool(entry.get("iscrowd"))
        self.counts["repeated"] += box in draft.boxes.get(name, ())
        draft.boxes[name] = tuple(dict.fromkeys((*draft.boxes.get(name, ()), box)))

    def _size_of(self, draft: _Draft) -> tuple[int, int]:
        draft.size = draft.size or image_size(draft.path)
        return draft.size

    def _refuse_fractions(self, file: CocoFile, content: dict[str, Any]) -> None:
        boxes = [entry["bbox"] for entry in content.get("annotations", []) if entry.get("bbox")]
        numbers = [x for box in boxes if isinstance(box, list) for x in box if isinstance(x, (int, float))]
        if numbers and max(numbers) <= 1 and any(x != int(x) for x in numbers):
            raise CxrfastError(f"{file.path}: all boxes are within 0 and 1; COCO needs pixels, so multiply by the size")

    def _record(self, draft: _Draft, shared: KnownSets) -> Record:
        every = self.classes[draft.file]
        known = set(every) - draft.open if draft.negative is None else set(draft.negative)
        both = sorted(draft.present & draft.negative) if draft.negative is not None else []
        if both:
            raise self._error(draft.file, "image", draft.image, f"{both[0]} is annotated and in 'neg_category_ids'")
        known = set(every) if draft.no_finding else known | draft.present
        width, height = draft.size or (None, None)
        return Record(
            draft.image,
            draft.path,
            labels=shared.share(draft.present),
            known=shared.share(known),
            boxes=draft.boxes,
            width=width,
            height=height,
            **draft.details,
        )

    def _describe(self) -> None:
        boxes = sum(len(of) for draft in self.drafts.values() for of in draft.boxes.values())
        self.notes.insert(0, f"images in {self.places.source}: {self.total}; read: {len(self.drafts)}; boxes: {boxes}")
        texts = {
            "masks": "boxes that are the bounding boxes of polygons or masks",
            "labels": "annotations with neither box nor mask, labels of the whole image",
            "crowd": "crowd regions (iscrowd), each taken as one box",
            "clipped": CLIPPED,
            "repeated": REPEATED_BOXES,
            "strangers": "annotations of images that are not listed, left out",
            "stated": "images that state their absent classes (neg_category_ids), so others are unknown",
        }
        self.notes += counted(*((self.counts[key], text) for key, text in texts.items()))
        self.notes.extend(self.places.notes())

    def _error(self, file: CocoFile, kind: str, number: Any, problem: str) -> CxrfastError:
        return CxrfastError(f"{file.path}, {kind} {number}: {problem}; correct or remove it")


@cache
def _near(file: CocoFile, root: Path) -> tuple[str, ...]:
    """Folders where the images of a file usually are: beside it, or in one with the name of its part."""
    stem = file.path.stem.partition("_")[2]
    parts = {"val": ("val", "valid"), None: ()}.get(file.part, (file.part,))
    inner = [name for name in (stem, *parts) if name]
    beside = os.path.relpath(file.path.parent, root).replace(os.sep, "/")
    folders = [*([] if beside in (".", "..") else [beside]), *inner, *(f"images/{name}" for name in inner), "images"]
    return tuple(dict.fromkeys(folder for folder in folders if (root / folder).is_dir()))


@cache
def _roles(keys: tuple[str, ...]) -> dict[str, int]:
    return roles(keys)


def _details(entry: dict[str, Any], file: CocoFile) -> dict[str, Any]:
    """Optional keys of an image, under the names that manifests use too."""
    keys = tuple(entry)
    text = {role: entry[keys[place]] for role, place in _roles(keys).items()}
    text = {role: str(value) if isinstance(value, (str, int, float)) else "" for role, value in text.items()}
    return {
        "patient": parse_identifier(text.get("patient", "")) or "",
        "study": parse_identifier(text.get("study", "")),
        "split": parse_part(text.get("split", "")) or file.part,
        "view": parse_view(text.get("view", "")),
        "age": parse_age(text.get("age", "")),
        "sex": parse_sex(text.get("sex", "")),
    }


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    width, height = entry.get("width"), entry.get("height")
    if not width or not height:
        return None
    if not all(isinstance(side, (int, float)) and side > 0 for side in (width, height)):
        raise ValueError(f"width and height are {width!r} and {height!r}, expected numbers above 0")
    return int(width), int(height)


def _root_of(path: Path) -> Path:
    """The folder of a file, or the one above if the file is in a folder of its own without images."""
    if path.is_dir():
        return path
    folder = path.absolute().parent if path.parent == Path() else path.parent
    return folder.parent if folder.name == "annotations" and not ImageFiles(folder).paths else folder


def _recognise(path: Path) -> str | None:
    files, _ = coco_files(path)
    return f"the COCO file {files[0].path.name}" if files else None


def _read(path: Path, options: DataOptions) -> DataSource:
    files, other = coco_files(path)
    if not files:
        raise CxrfastError(f"{path} has no COCO file (instances*.json, annotations/*.json, _annotations.coco.json)")
    by_part: dict[str | None, CocoFile] = {}
    for file in files:
        first = by_part.setdefault(file.part, file)
        if first is not file:
            raise CxrfastError(
                f"{path}: {first.path.name} and {file.path.name} are not different parts (train, val, test) of a data "
                "set; give one of them as the data"
            )
    reader = _Reader(_root_of(path), files, options)
    if other:
        reader.notes.append(f"files of other COCO tasks are left out: {', '.join(other)}")
    return reader.read()


LAYOUT = Layout(
    "coco",
    "COCO JSON",
    "a JSON file with images, annotations and categories: as a file, instances*.json, annotations/*.json, or "
    "_annotations.coco.json in train, valid and test",
    _recognise,
    _read,
)
