"""Messages to the user, through :mod:`logging`.

Modules log to loggers below "cxrfast": progress at INFO, problems at WARNING. A program that does not configure logging
shows nothing. The command line shows every line on standard output (:class:`Console`).

A caller can indent or suppress the lines that are logged by the functions it calls, if their logger is from
:func:`get_logger`: see :func:`indented`, :func:`quiet` and :func:`once`.
"""

import logging
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

PACKAGE = "cxrfast"

_Change = Callable[[str], str | None]  # from a line to the line that is shown; None: it is not shown
_changes: ContextVar[tuple[_Change, ...]] = ContextVar("changes", default=())  # the innermost comes last


def get_logger(name: str) -> logging.Logger:
    """The logger of a module. Its lines obey :func:`indented`, :func:`quiet` and :func:`once`."""
    logger = logging.getLogger(name)
    logger.addFilter(_apply_changes)
    return logger


def _apply_changes(record: logging.LogRecord) -> bool:
    changes = _changes.get()
    if changes:
        line = record.getMessage()
        for change in reversed(changes):
            changed = change(line)
            if changed is None:
                return False
            line = changed
        record.msg, record.args = line, ()
    return True


@contextmanager
def _changed(change: _Change) -> Iterator[None]:
    token = _changes.set((*_changes.get(), change))
    try:
        yield
    finally:
        _changes.reset(token)


@contextmanager
def indented(prefix: str) -> Iterator[None]:
    """Inside this context, every logged line begins with `prefix`."""
    with _changed(lambda line: prefix + line):
        yield


@contextmanager
def quiet(when: bool = True) -> Iterator[None]:
    """Inside this context, logged lines are not shown if `when` is true."""
    with _changed(lambda line: None if when else line):
        yield


@contextmanager
def once() -> Iterator[None]:
    """Inside this context, a line that is logged repeatedly is shown only once."""
    shown = set[str]()

    def first_only(line: str) -> str | None:
        if line in shown:
            return None
        shown.add(line)
        return line

    with _changed(first_only):
        yield


def printable(text: str) -> str:
    """The text with what a terminal would act on, or hide, written as escapes: ``\\x1b``, ``\\n``, ``\\u202e``.

    These are control and format characters (also those that turn the direction of text), line separators, and half a
    surrogate pair (from a file name that is not UTF-8). Names of files, classes and patients, and text of DICOM files,
    may contain them.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) if _is_unsafe(character) else character for character in text)


def printable_lines(text: str) -> str:
    """:func:`printable` for a text of several lines: its line breaks stay."""
    return "\n".join(map(printable, text.split("\n")))


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


class Console(logging.Handler):
    """Writes bare messages to standard output, above any progress bars; see :func:`printable_lines`."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm  # when there is something to write: `--help` answers at once

        tqdm.write(printable_lines(self.format(record)))
        sys.stdout.flush()  # before whatever goes to standard error next


@contextmanager
def console() -> Iterator[None]:
    """Inside this context, the lines that the package logs are shown on standard output."""
    logger = logging.getLogger(PACKAGE)
    level, handler = logger.level, add_console()
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def add_console() -> Console:
    """Show the lines that the package logs on standard output from now on."""
    logger, handler = logging.getLogger(PACKAGE), Console()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return handler


def has_console() -> bool:
    """Whether the lines that the package logs are shown on standard output."""
    return any(isinstance(handler, Console) for handler in logging.getLogger(PACKAGE).handlers)
