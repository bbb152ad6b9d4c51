"""Reader for YOLO data sets: a YAML file of class names, images, and one text file of boxes for each image."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cxrfast.data.class_names import describe_matches
from cxrfast.data.datasets.formats._drafts import Classes, Found, labelled, read_lines
from cxrfast.data.datasets.interface import DataOptions, DataSource, Layout
from cxrfast.data.datasets.shared.gathering import CLIPPED, REPEATED_BOXES, counted, group
from cxrfast.data.records import Box
from cxrfast.data.tables.image_files import ImageFiles, pixel_box
from cxrfast.errors import CxrfastError

_YAML_SUFFIXES = (".yaml", ".yml")
_PARTS = {"train": "train", "val": "val", "valid": "val", "test": "test"}  # key in the YAML file -> part
_TOLERANCE = 0.005  # by which a fraction may leave the image


class _Reader:
    def __init__(self, path: Path, content: dict[str, Any], options: DataOptions):
        self.path = path
        self.content = content
        self.options = options
        self.notes: list[str] = []
        self.keypoints = "kpt_shape" in content
        self.classes = Classes()
        self.of_number = [self.classes.add(name) for name in _class_names(path, content)]
        self.root = self._root()
        self.files = ImageFiles(self.root)
        self.places: list[tuple[str, Path]] = []
        self.parts: dict[str, str | None] = {}
        self.found: dict[str, Found | None] = {}
        self.clipped = self.polygons = 0
        self.without_file: list[str] = []
        self.missing: list[str] = []

    def _root(self) -> Path:
        """``path`` of the YAML file if it exists here, else the folder of the file."""
        stated, folder = self.content.get("path"), self.path.parent
        if stated is None or str(stated).strip() in ("", "."):
            return folder
        place = Path(os.path.normpath(folder / str(stated).replace("\\", "/")))
        if place.is_dir():
            return place
        self.notes.append(f"path {stated} of {self.path.name} does not exist: {folder} is taken as the data folder")
        return folder

    def read(self) -> DataSource:
        for key, part in _PARTS.items():
            entries = self.content.get(key)
            for entry in entries if isinstance(entries, list) else [entries] if entries else []:
                self._read_part(str(entry), key, part)
        if not self.places:
            missing = f" ({len(self.missing)} are missing, first: {self.missing[0]})" if self.missing else ""
            raise CxrfastError(f"{self.path}: no images of train, val or test in {self.root}{missing}; copy them there")
        records = labelled(self.places, self.found, self.classes.names, self.parts)
        self._describe()
        grouped, grouping = group(records, self.notes)
        matched = describe_matches(self.classes.matched)
        return DataSource(
            self.root,
            LAYOUT.name,
            grouped,
            self.classes.names,
            self.path.name,
            self.notes,
            [matched] if matched else [],
            grouping,
        )

    def _read_part(self, entry: str, key: str, part: str) -> None:
        images = self._images_of(entry, key)
        labels = {_label_folder(image) for image in images}
        unlabelled = not any((self.root / folder).is_dir() for folder in labels)
        if images and unlabelled and part != "test":
            raise CxrfastError(f"{self.path}: no folder {min(labels)} with labels of {entry}; copy it there")
        if images and unlabelled:
            self.notes.append(f"{key}: no folder {min(labels)}, so the labels of its images are unknown: {len(images)}")
        for image in images:
            if image in self.parts:
                if self.parts[image] != part:
                    raise CxrfastError(f"{self.path}: image {image} is in {self.parts[image]} and {part}; remove one")
                continue
            self.parts[image] = part
            self.places.append((image, self.root / image))
            self.found[image] = None if unlabelled else self._read_labels(image)

    def _images_of(self, entry: str, key: str) -> list[str]:
        """Images of a folder, or of a text file that lists them; relative to the data folder."""
        place = self._inside(entry)
        if place is None or not (self.root / place).exists():
            raise CxrfastError(f"{self.path}: {key} is {entry}, which is not in {self.root}; correct the path")
        if (self.root / place).is_file():
            return list(self._listed(place))
        prefix = "" if place == "." else place + "/"
        return [path for path in self.files.paths if path.startswith(prefix)]

    def _listed(self, place: str) -> Iterator[str]:
        """The images that a text file lists, one a line."""
        for line, text in read_lines(self.root / place):
            name = self._inside(text)
            image = self.files.find(name) if name else None
            if image is None:
                self.missing.append(f"{place}, line {line}")
                image = None if self.options.images_required else name
            if image is not None:
                yield image

    def _inside(self, entry: str) -> str | None:
        """A path of the YAML file relative to the data folder.

        Some programs write ``../train/images`` for a folder beside the YAML file, so leading ``..`` may be dropped.
        """
        clean = entry.strip().replace("\\", "/")
        path = os.path.normpath(self.root / clean)
        inside = os.path.relpath(path, self.root).replace(os.sep, "/")
        if not inside.startswith(".."):
            return inside
        parts = [part for part in clean.split("/") if part not in ("", ".", "..")]
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((end for end in ends if (self.root / end).exists()), None)

    def _read_labels(self, image: str) -> Found:
        names = [self.root / _label_folder(image) / (Path(image).stem + suffix) for suffix in (".txt", ".TXT")]
        path = next((name for name in names if name.is_file()), None)
        found = Found()
        if path is None:
            self.without_file.append(image)
            return found
        for line, text in read_lines(path):
            try:
                name, box = self._parse(text.split())
                found.add(name, None if name is None else box)
            except ValueError as error:
                raise CxrfastError(f"{path}, line {line}: {error}; correct or remove the line") from None
        return found

    def _parse(self, fields: list[str]) -> tuple[str | None, Box]:
        try:
            numbers = [float(text) for text in fields]
        except ValueError:
            raise ValueError(f"{' '.join(fields)!r:.60}, expected numbers: class, x, y, width, height") from None
        number = numbers[0]
        if number != number or number not in range(len(self.of_number)):
            raise ValueError(
                f"class {fields[0]}, expected 0 to {len(self.of_number) - 1}: {self.path.name} names these"
            )
        values = numbers[1:5] if self.keypoints else numbers[1:]
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"{' '.join(fields)!r:.60}, expected finite numbers")
        if len(values) == 4:
            x, y, w, h = values
            if max(abs(value) for value in values) > 1 + _TOLERANCE:
                raise ValueError(f"box {' '.join(fields[1:5])} exceeds 1, expected fractions of the image")
            corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        elif len(values) >= 6 and len(values) % 2 == 0:
            self.polygons += 1
            corners = (min(values[0::2]), min(values[1::2]), max(values[0::2]), max(values[1::2]))
        else:
            raise ValueError(f"{len(fields)} values, expected 5 (class and box), or class and a polygon of 3 or more")
        box, clipped = pixel_box(corners, 1.0, 1.0, tolerance=_TOLERANCE)
        self.clipped += clipped
        return self.of_number[int(number)], box

    def _describe(self) -> None:
        boxes = sum(len(of) for found in self.found.values() if found for of in found.boxes.values())
        repeated = sum(found.repeated for found in self.found.values() if found)
        self.notes.insert(0, f"images: {len(self.places)}; boxes: {boxes}; classes from {self.path.name}")
        effect = "left out" if self.options.images_required else "kept without pixels"
        extra = [path for path in self.files.paths if path not in self.parts]
        self.notes += counted(
            (len(self.without_file), "images without a label file, which have no finding", self.without_file),
            (len(self.missing), f"listed images without a file, {effect}", self.missing),
            (self.polygons, "boxes that are the bounding boxes of polygons"),
            (self.clipped, CLIPPED),
            (repeated, REPEATED_BOXES),
            (len(extra), "image files in no part, left out", extra),
        )


def _label_folder(image: str) -> str:
    """``images/train/a.png`` has its labels in ``labels/train``; without a folder images, beside the image."""
    folders = image.split("/")[:-1]
    for place in reversed(range(len(folders))):
        if folders[place] == "images":
            return "/".join([*folders[:place], "labels", *folders[place + 1 :]])
    return "/".join(folders) or "."


def _class_names(path: Path, content: dict[str, Any]) -> list[str]:
    names = content["names"]
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise CxrfastError(f"{path}: the keys of 'names' are {sorted(names, key=str)}, expected 0, 1, 2, …")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise CxrfastError(f"{path}: 'names' is {names!r:.60}, expected a list of class names")
    if content.get("nc", len(names)) != len(names):
        raise CxrfastError(f"{path}: nc is {content['nc']}, but there are {len(names)} names; correct one of them")
    texts = [str(name).strip() for name in names]
    matched = Classes(texts).matched
    if matched or len(set(texts)) < len(texts):
        raise CxrfastError(f"{path}: two of the names {', '.join(texts)} mean the same finding; rename one")
    return texts


def _load(path: Path) -> dict[str, Any] | None:
    """The content of a YAML file with names and parts, or None."""
    from cxrfast._yaml import read_yaml

    try:
        content = read_yaml(path)
    except (OSError, ValueError):
        return None
    right = isinstance(content, dict) and "names" in content and any(key in content for key in _PARTS)
    return content if right else None


def _yaml_file(path: Path) -> tuple[Path, dict[str, Any]] | None:
    if path.is_file():
        candidates = [path] if path.suffix.lower() in _YAML_SUFFIXES else []
    else:
        named = [path / f"{stem}{suffix}" for stem in ("data", "dataset") for suffix in _YAML_SUFFIXES]
        others = sorted(file for file in path.glob("*") if file.suffix.lower() in _YAML_SUFFIXES)
        candidates = list(dict.fromkeys([*(file for file in named if file.is_file()), *others]))
    for file in candidates:
        content = _load(file)
        if content is not None:
            return file, content
    return None


def _recognise(path: Path) -> str | None:
    found = _yaml_file(path)
    return f"the class names and parts in {found[0].name}" if found else None


def _read(path: Path, options: DataOptions) -> DataSource:
    found = _yaml_file(path)
    if found is None:
        raise CxrfastError(f"{path} has no YAML file with 'names' and 'train', 'val' or 'test'; restore data.yaml")
    return _Reader(*found, options).read()


LAYOUT = Layout(
    "yolo",
    "YOLO",
    "a YAML file with names and train, val or test (data.yaml), beside images and labels",
    _recognise,
    _read,
)
