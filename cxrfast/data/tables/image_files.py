"""Finds the image files of a data set, and their sizes."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from cxrfast.data.images import IMAGE_SUFFIXES
from cxrfast.errors import CxrfastError

_DEPTH = 3  # components of a path that tell the images of a data set apart


class ImageFiles:
    """All image files below a folder.

    A file is found by its path relative to the folder or by the end of that path, without regard to case, and with
    another image suffix (resized copies are often JPEG files). The name in a table may also begin with folders above
    the data folder. A name that fits several files is an error.

    Args:
        root: the data folder.
        folders: search only these sub-folders; default: everything below ``root``.
        paths: the files relative to ``root``, if they are known, instead of a search.
    """

    def __init__(self, root: Path, folders: Iterable[str] = ("",), *, paths: Iterable[str] | None = None):
        self.root = root
        self.paths: list[str] = [] if paths is None else list(paths)  # relative to root, with "/"
        for folder in folders if paths is None else ():
            self.paths.extend(_walk(root, folder))
        self._exact = frozenset(self.paths)
        self._by_end: dict[int, dict[str, list[str]]] = {}  # number of components -> end of the path -> paths

    def __contains__(self, path: str) -> bool:
        """Whether there is an image file with exactly this path."""
        return path in self._exact

    def find(self, name: str) -> str | None:
        """The path, relative to the data folder, of the image that a table calls ``name``; None if it is missing.

        Raises:
            CxrfastError: the name leaves the data folder, or several files fit it.
        """
        clean = name.strip().replace("\\", "/")
        if clean in self._exact:
            return clean
        parts = [part for part in clean.split("/") if part not in ("", ".")]
        if clean.startswith("/") or ".." in parts or (parts and ":" in parts[0]):
            raise CxrfastError(f"image {name!r}: expected a path inside {self.root}; give it relative to that folder")
        wanted = "/".join(parts)
        stem = _without_suffix(wanted).casefold()
        components = stem.split("/")
        depth = min(len(components), _DEPTH)
        near = self._ending(depth).get("/".join(components[-depth:]), [])
        ends = [path for path in near if _ends_with(_stem(path), stem)]
        for start in range(1, len(components)):  # tables of some data sets name folders above the data folder
            if ends:
                break
            ends = self._ending(0).get("/".join(components[start:]), [])
        if len(ends) > 1:
            same_suffix = [path for path in ends if _ends_with(path.casefold(), wanted.casefold())]
            shortest = [path for path in same_suffix if path.casefold() == wanted.casefold()]
            ends = shortest or same_suffix or ends
        if len(ends) > 1:
            raise CxrfastError(f"image {name!r} may be {ends[0]} or {ends[1]} in {self.root}; give more of its path")
        return ends[0] if ends else None

    def _ending(self, depth: int) -> dict[str, list[str]]:
        """The paths by their last components without the suffix, in lower case; by all components if depth is 0.

        One component is not enough of a key where all files have the same few names (CheXpert: view1_frontal.jpg).
        """
        if depth not in self._by_end:
            index: dict[str, list[str]] = {}
            for path in self.paths:
                index.setdefault("/".join(_stem(path).split("/")[-depth:]), []).append(path)
            self._by_end[depth] = index
        return self._by_end[depth]


def _stem(path: str) -> str:
    return os.path.splitext(path)[0].casefold()


def _ends_with(path: str, end: str) -> bool:
    return path == end or path.endswith("/" + end)


def _without_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _walk(root: Path, folder: str) -> Iterator[str]:
    """Relative paths of the image files below a folder, sorted. Folders that a link points to are read once."""
    start = root / folder if folder else root
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(start, followlinks=True):
        found = os.stat(place)
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        inside = os.path.relpath(place, root).replace(os.sep, "/")
        prefix = "" if inside == "." else inside + "/"
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield prefix + name


def pixel_box(
    xyxy: tuple[float, float, float, float], width: float, height: float, *, tolerance: float = 1.0
) -> tuple[tuple[float, float, float, float], bool]:
    """A box in pixels of an image of this size, as fractions, and whether it was clipped at the image's border.

    Raises:
        ValueError: no area, or more than ``tolerance`` pixels outside the image.
    """
    x1, y1, x2, y2 = xyxy
    shown = f"[{x1:g}, {y1:g}, {x2:g}, {y2:g}]"
    if not (x2 > x1 and y2 > y1):
        raise ValueError(f"box {shown} has no area, expected x1 < x2 and y1 < y2")
    if not (width > 0 and height > 0):
        raise ValueError(f"the image of box {shown} has size {width:g}×{height:g}, expected more than 0")
    outside = min(x1, y1) < -tolerance or x2 > width + tolerance or y2 > height + tolerance
    if outside or x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise ValueError(f"box {shown} lies outside its image of {width:g}×{height:g} pixels")
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height))
    box = (inside[0] / width, inside[1] / height, inside[2] / width, inside[3] / height)
    return box, inside != (x1, y1, x2, y2)
