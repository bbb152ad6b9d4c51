"""Reading and writing files: a writer that never leaves half a file, and a reader that opens nothing but files.

Every file of the package is written through :func:`atomic_path`. Files that a user names are opened by
:func:`open_regular` or :func:`read_bytes`, which do not wait on a named pipe and do not read without an end.
"""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cxrfast.errors import CxrfastError

try:
    import fcntl
except ImportError:  # Windows: temporary files are not locked, and stale ones stay
    fcntl = None  # type: ignore[assignment]

TEXT_LIMIT = 2**28
"""Largest file of text, such as JSON, that is read: 256 MiB."""

_TEMPORARY = re.compile(r"\.[0-9a-f]{12,16}\.tmp")  # earlier versions wrote twelve digits
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary file in the folder of ``path`` (made if missing) to write to; it becomes ``path`` if all goes well.

    The temporary file is new, with a random name, and has the permissions of the user's umask. It is on the disk before
    it gets its name, so that a crash leaves either the old or the new content. Neither a link in the place of the
    temporary file nor one at ``path`` is followed; the latter is replaced.

    If the block raises, ``path`` is left as it was. Disk errors become a :class:`CxrfastError` that names ``path``.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    descriptor = None
    try:
        _possible(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | _flag("O_NOFOLLOW", "O_CLOEXEC"), 0o666)
        _lock(descriptor)
        yield temporary
        _require_same(temporary, descriptor)
        os.fsync(descriptor)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise CxrfastError(f"{path} cannot be written ({reason(error)})") from error
    finally:
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all. What UTF-8 has no code for (half a surrogate pair, as in file names
    that are not UTF-8) is written as ``\\udcff``."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write ``data``, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def remove_stale(*folders: str | os.PathLike[str]) -> None:
    """Delete the temporary files that killed processes have left in these folders.

    A file that a running process is writing is locked, and stays. Links are not followed.
    """
    for folder in folders:
        with suppress(OSError), os.scandir(os.fspath(folder)) as entries:
            for entry in entries:
                if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    _remove_unlocked(entry.path)


def _remove_unlocked(path: str) -> None:
    if fcntl is None:
        return
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | _flag("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Mark a temporary file as in use. Some network file systems have no locks; there nothing is removed either."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _require_same(temporary: Path, descriptor: int) -> None:
    """OSError if another file has taken the place of the temporary one."""
    here, ours = os.lstat(temporary), os.fstat(descriptor)
    if (here.st_dev, here.st_ino) != (ours.st_dev, ours.st_ino):
        raise OSError(errno.EEXIST, "another process has replaced the temporary file", str(temporary))


def _sync_folder(folder: Path) -> None:
    """Put the new name on the disk; not every file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | _flag("O_DIRECTORY", "O_CLOEXEC"))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _flag(*names: str) -> int:
    """Flags of :func:`os.open` that this system has."""
    return sum(getattr(os, name, 0) for name in names)


def open_regular(path: str | os.PathLike, mode: str = "r", **options: Any) -> IO[Any]:
    """``open(path, mode, **options)`` to read, for regular files only.

    Raises :class:`OSError` for anything else (a folder, named pipe, socket or device), without waiting for it, and for
    a path that no file can have (too long, or with a zero byte).
    """
    _require_regular(os.stat(_possible(path)).st_mode, path)  # before it is opened: opening a device can have effects
    # Without waiting, if the file has meanwhile become a pipe
    descriptor = os.open(path, os.O_RDONLY | _flag("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
    try:
        _require_regular(os.fstat(descriptor).st_mode, path)
        return open(descriptor, mode, **options)
    except BaseException:
        os.close(descriptor)
        raise


def _possible(path: str | os.PathLike) -> str | os.PathLike:
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from error
    if "\0" in os.fspath(path):
        raise OSError(errno.EINVAL, "a file name has no zero byte", str(path))
    return path


def _require_regular(mode: int, path: str | os.PathLike) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "no regular file")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", os.fspath(path))


def read_bytes(path: str | os.PathLike, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; :class:`OSError` for anything else."""
    with open_regular(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        data: bytes = b"" if size > limit else file.read(size)
        while (
            size <= limit and len(data) <= limit and (more := file.read(2**16))
        ):  # it grows, or says no size, as in /proc
            data += more
    if max(size, len(data)) > limit:
        raise OSError(errno.EFBIG, f"it has {max(size, len(data))} bytes, more than {limit}", os.fspath(path))
    return data


def read_text(path: str | os.PathLike, limit: int = TEXT_LIMIT) -> str:
    """The content of a regular file as UTF-8; :class:`OSError` or :class:`UnicodeDecodeError` (a ValueError)."""
    return read_bytes(path, limit).decode("utf-8")


def is_file(path: str | os.PathLike) -> bool:
    """Whether there is a regular file; also False for a path that no file can have."""
    try:
        return stat.S_ISREG(os.stat(_possible(path)).st_mode)
    except OSError:
        return False


def reason(error: Exception) -> str:
    """What went wrong, without the path, in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
