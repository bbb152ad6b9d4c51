"""Training in a child process that is killed, or gets a disk error, at a chosen operation on a file of the run."""

import errno
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

FULL = "No space left on device"

# Operation, where it is, and what it raises on a full disk (None: it needs no space)
_PLACES: dict[str, tuple[Any, str, Callable[[], Exception] | None]] = {
    "replace": (os, "replace", lambda: OSError(errno.ENOSPC, FULL)),
    "fsync": (os, "fsync", lambda: OSError(errno.ENOSPC, FULL)),
    "mkdir": (os, "mkdir", lambda: OSError(errno.ENOSPC, FULL)),
    "unlink": (os, "unlink", None),
    "text": (Path, "write_text", lambda: OSError(errno.ENOSPC, FULL)),
    "weights": (Path, "write_bytes", lambda: OSError(errno.ENOSPC, FULL)),
    "state": (torch, "save", lambda: RuntimeError("[enforce fail at inline_container.cc:1] .\nfile write failed")),
}
_WRITES = ("text", "weights", "state")


class Shim:
    """Counts the operations on files below `folder`, and fails at number `at`.

    A point is (operation, moment). A moment is "before" or "after" the operation, or "half": half of a file is written.

    Attributes:
        points: those that were passed.
    """

    def __init__(self, folder: Path, at: int | None = None, *, full: bool = False) -> None:
        self.folder, self.at, self.full = str(folder), at, full
        self.points: list[str] = []

    def install(self) -> None:
        for name, (owner, attribute, error) in _PLACES.items():
            setattr(owner, attribute, self._wrapped(name, getattr(owner, attribute), error))

    def _wrapped(self, name: str, real: Callable[..., Any], error: Callable[[], Exception] | None) -> Callable:
        def shim(*args: Any, **options: Any) -> Any:
            if name != "fsync" and not any(self.folder in str(arg) for arg in args if isinstance(arg, str | Path)):
                return real(*args, **options)
            if name == "mkdir" and os.path.isdir(args[0]):  # nothing happens, and nothing fails
                return real(*args, **options)
            failure = error
            if name == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode):
                failure = None  # a new name that is not on the disk yet is no error
            self._pass(f"{name} before", failure)
            result = real(*args, **options)
            if name in _WRITES:
                self._pass(f"{name} half", error, self._written(name, args))
            if not self.full:  # an operation that is done cannot fail any more
                self._pass(f"{name} after", None)
            return result

        return shim

    def _written(self, name: str, args: tuple[Any, ...]) -> Path:
        return Path(args[1] if name == "state" else args[0])

    def _pass(self, point: str, error: Callable[[], Exception] | None, file: Path | None = None) -> None:
        if self.full and error is None:
            return
        self.points.append(point)
        if len(self.points) - 1 != self.at:
            return
        if file is not None:
            os.truncate(file, file.stat().st_size // 2)
        if not self.full:
            os.kill(os.getpid(), signal.SIGKILL)
        assert error is not None
        raise error()


def run_in_child(
    arguments: list[str], log: Path, prepare: Callable[[], Callable[[], None] | None] = lambda: None
) -> int:
    """`cxrfast` with these arguments in a child process, with one thread. Returns the exit code, negative for a signal.

    `prepare` is called in the child first; what it returns, at the end.
    """
    child = os.fork()
    if child == 0:
        code = 99
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            torch.set_num_threads(1)
            from cxrfast.cli.main import run

            finish = prepare()
            code = run(arguments)
            if finish is not None:
                finish()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
