"""The images that a manifest names."""

import os
from collections.abc import Iterable
from pathlib import Path

from cxrfast.data.datasets.shared.gathering import Places
from cxrfast.data.image_names import leaves_folder
from cxrfast.data.tables.image_files import ImageFiles
from cxrfast.errors import CxrfastError


class ManifestImages:
    """Finds images that a manifest names by one column, or by a name and a path.

    Paths are relative to the manifest's folder. A manifest with one column whose paths lead out of this folder has as
    its data folder the deepest folder that holds all images. If such absolute paths do not exist here, they come from
    another machine, and their ends are looked for below the manifest's folder.

    Attributes:
        root: the data folder.
    """

    def __init__(self, table: Path, names: Iterable[str], *, named_apart: bool, required: bool, notes: list[str]):
        self.folder = table.parent
        self.root = self.folder
        self._full: dict[str, str] = {}  # name in the table -> path relative to root
        self._name_of: dict[Path, str] = {}  # of images that are named apart from their paths
        files: ImageFiles | None = None
        outside = [] if named_apart else [name for name in names if leaves_folder(name)]
        if outside:
            there = {name: os.path.normpath(self.folder / _portable(name)) for name in names}
            if any(os.path.isfile(there[name]) for name in outside):
                files = self._outside(there)
                notes.append(f"{table.name}: its paths lead out of its folder; the data folder is {self.root}")
            else:
                self._full = {name: _portable(name).split(":", 1)[-1].lstrip("/") for name in outside}
                notes.append(f"paths of {table.name} that do not exist here, sought by their ends: {len(outside)}")
        self._places = Places(files or ImageFiles(self.root), table.name, required)

    def _outside(self, there: dict[str, str]) -> ImageFiles:
        self.root = Path(os.path.commonpath([os.path.dirname(path) for path in there.values()]))
        self._full = {name: os.path.relpath(path, self.root).replace(os.sep, "/") for name, path in there.items()}
        return ImageFiles(self.root, paths=[self._full[name] for name, path in there.items() if os.path.isfile(path)])

    def find(self, name: str, file: str | None) -> tuple[str, Path] | None:
        """Identity and path; None if the file is missing and required."""
        if file is None:
            return self._places.find(self._full.get(name, name))
        if leaves_folder(name):
            raise CxrfastError(f"image {name!r}: expected a name without '..' and '/' at its start, beside a path")
        path = Path(os.path.normpath(self.folder / _portable(file)))
        if not (leaves_folder(file) and path.is_file()):
            found = self._places.find(_portable(file).split(":", 1)[-1].lstrip("/"))
            if found is None:
                return None
            path = found[1]
        if self._name_of.setdefault(path, name) != name:
            raise CxrfastError(f"images {self._name_of[path]!r} and {name!r} have the same path {file}")
        return name, path

    def check(self, total: int) -> None:
        if not self._name_of:
            self._places.check(total)

    def notes(self) -> list[str]:
        return self._places.notes()


def _portable(name: str) -> str:
    return name.strip().replace("\\", "/")
