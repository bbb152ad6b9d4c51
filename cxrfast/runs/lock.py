"""One process at a time trains in a folder."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cxrfast.errors import CxrfastError

try:
    import fcntl
except ImportError:  # Windows: folders are not locked
    fcntl = None  # type: ignore[assignment]

_held: set[int] = set()  # descriptors of locks


def _close_in_child() -> None:
    """A data-loader worker shares its parent's lock, and may live a few seconds longer than a killed parent."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which names this process and its machine, and delete it at the end.

    The lock itself is the kernel's and ends with the process, however it ends. File systems without locks are not
    locked. Raises CxrfastError, with the holder, if another process holds it.
    """
    descriptor = _acquire(path)
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            _held.discard(descriptor)
            os.close(descriptor)


def _acquire(path: Path) -> int | None:
    if fcntl is None:
        return None
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise CxrfastError(f"{path} cannot be written ({error.strerror or error})") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise CxrfastError(f"{path.parent} is in use by {holder}; wait until it has finished, or stop it") from None
        except OSError:  # no locks on this file system
            os.close(descriptor)
            return None
        if _is_still(path, descriptor):
            break
        os.close(descriptor)  # the holder deleted the file between our opening and locking it
    _held.add(descriptor)
    with suppress(OSError):  # the disk may be full; the lock holds without its text
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        there, ours = os.stat(path), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
