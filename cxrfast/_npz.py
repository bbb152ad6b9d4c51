"""Reads npz archives of plain arrays. What a header declares is compared with the file before memory is taken."""

import math
import os
import zipfile
from collections.abc import Collection
from typing import IO

import numpy as np
from numpy.lib import format as npy

from cxrfast._files import open_regular, reason

LIMIT = 2**33
"""Largest sum of the arrays of one archive: 8 GiB."""
_CHUNK = 2**20  # bytes that are unpacked at once
_DEFLATE = 1032  # deflate makes data at most this many times smaller


def read_npz(
    path: str | os.PathLike, names: Collection[str] | None = None, limit: int = LIMIT
) -> dict[str, np.ndarray]:
    """The arrays of an archive of :func:`numpy.savez` by name; of ``names`` only those that are there.

    Nothing is unpickled. Raises :class:`OSError` for a file that cannot be opened. Raises :class:`ValueError`, in one
    line, for one that is no archive of plain arrays, has a member of another size than its header declares, or more
    than ``limit`` bytes in all.
    """
    name = ""
    with open_regular(path, "rb") as stream:
        try:
            arrays, room = {}, limit
            with zipfile.ZipFile(stream) as archive:
                size = os.fstat(stream.fileno()).st_size
                for member in archive.infolist():
                    name = member.filename.removesuffix(".npy")
                    if names is not None and name not in names:
                        continue
                    if name in arrays:
                        raise ValueError("it is there twice")
                    room -= _declared_size(member, size, room)
                    with archive.open(member) as file:
                        arrays[name] = _read_array(file, member.file_size)
            return arrays
        except Exception as error:  # damaged archives raise many kinds
            raise ValueError(f"{f'{name:.80}: ' if name else ''}{reason(error)}") from error


def array_names(path: str | os.PathLike) -> list[str]:
    """The names of an archive's arrays; errors as for :func:`read_npz`."""
    with open_regular(path, "rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                return [member.removesuffix(".npy") for member in archive.namelist()]
        except Exception as error:
            raise ValueError(reason(error)) from error


def _declared_size(member: zipfile.ZipInfo, archive_size: int, room: int) -> int:
    if not member.filename.endswith(".npy"):
        raise ValueError("it is no array (.npy)")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("it is compressed by another method than numpy's")
    most = min(member.compress_size, archive_size)
    if member.compress_type == zipfile.ZIP_DEFLATED:
        most = _DEFLATE * most + 64
    if member.file_size > most:
        raise ValueError(f"it declares {member.file_size} bytes, more than the archive can hold")
    if member.file_size > room:
        raise ValueError(f"it declares {member.file_size} bytes; expected at most {room}")
    return member.file_size


def _read_array(file: IO[bytes], size: int) -> np.ndarray:
    """The array of one member of ``size`` bytes, whose header must declare as many."""
    version = npy.read_magic(file)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read_header is None:
        raise ValueError(f"numpy format {version[0]}.{version[1]}; expected 1.0 or 2.0")
    shape, by_column, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds objects; save plain arrays")
    if len(shape) > 32 or any(side < 0 or side >= 2**62 for side in shape):
        raise ValueError(f"its shape {list(shape)!s:.80} is impossible")
    expected = math.prod(shape) * dtype.itemsize
    if expected != size - file.tell():
        raise ValueError(f"shape {list(shape)} of {dtype} needs {expected} bytes, but it has {size - file.tell()}")
    array = np.empty(shape, dtype, order="F" if by_column else "C")
    if expected:
        view = memoryview(array.ravel("K").view(np.uint8))  # type: ignore[arg-type]  # arrays are buffers
        done = 0
        while done < expected:
            count = file.readinto(view[done : done + _CHUNK])  # type: ignore[attr-defined]
            if not count:
                raise ValueError("it is truncated")
            done += count
    if file.read(1):  # the archive compares the checksum at the end of a member
        raise ValueError("it is longer than declared")
    return array
