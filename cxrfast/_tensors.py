"""Reads tensors from safetensors files and archives of torch. Nothing in them is executed; sizes are checked first."""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from cxrfast._files import open_regular

State = dict[str, torch.Tensor]

_HEADER = 100_000_000  # bytes; the limit of the safetensors library


def read_safetensors(path: Path, *, tensors: bool = True) -> tuple[dict[str, str], State]:
    """Metadata and, unless not wanted, tensors of a safetensors file.

    Raises :class:`OSError` or :class:`ValueError` for anything else.
    """
    from safetensors import SafetensorError, safe_open

    with open_regular(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= header <= min(_HEADER, size - 8):
        raise ValueError(f"its header declares {header} bytes, the file has {size}")
    try:
        with safe_open(str(path), framework="pt") as found:
            names = list(found.keys()) if tensors else []
            return found.metadata() or {}, {name: found.get_tensor(name) for name in names}
    except (SafetensorError, RuntimeError, TypeError, OverflowError, UnicodeError) as error:
        raise ValueError(f"not a safetensors file, or damaged ({error})") from error


def load_archive(path: Path) -> Any:
    """What :func:`torch.save` has written, of tensors and plain values only, on the CPU.

    Raises :class:`OSError` for a file that cannot be opened, :class:`ValueError` for an archive whose members declare
    more than the file holds, and whatever :func:`torch.load` raises for other damage.
    """
    with open_regular(path, "rb") as file:
        if zipfile.is_zipfile(file):
            _check_members(file)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


def _check_members(file: Any) -> None:
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        # torch compresses no tensors; TorchScript compresses its code, and is refused by torch itself
        if sum(member.file_size for member in archive.infolist()) > size + 2**20:
            raise ValueError("the members of the archive declare more bytes than it has")
