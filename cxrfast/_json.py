"""Reads JSON that may be damaged or hostile: one error for everything that can be wrong, bounded memory and time."""

import json
import os
from typing import Any

from cxrfast._files import TEXT_LIMIT, read_text


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises :class:`ValueError`, in one line, for text that is not JSON (:class:`json.JSONDecodeError`, which has the
    line), is nested too deeply, has a name twice in one object, or a whole number of more than 4300 digits.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: str | os.PathLike, limit: int = TEXT_LIMIT) -> Any:
    """:func:`parse_json` of a regular file of at most ``limit`` bytes; also :class:`OSError`."""
    return parse_json(read_text(path, limit))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):  # JSON would silently keep the last
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice!r:.80} stands twice in one object")
    return found
