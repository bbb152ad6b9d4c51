"""Reader for folders of classes: an image's folder is its only label."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from cxrfast.data.class_names import describe_matches
from cxrfast.data.datasets.formats._drafts import Classes, Found, labelled
from cxrfast.data.datasets.interface import DataOptions, DataSource, Layout
from cxrfast.data.datasets.shared.gathering import counted, group
from cxrfast.data.images import IMAGE_SUFFIXES
from cxrfast.data.tables.image_files import ImageFiles
from cxrfast.data.tables.values import parse_part, plain
from cxrfast.errors import CxrfastError

_HEALTHY = ("healthy", "negative")
# Names of folders that hold images for another reason than their class.
_NO_CLASS = re.compile(
    r"(images?|files?|data|masks?|labels?|annotations?|boxes|dicom|dcm|png|jpe?g|sample|patients?|stud(y|ies)|p|s|batch)?"
    r" ?\d*( \d+)*"
)


def _sub_folders(path: Path) -> list[str]:
    """Names of the sub-folders, apart from hidden ones and those that archive programs leave behind."""
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []
    return [name for name in names if not name.startswith((".", "__MACOSX"))]


def _holds_images(path: Path) -> bool:
    try:
        with os.scandir(path) as entries:
            return any(_is_image(entry.name) for entry in entries)
    except OSError:
        return False


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def _image_folder(path: Path) -> Path | None:
    """Where a class has its images: in its folder, or in ``images`` below."""
    inner = next((path / name for name in _sub_folders(path) if name.casefold() == "images"), None)
    return next((folder for folder in (path, inner) if folder is not None and _holds_images(folder)), None)


def _class_folders(path: Path) -> list[tuple[str | None, str, Path]]:
    """(part, class, folder of its images); empty if the folder has another layout."""
    names = _sub_folders(path)
    parts = {name: part for name in names if (part := _part_of(name)) is not None}
    found: list[tuple[str | None, str, Path]] = []
    for part, base in [(part, path / name) for name, part in parts.items()] if parts else [(None, path)]:
        for name in _sub_folders(base):
            folder = _image_folder(base / name)
            if folder is None or _NO_CLASS.fullmatch(plain(name)):
                return []
            found.append((part, name, folder))
    of_class = {plain(name) for _, name, _ in found}
    return found if len(of_class) >= 2 and len(parts) in (0, len(names)) else []


def _part_of(name: str) -> str | None:
    try:
        return parse_part(name)
    except ValueError:
        return None


def _nested(path: Path) -> Path:
    """The folder itself, or the only folder in it (archives often have one), if that has the classes."""
    for _ in range(2):
        names = _sub_folders(path)
        if len(names) != 1 or _class_folders(path):
            break
        path = path / names[0]
    return path


def _recognise(path: Path) -> str | None:
    found = _class_folders(_nested(path)) if path.is_dir() else []
    names = dict.fromkeys(name for _, name, _ in found)
    return f"folders of images named {', '.join(list(names)[:4])}{' …' if len(names) > 4 else ''}" if found else None


def _read(path: Path, options: DataOptions) -> DataSource:
    folders = _class_folders(_nested(path)) if path.is_dir() else []
    if not folders:
        raise CxrfastError(f"{path} has no two folders of images that are named like classes; write a manifest.csv")
    classes = Classes()
    parts: dict[str, str | None] = {}
    found: dict[str, Found | None] = {}
    counts: dict[str, int] = {}
    for part, name, folder in folders:
        of = None if plain(name) in _HEALTHY else classes.add(name)
        for image in _images(path, folder):
            parts[image] = part
            found[image] = Found()
            found[image].add(of, None)  # type: ignore[union-attr]
            counts[of or "no finding"] = counts.get(of or "no finding", 0) + 1
    files = ImageFiles(path)
    places = [(image, path / image) for image in files.paths if image in parts]
    notes = [
        f"images: {len(places)} ({', '.join(f'{name} {count}' for name, count in counts.items())})",
        "an image has the class of its folder alone: all other classes count as absent",
    ]
    extra = [image for image in files.paths if image not in parts]
    notes += counted((len(extra), "images outside the folders of classes, left out", extra))
    records, grouping = group(labelled(places, found, classes.names, parts), notes)
    matched = describe_matches(classes.matched)
    return DataSource(
        path, LAYOUT.name, records, classes.names, "folders", notes, [matched] if matched else [], grouping
    )


def _images(root: Path, folder: Path) -> Iterator[str]:
    inside = folder.relative_to(root).as_posix()
    for name in sorted(os.listdir(folder)):
        if _is_image(name):
            yield f"{inside}/{name}"


LAYOUT = Layout(
    "folders",
    "folders of classes",
    "one folder of images for each class, such as NORMAL and PNEUMONIA, also in train, val and test",
    _recognise,
    _read,
)
