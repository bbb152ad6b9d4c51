"""One CSV file per device, with one row per case, pass and implementation."""

import csv
import io
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import cxrfast
from cxrfast._files import write_text
from cxrfast.errors import CxrfastError

OURS = "cxrfast"


@dataclass
class BenchmarkRow:
    """A row. Fields are empty if they do not apply, or if the note explains why they were not measured."""

    # The run
    device: str
    date: str
    cxrfast: str
    commit: str  # of the source that the package was imported from; empty for an installed one
    torch: str
    threads: int
    dtype: str
    copy_gb_s: float
    sgemm_gflop_s: float
    # What was measured
    case: str
    operator: str
    passes: str
    implementation: str  # "cxrfast" or a compared implementation
    median_ms: float | None = None
    lower_quartile_ms: float | None = None
    upper_quartile_ms: float | None = None
    rounds: int | None = None
    ratio: float | None = None  # its time divided by that of cxrfast, median over the rounds
    goal_ratio: float | None = None
    error: float | None = None  # cxrfast: against the float64 reference, small problem; others: against cxrfast
    extra_mb: float | None = None  # peak memory without the inputs, including the results
    goal_extra_mb: float | None = None
    gb_s: float | None = None
    gflop_s: float | None = None
    limit: str = ""
    fraction_of_limit: float | None = None
    goal_fraction: float | None = None
    note: str = ""

    def key(self) -> tuple[Any, ...]:
        """The key: a later measurement replaces the row with the same key."""
        return self.device, self.threads, self.dtype, self.case, self.passes


COLUMNS = [column.name for column in fields(BenchmarkRow)]
_KINDS = {column.name: get_args(column.type) or (column.type,) for column in fields(BenchmarkRow)}


def read(path: Path) -> list[BenchmarkRow]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                BenchmarkRow(**{name: _value(name, text) for name, text in line.items()})
                for line in csv.DictReader(file)
            ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CxrfastError(f"{path} is not a result of cxrfast bench ({type(error).__name__}: {error})") from error


def _value(name: str, text: str) -> Any:
    kind = _KINDS[name][0]
    if not text and kind is not str:
        return None
    return kind(text)


def write(path: Path, rows: Sequence[BenchmarkRow]) -> None:
    """Write rows to `path`, and keep existing rows that were not measured again."""
    new = {row.key() for row in rows}
    kept = [row for row in read(path) if row.key() not in new] if path.exists() else []
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in [*kept, *rows]:
        writer.writerow({name: _text(value) for name, value in asdict(row).items()})
    write_text(path, text.getvalue())


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"
    return str(value)


def commit() -> str:
    """The commit of the checkout that cxrfast is imported from, with + if it was modified; "" outside a checkout."""
    source = Path(cxrfast.__file__).parents[1]
    if not (source / ".git").exists():
        return ""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", source, *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
