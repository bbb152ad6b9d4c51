"""Looks at every image file: its size in bytes and pixels, whether it can be read, and which files are identical."""

import hashlib
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from cxrfast.data.images import image_size, read_image
from cxrfast.errors import CxrfastError

_EDGE = 8192  # bytes at each end of a file that are compared before the whole file is
_AT_ONCE = 32  # files of one task
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class FileFacts:
    """One image file."""

    length: int  # in bytes
    size: tuple[int, int] | None  # width and height in pixels
    problem: str  # why it cannot be read; empty if it can
    pixels: bytes | None = None  # hash of the decoded pixels, if they were decoded


def look_at_files(paths: Sequence[Path], *, verify: bool = False, progress: bool = True) -> list[FileFacts]:
    """The facts of every file, from its header; with ``verify`` every image is decoded as well."""
    task = _decode if verify else _header
    what = "decoding images" if verify else "reading headers"
    return list(_in_parallel(task, paths, what, progress))


def _header(path: Path) -> FileFacts:
    try:
        return FileFacts(path.stat().st_size, image_size(path), "")
    except (OSError, CxrfastError) as error:
        return FileFacts(_length(path), None, " ".join(str(error).split()))


def _decode(path: Path) -> FileFacts:
    facts = _header(path)
    if facts.problem:
        return facts
    try:
        pixels = np.ascontiguousarray(read_image(path))
    except (CxrfastError, MemoryError) as error:
        return FileFacts(facts.length, facts.size, " ".join(str(error).split()) or "too large for the memory")
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(pixels.data)
    return FileFacts(facts.length, facts.size, "", digest.digest())


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def identical_files(paths: Sequence[Path], sizes: Sequence[int], *, progress: bool = True) -> list[list[int]]:
    """Places in ``paths`` of files with the same bytes, by group.

    Only files of equal size are read, first their ends, and as a whole only those whose ends are equal too.
    """
    groups = group_equal(list(range(len(paths))), sizes)
    for read, what in ((_hash_edges, "comparing files"), (_hash_file, "hashing files")):
        places = [place for group in groups for place in group]
        digests = list(_in_parallel(read, [paths[place] for place in places], what, progress))
        groups = group_equal(places, digests)
    return sorted(groups)


def group_equal(places: Sequence[int], keys: Sequence[Hashable]) -> list[list[int]]:
    """The places whose keys are equal, in groups of two or more. A key None equals nothing."""
    found: dict[Hashable, list[int]] = {}
    for place, key in zip(places, keys, strict=True):
        if key is not None:
            found.setdefault(key, []).append(place)
    return [group for group in found.values() if len(group) > 1]


def _hash_edges(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=16)
            digest.update(file.read(_EDGE))
            file.seek(max(size - _EDGE, 0))
            digest.update(file.read(_EDGE))
    except OSError:
        return None
    return digest.digest()


def _hash_file(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError:
        return None


def _in_parallel(
    task: Callable[[_Item], _Result], items: Sequence[_Item], what: str, progress: bool
) -> Iterator[_Result]:
    """The results in the order of the items."""
    from tqdm import tqdm

    def run(chunk: Sequence[_Item]) -> list[_Result]:
        return [task(item) for item in chunk]

    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chunks = [items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE)]
    # disable=None: silent where stderr is not a terminal
    with (
        tqdm(total=len(items), desc=what, unit="image", disable=None if progress else True, leave=False) as bar,
        ThreadPoolExecutor(min(processors * 2, 16)) as pool,
    ):
        for results in pool.map(run, chunks):
            bar.update(len(results))
            yield from results
