"""Reader for PASCAL VOC: one XML file of boxes for each image."""

import os
from collections.abc import Sequence
from pathlib import Path

from cxrfast.data.class_names import describe_matches
from cxrfast.data.datasets.formats._drafts import Classes, Found, labelled, read_lines
from cxrfast.data.datasets.formats._voc_xml import VocFile, VocObject, is_voc, read_voc
from cxrfast.data.datasets.interface import DataOptions, DataSource, Layout
from cxrfast.data.datasets.shared.gathering import CLIPPED, REPEATED_BOXES, Places, counted, group
from cxrfast.data.images import image_size
from cxrfast.data.records import Box
from cxrfast.data.tables.image_files import ImageFiles, pixel_box
from cxrfast.data.tables.values import part_of_name
from cxrfast.errors import CxrfastError

_LISTS = {"train": ("train",), "val": ("val", "valid"), "test": ("test",), "train_val": ("trainval",)}
_PARTS = ("train", "valid", "val", "test")  # folders with XML files beside the images


class _Reader:
    def __init__(self, root: Path, files: Sequence[Path], options: DataOptions):
        self.root = root
        self.files = files
        self.notes: list[str] = []
        self.classes = Classes()
        self.places = Places(ImageFiles(root), "the XML files", options.images_required)
        self.by_stem: dict[str, list[str]] = {}
        for path in self.places.files.paths:
            self.by_stem.setdefault(Path(path).stem, []).append(path)
        self.lists = _read_lists(root)
        self.zero_based = False
        self.counts = dict.fromkeys(("clipped", "difficult", "repeated", "labels"), 0)

    def read(self) -> DataSource:
        annotations = [read_voc(path) for path in self.files]
        corners = [obj.corners for file in annotations for obj in file.objects if obj.corners is not None]
        self.zero_based = any(min(box[0], box[1]) < 1 for box in corners)
        self._describe_origin(len(corners))
        found: dict[str, Found | None] = {}
        parts: dict[str, str | None] = {}
        images: list[tuple[str, Path]] = []
        by_image: dict[str, Path] = {}
        for file in annotations:
            place = self._place(file)
            if place is None:
                continue
            first = by_image.setdefault(place[0], file.path)
            if first != file.path:
                raise CxrfastError(f"{file.path}: its image {place[0]} is that of {first} too; remove one of the files")
            images.append(place)
            found[place[0]] = self._read_objects(file, place[1])
            parts[place[0]] = self._part_of(file)
        self.places.check(len(annotations))
        self.counts["repeated"] = sum(of.repeated for of in found.values() if of)
        records = labelled(images, found, self.classes.names, parts)
        self._describe(len(annotations), len(records), {file.path.stem for file in annotations})
        grouped, grouping = group(records, self.notes)
        matched = describe_matches(self.classes.matched)
        return DataSource(
            self.root,
            LAYOUT.name,
            grouped,
            self.classes.names,
            "XML",
            self.notes,
            [matched] if matched else [],
            grouping,
        )

    def _place(self, file: VocFile) -> tuple[str, Path] | None:
        """The image with the stem of the XML file, else the one that the file names."""
        beside = os.path.relpath(file.path.parent, self.root).replace(os.sep, "/").removeprefix(".")
        same_stem = self.by_stem.get(file.path.stem, [])
        for folder in (beside, "JPEGImages", "images"):
            name = next((path for path in same_stem if path.rpartition("/")[0] == folder), None)
            if name is not None:
                return self.places.find(name)
        try:
            if self.places.files.find(file.path.stem) is not None:
                return self.places.find(file.path.stem)
            return self.places.find(file.file_name or file.path.stem)
        except CxrfastError as error:
            raise CxrfastError(f"{file.path}: {error}") from None

    def _part_of(self, file: VocFile) -> str | None:
        if self.lists:
            return self.lists.get(file.path.stem)
        return part_of_name(file.path.parent.name) if file.path.parent != self.root else None

    def _read_objects(self, file: VocFile, image: Path) -> Found:
        found = Found()
        for number, entry in enumerate(file.objects, 1):
            try:
                name = self.classes.add(entry.name)
                found.add(name, None if name is None else self._box(entry, file, image))
            except (ValueError, CxrfastError) as error:
                raise CxrfastError(f"{file.path}, object {number}: {error}; correct or remove it") from None
            self.counts["difficult"] += entry.difficult and name is not None
            self.counts["labels"] += entry.corners is None and name is not None
        return found

    def _box(self, entry: VocObject, file: VocFile, image: Path) -> Box | None:
        if entry.corners is None:
            return None
        x1, y1, x2, y2 = entry.corners
        shift = 0 if self.zero_based else 1
        box, clipped = pixel_box((x1 - shift, y1 - shift, x2, y2), *(file.size or image_size(image)))
        self.counts["clipped"] += clipped
        return box

    def _describe_origin(self, boxes: int) -> None:
        if boxes and self.zero_based:
            self.notes.append("boxes have coordinates below 1, so they count from 0: taken as edges [xmin, xmax)")
        elif boxes:
            self.notes.append("boxes count pixels from 1, as in VOC: [xmin - 1, xmax)")

    def _describe(self, total: int, count: int, stems: set[str]) -> None:
        self.notes.insert(0, f"XML files: {total}; with an image: {count}")
        texts = {
            "difficult": "objects marked difficult, kept",
            "labels": "objects without a box, labels of the whole image",
            "clipped": CLIPPED,
            "repeated": REPEATED_BOXES,
        }
        lost = [name for name in self.lists if name not in stems]
        self.notes += counted(
            *((self.counts[key], text) for key, text in texts.items()),
            (len(lost), "names of ImageSets/Main without an XML file, left out", lost),
        )
        self.notes.extend(self.places.notes())


def _read_lists(root: Path) -> dict[str, str]:
    """Stem -> part, from the lists of images. Lists of one class (``Mass_train.txt``) are not read."""
    parts: dict[str, str] = {}
    for part, names in _LISTS.items():
        path = next((file for name in names if (file := root / "ImageSets" / "Main" / f"{name}.txt").is_file()), None)
        if path is None:
            continue
        for line, text in read_lines(path):
            stem = text.split()[0]
            if part == "train_val":  # holds the images of train and val, where these lists exist
                if parts.setdefault(stem, part) == "test":
                    raise CxrfastError(f"{path}, line {line}: {stem} is in test.txt too; remove it from one list")
            elif parts.setdefault(stem, part) != part:
                raise CxrfastError(f"{path}, line {line}: {stem} is in {parts[stem]}.txt too; remove it from one list")
    return parts


def _xml_files(path: Path) -> list[Path]:
    folders = [path / "Annotations", path / "annotations", path, *(path / part for part in _PARTS)]
    for group_of in (folders[:1], folders[1:2], folders[2:]):
        files = sorted(
            file for folder in group_of if folder.is_dir() for file in folder.iterdir() if file.suffix.lower() == ".xml"
        )
        if files and is_voc(files[0]):
            return files
    return []


def _recognise(path: Path) -> str | None:
    files = _xml_files(path) if path.is_dir() else []
    return f"XML files in {files[0].parent.name}: {len(files)}" if files else None


def _read(path: Path, options: DataOptions) -> DataSource:
    files = _xml_files(path) if path.is_dir() else []
    if not files:
        raise CxrfastError(f"{path} has no XML annotations in Annotations/ or beside its images; restore them")
    return _Reader(path, files, options).read()


LAYOUT = Layout(
    "voc",
    "PASCAL VOC",
    "XML files with <annotation> in Annotations/, or beside the images",
    _recognise,
    _read,
)
