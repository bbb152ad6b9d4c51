"""Expands input arguments (files, folders, glob patterns) to image files."""

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from cxrfast._files import open_regular, reason
from cxrfast.data.images import DICOM_SUFFIXES
from cxrfast.data.images import IMAGE_SUFFIXES as SUFFIXES


def expand_inputs(
    inputs: Sequence[str | os.PathLike], *, skip: Path | None = None
) -> tuple[list[Path], dict[str, str]]:
    """Expand files, folders and glob patterns to image files.

    Folders are searched recursively, also through links, each once. Images are recognised by suffix or by their DICOM
    header. The folder ``skip``, hidden files and DICOM files without an image (directories, presentation states) are
    left out. Files that are given by name are not checked.

    Returns:
        The image files in order, without duplicates, and the reason for each input without files, for each folder that
        cannot be read, and for each name of an image that is no file (a named pipe, a broken link).
    """
    files: dict[str, Path] = {}
    failures: dict[str, str] = {}
    for given in [os.fspath(path) for path in inputs]:
        before = len(failures)
        if os.path.isdir(given):
            found = list(_images_below(Path(given), skip, failures))
            why = f"{given}: expected images ({', '.join(SUFFIXES)}), got none in the folder"
        elif glob.has_magic(given) and not os.path.lexists(given):
            matches = [Path(match) for match in sorted(glob.glob(given, recursive=True))]
            found = [
                file
                for match in matches
                for file in (_images_below(match, skip, failures) if match.is_dir() else [match])
            ]
            why = f"{given}: expected a pattern that matches files, got no match"
        else:
            found, why = [Path(given)], ""  # a missing file is reported when it is read
        if not found and len(failures) == before:
            failures[given] = why
        for file in found:
            files.setdefault(_identity(file), file)
    return list(files.values()), failures


def _identity(file: Path) -> str:
    """The file behind links; the path itself where they lead in a circle."""
    try:
        return os.path.realpath(file)
    except (OSError, ValueError):
        return str(file)


def _images_below(folder: Path, skip: Path | None, failures: dict[str, str]) -> Iterator[Path]:
    skipped = os.path.realpath(skip) if skip is not None else None
    if skipped == os.path.realpath(folder):
        skipped = None
    seen = set[tuple[int, int]]()

    def unreadable(error: OSError) -> None:
        failures[str(error.filename)] = f"{error.filename}: the folder cannot be read ({reason(error)})"

    for place, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        try:
            found = os.stat(place)
        except OSError as error:
            unreadable(error)
            folders.clear()
            continue
        if (found.st_dev, found.st_ino) in seen or os.path.realpath(place) == skipped:  # a link may lead upwards
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if _is_image(path, failures):
                yield path


def _is_image(path: Path, failures: dict[str, str]) -> bool:
    if path.name.startswith("."):
        return False
    suffix = path.suffix.lower()
    named = suffix in SUFFIXES
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
        if regular and named and suffix not in DICOM_SUFFIXES:
            return True
        if not regular and not named:  # a pipe, a socket, a device
            return False
        # DICOM files often have no suffix, or end in a part of a number that looks like one
        with open_regular(path, "rb") as file:
            dicom = suffix in DICOM_SUFFIXES or file.read(132)[128:] == b"DICM"
    except OSError as error:
        if named or isinstance(error, PermissionError):
            failures[str(path)] = f"{path}: expected an image file, which cannot be read ({reason(error)})"
        return False
    if not dicom:
        return False
    from cxrfast.data.dicom import holds_image

    return holds_image(path)  # DICOM exports also contain directories, presentation states and reports
