"""Perceptual hashes of images, computed in parallel and cached in a file beside the data.

The hash is the 64-bit `phash` of ImageHash: the image is resized to a fixed size, and the lowest 8×8 frequencies of its
32×32 cosine transform are compared with their median. The hashes of similar images differ in few bits
(:func:`cxrfast.ops.hamming_topk`).
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cxrfast._files import atomic_path
from cxrfast._json import parse_json
from cxrfast._npz import read_npz
from cxrfast.data.images import read_image
from cxrfast.data.records import Record
from cxrfast.data.transforms import resize
from cxrfast.errors import CxrfastError, UsageError

CACHE_NAME = "cxrfast_hashes.npz"
# All parameters that affect a hash; they are stored in the cache.
PARAMETERS: dict[str, Any] = {"hash": "phash", "hash_size": 8, "highfreq_factor": 4, "input_size": 256}
_ARRAYS = {"parameters": "U", "images": "U", "sizes": "i", "hashes": "i"}  # arrays of the cache: kind of dtype
_IMAGES_PER_WORKER = 32  # for fewer images, starting a process takes longer than it saves


@dataclass(frozen=True)
class ImageHashes:
    """The hashes of a sequence of records, in the same order."""

    hashes: np.ndarray  # [N] int64; 0 for images without a hash
    known: np.ndarray  # [N] bool
    failed: Mapping[str, str]  # image -> why it has no hash
    computed: int  # number of hashes that were not in the cache
    path: Path | None  # the cache; None if it could not be written anywhere
    notes: tuple[str, ...]  # one line each


def perceptual_hash(image: np.ndarray) -> int:
    """The 64-bit hash of a greyscale image ``[H, W]`` in [0, 1], as a signed integer, most significant bit first."""
    import imagehash
    from PIL import Image

    small = np.rint(resize(image, PARAMETERS["input_size"]) * 255).clip(0, 255).astype(np.uint8)
    found = imagehash.phash(
        Image.fromarray(small), hash_size=PARAMETERS["hash_size"], highfreq_factor=PARAMETERS["highfreq_factor"]
    )
    return int.from_bytes(np.packbits(found.hash).tobytes(), "big", signed=True)


def hash_records(
    records: Sequence[Record],
    folder: str | os.PathLike,
    *,
    cache: str | os.PathLike | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> ImageHashes:
    """The hashes of all records. A cached hash is used if the size of the image file has not changed.

    The cache is the file ``cache``. By default it is ``cxrfast_hashes.npz`` in ``folder`` or, if that is not writable,
    a file in the user's cache folder (``$XDG_CACHE_HOME/cxrfast``). It stores names, file sizes, hashes and the
    parameters of the hash. Hashes with other parameters are computed again. Images that are not among ``records`` stay
    in the cache. The cache is also written if the computation is interrupted.

    ``workers`` is the number of data-loader workers (0: the main process; default: one per processor, fewer for few
    images). An image that cannot be read has no hash and is listed in ``failed``; the others are still hashed.

    Raises :class:`CxrfastError` if ``cache`` is not a file of hashes, or cannot be written.
    """
    if workers is not None and workers < 0:
        raise UsageError(f"workers is {workers}; expected 0 or more")
    notes: list[str] = []
    stored = _load(cache, folder, notes)
    sizes = {record.image: _file_size(record.path) for record in records}
    fresh = {image: entry[1] for image, entry in stored.items() if sizes.get(image) == entry[0]}
    missing = [record for record in records if record.image not in fresh]
    failed: dict[str, str] = {}
    path = None
    try:
        for record, value, error in _compute(missing, workers, progress):
            if value is None:
                failed[record.image] = error
            else:
                fresh[record.image] = value
    finally:
        names = (record.image for record in missing if record.image in fresh)
        done = {image: (size, fresh[image]) for image in names if (size := sizes[image]) is not None}
        if done:
            path = _save(stored | done, cache, folder, notes)
        elif stored:
            path = _existing(cache, folder)
    notes.extend(f"no hash of {image}, which is left out: {error}" for image, error in failed.items())
    return ImageHashes(
        np.array([fresh.get(record.image, 0) for record in records], dtype=np.int64),
        np.array([record.image in fresh for record in records], dtype=bool),
        failed,
        len(missing) - len(failed),
        path,
        tuple(notes),
    )


class _Hashing(Dataset):
    """Items (index of the record, hash or None, error message)."""

    def __init__(self, records: Sequence[Record]):
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[int, int | None, str]:
        try:
            return index, perceptual_hash(read_image(self.records[index].path)), ""
        except CxrfastError as error:
            return index, None, str(error)


def _compute(records: Sequence[Record], workers: int | None, progress: bool) -> Any:
    """Yields (record, hash or None, error message)."""
    from tqdm import tqdm

    if not records:
        return
    if workers is None:
        workers = min(_processors(), len(records) // _IMAGES_PER_WORKER)
    # A separate generator, so that hashing does not change the state of the global one.
    loader = DataLoader(_Hashing(records), batch_size=None, num_workers=workers, generator=torch.Generator())
    # disable=None: silent where stderr is not a terminal
    for index, value, error in tqdm(
        loader, total=len(records), desc="hashing images", unit="image", disable=None if progress else True
    ):
        yield records[index], value, error


def _processors() -> int:
    """The number of processors that this process may use, which containers and batch systems often limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _file_size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None  # reading the image reports the reason


def _places(cache: str | os.PathLike | None, folder: str | os.PathLike) -> list[Path]:
    """Candidate paths of the cache, in order of preference."""
    if cache is not None:
        return [Path(cache)]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:16]
    return [Path(folder) / CACHE_NAME, home / "cxrfast" / f"hashes-{digest}.npz"]


def _existing(cache: str | os.PathLike | None, folder: str | os.PathLike) -> Path | None:
    return next((path for path in _places(cache, folder) if path.is_file()), None)


def _load(cache: str | os.PathLike | None, folder: str | os.PathLike, notes: list[str]) -> dict[str, tuple[int, int]]:
    """image -> (file size, hash), of the first cache found."""
    path = _existing(cache, folder)
    if path is None:
        return {}
    try:
        arrays = read_npz(path, _ARRAYS)
        if any(arrays[name].dtype.kind != kind for name, kind in _ARRAYS.items()):
            raise ValueError("an array of another type")
        parameters = parse_json(str(arrays["parameters"]))
        entries = zip(arrays["images"].tolist(), arrays["sizes"].tolist(), arrays["hashes"].tolist(), strict=True)
        stored = {image: (size, value) for image, size, value in entries}
    except (OSError, ValueError, TypeError, KeyError) as error:
        if cache is not None:  # never overwrite a file that the user named unless it is a cache
            raise CxrfastError(
                f"{path} is not a file of image hashes ({error}); name another file, or remove it"
            ) from error
        notes.append(f"{path} is damaged ({error}): the hashes are computed again")
        return {}
    if parameters != PARAMETERS:
        notes.append(f"{path} was computed with other parameters: the hashes are computed again")
        return {}
    return stored


def _save(
    entries: Mapping[str, tuple[int, int]],
    cache: str | os.PathLike | None,
    folder: str | os.PathLike,
    notes: list[str],
) -> Path | None:
    """Write the cache to the first writable candidate path."""
    for path in (places := _places(cache, folder)):
        try:
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(
                    file,
                    parameters=np.array(json.dumps(PARAMETERS)),
                    images=np.array(list(entries), dtype=str),
                    sizes=np.array([size for size, _ in entries.values()], dtype=np.int64),
                    hashes=np.array([value for _, value in entries.values()], dtype=np.int64),
                )
            return path
        except CxrfastError as error:
            if cache is not None:
                raise
            if path == places[-1]:
                notes.append(f"the hashes were not saved and will be computed again: {error}")
    return None
