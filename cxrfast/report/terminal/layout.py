"""Layout of tables and paragraphs for a terminal."""

import math
import textwrap

from cxrfast._logging import printable

WIDTH = 100  # columns


def ruled(rows: list[list[str]], below: int = 1) -> list[str]:
    """A table with a rule under the header, and one above the last ``below`` rows."""
    table = _table(rows)
    rule = "-" * len(table[0])
    end = len(table) - below
    return [table[0], rule, *table[1:end], *([rule] if below else []), *table[end:]]


def _table(rows: list[list[str]]) -> list[str]:
    """Align the first column to the left and the others to the right; very long names are cut."""
    rows = [[printable(cell) for cell in row] for row in rows]  # names of classes may hold line breaks
    others = [max(len(row[c]) for row in rows) + 2 for c in range(1, len(rows[0]))]
    first = min(max(len(row[0]) for row in rows), WIDTH - sum(others))
    return [
        _cut(row[0], first).ljust(first)
        + "".join(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))
        for row in rows
    ]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False)


def decimal(value: float, digits: int = 3) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def short(value: float) -> str:
    """Two decimals, or two digits where these would be 0."""
    return "-" if math.isnan(value) else f"{value:.2f}" if value == 0 or value >= 0.005 else f"{value:.2g}"


def between(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{low:.2f}–{high:.2f}"
