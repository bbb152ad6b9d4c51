"""The JSON files of a COCO data set: which ones there are, and their parts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cxrfast._files import read_bytes
from cxrfast._json import parse_json
from cxrfast.data.tables.values import part_of_name
from cxrfast.errors import CxrfastError

_KEYS = ('"images"', '"annotations"', '"categories"')
_EXCERPT = 1 << 16  # bytes
_OTHER_TASKS = ("captions", "person_keypoints", "panoptic", "image_info", "stuff")
# In the order in which they are looked for; the first pattern with a file gives the data set.
_PATTERNS = (
    ("_annotations.coco.json", "*/_annotations.coco.json"),  # as Roboflow writes them
    ("annotations/*.json",),
    ("instances*.json", "annotations*.json", "*coco*.json", "labels.json"),
    ("*/instances*.json", "*/annotations*.json", "*/*coco*.json", "*/labels.json"),
)


class CocoFile(NamedTuple):
    path: Path
    part: str | None  # "train", "val" or "test", from the names of file and folder


def coco_files(path: Path) -> tuple[list[CocoFile], list[str]]:
    """The files at ``path``, which is a file or a folder, and the names of those that hold another task of COCO."""
    if path.is_file():
        return ([CocoFile(path, _part(path, path.parent))] if _looks_like_coco(path) else []), []
    for patterns in _PATTERNS:
        found = sorted({file for pattern in patterns for file in _glob(path, pattern) if _looks_like_coco(file)})
        other = [file for file in found if file.name.casefold().startswith(_OTHER_TASKS)]
        files = [file for file in found if file not in other]
        if files:
            return [CocoFile(file, _part(file, path)) for file in files], [file.name for file in other]
    named_otherwise = [file for file in sorted(_glob(path, "*.json")) if _looks_like_coco(file, strictly=True)]
    return [CocoFile(file, _part(file, path)) for file in named_otherwise], []


def _glob(folder: Path, pattern: str) -> Iterator[Path]:
    """As ``Path.glob``, also for files that end in .JSON."""
    return folder.glob(pattern.removesuffix(".json") + ".[jJ][sS][oO][nN]")


def _part(file: Path, root: Path) -> str | None:
    own = part_of_name(file.name)
    return own or (part_of_name(file.parent.name) if file.parent != root else None)


def _looks_like_coco(path: Path, *, strictly: bool = False) -> bool:
    """Whether a JSON file has keys of COCO near its start, or, strictly, images and labels near its start or end."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_EXCERPT)
            file.seek(max(0, path.stat().st_size - _EXCERPT))
            tail = file.read(_EXCERPT)
    except OSError:
        return False
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = head.decode(encoding, errors="ignore").lstrip()
    if not text.startswith("{"):
        return False
    if strictly:
        text += tail.decode(encoding, errors="ignore")
        return '"images"' in text and ('"annotations"' in text or '"categories"' in text)
    return any(key in text for key in (*_KEYS, '"info"'))


JSON_LIMIT = 2**32  # bytes; data sets with many masks have a gigabyte


def load_json(path: Path) -> dict[str, Any]:
    """The object of a COCO file, with its lists checked to be lists of objects."""
    try:
        data = read_bytes(path, JSON_LIMIT)
        content = parse_json(data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"))
    except json.JSONDecodeError as error:
        raise CxrfastError(f"{path}, line {error.lineno}: not JSON ({error.msg}); restore the original file") from None
    except (OSError, ValueError) as error:
        raise CxrfastError(f"{path} cannot be read ({error}); restore the original file") from error
    if not isinstance(content, dict):
        raise CxrfastError(
            f"{path} holds a {type(content).__name__}, expected an object with images, annotations and categories "
            "(a list of results is no data set)"
        )
    for key in ("images", "categories", "annotations"):
        entries = content.get(key, [] if key == "annotations" else None)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise CxrfastError(f"{path} has no list of objects '{key}'; restore the original file")
    return content
