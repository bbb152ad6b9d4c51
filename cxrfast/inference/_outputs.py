"""Where the results of each image are written: the folders of the inputs, mirrored below the output folder."""

import os
from collections.abc import Sequence
from pathlib import Path

from cxrfast.data.images import IMAGE_SUFFIXES
from cxrfast.errors import UsageError

RESULTS = (".json", ".png")


def output_places(files: Sequence[Path], roots: Sequence[str | os.PathLike]) -> list[Path]:
    """For each file the path of its results without suffix, relative to the output folder.

    The folders are those between the file and the deepest folder that holds all of ``roots`` (the folders that were
    given, and the folders of files that were given) and all files. The name is that of the file without an image
    suffix, or ``<name>-2``, ``<name>-3``, … if files of one folder have the same. Case is ignored, as on some file
    systems.
    """
    paths = [Path(os.path.abspath(file)) for file in files]
    if not paths:
        return []
    # Two drives have no folder in common
    common = os.path.commonpath([*map(os.path.abspath, roots), *{path.parent for path in paths}])
    wanted = [Path(os.path.relpath(path.parent, common)) / _stem(path.name) for path in paths]
    reserved = {_key(place) for place in wanted}
    used: set[str] = set()
    numbers: dict[str, int] = {}
    places = []
    for place in wanted:
        key = _key(place)
        chosen, number = place, numbers.get(key, 1)
        while _key(chosen) in used or (number > 1 and _key(chosen) in reserved):
            number += 1
            chosen = place.with_name(f"{place.name}-{number}")
        numbers[key] = number
        used.add(_key(chosen))
        places.append(chosen)
    return places


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name  # the last number of a UID is no suffix


def _key(place: Path) -> str:
    return str(place).casefold()


def input_roots(inputs: Sequence[str | os.PathLike], files: Sequence[Path]) -> list[str | os.PathLike]:
    """The folders among ``inputs``; without one, the folders of the files."""
    folders: list[str | os.PathLike] = [path for path in inputs if os.path.isdir(path)]
    return folders or [file.parent for file in files]


def refuse_existing(out: Path, places: Sequence[Path]) -> None:
    """:class:`UsageError` if there is a result already in one of these places of the folder ``out``."""
    existing = [path for place in places for path in result_paths(out, place) if os.path.lexists(path)]
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(
            f"out: expected no results of these images, got {existing[0]}{more}; choose another folder, or add "
            "--overwrite to replace them"
        )


def result_paths(out: Path, place: Path) -> tuple[Path, Path]:
    """The JSON file and the picture."""
    return out / place.with_name(place.name + RESULTS[0]), out / place.with_name(place.name + RESULTS[1])
