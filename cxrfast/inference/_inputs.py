"""Expands input arguments (files, folders, glob patterns) to image files."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from cxrfast.data.images import DICOM_SUFFIXES
from cxrfast.data.images import IMAGE_SUFFIXES as SUFFIXES


def expand_inputs(
    inputs: Sequence[str | os.PathLike], *, skip: Path | None = None
) -> tuple[list[Path], dict[str, str]]:
    """Expand files, folders and glob patterns to image files.

    Folders are searched recursively. Images are recognised by suffix or by their DICOM header. The folder ``skip``,
    hidden files and DICOM files without an image (directories, presentation states) are left out. Files that are given
    by name are not checked.

    Returns:
        The image files in order, without duplicates, and for each input without files the reason.
    """
    files: dict[Path, Path] = {}
    failures: dict[str, str] = {}
    for given in [os.fspath(path) for path in inputs]:
        if os.path.isdir(given):
            found = _images_below(Path(given), skip)
            why = f"{given}: expected images ({', '.join(SUFFIXES)}), got none in the folder"
        elif glob.has_magic(given) and not os.path.exists(given):
            matches = [Path(match) for match in sorted(glob.glob(given, recursive=True))]
            found = [file for match in matches for file in (_images_below(match, skip) if match.is_dir() else [match])]
            why = f"{given}: expected a pattern that matches files, got no match"
        else:
            found, why = [Path(given)], ""  # a missing file is reported when it is read
        if not found:
            failures[given] = why
        for file in found:
            files.setdefault(file.resolve(), file)
    return list(files.values()), failures


def _images_below(folder: Path, skip: Path | None) -> list[Path]:
    skipped = skip.resolve() if skip is not None and skip.resolve() != folder.resolve() else None
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (Path(place) / name).resolve() != skipped
        )
        found += [Path(place) / name for name in sorted(names) if _is_image(Path(place) / name)]
    return found


def _is_image(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_file():  # reading a named pipe would block
        return False
    suffix = path.suffix.lower()
    if suffix in SUFFIXES and suffix not in DICOM_SUFFIXES:
        return True
    # DICOM files often have no suffix, or end in a part of a number that looks like one
    try:
        with path.open("rb") as file:
            dicom = suffix in DICOM_SUFFIXES or file.read(132)[128:] == b"DICM"
    except OSError:
        return suffix in DICOM_SUFFIXES
    if not dicom:
        return False
    from cxrfast.data.dicom import holds_image

    return holds_image(path)  # DICOM exports also contain directories, presentation states and reports


def output_stems(files: Sequence[Path]) -> list[str]:
    """An output name without suffix for each file: its stem, or ``<stem>-2``, ``<stem>-3``, … if the stem is taken.

    Case is ignored, as on some file systems.
    """
    reserved = {file.stem.casefold() for file in files}
    used: set[str] = set()
    stems = []
    for file in files:
        stem, number = file.stem, 1
        while stem.casefold() in used or (number > 1 and stem.casefold() in reserved):
            number += 1
            stem = f"{file.stem}-{number}"
        used.add(stem.casefold())
        stems.append(stem)
    return stems
