"""Results of runs: the table on disk, and mean, minimum and maximum over runs."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

from cxrfast._files import write_text
from cxrfast.bags.experiment import Outcome, Settings
from cxrfast.bags.images import Source
from cxrfast.bags.methods import METHODS
from cxrfast.errors import CxrfastError

_SOURCE = ("dataset", "positive_class")
_SETTINGS = tuple(field.name for field in fields(Settings))
_MEASURES = ("iou", "auc", "epoch", "val_auc", "positives_per_bag", "seconds")
_COLUMNS = (*_SOURCE, *_SETTINGS, *_MEASURES)

Key = tuple[str, ...]  # what identifies a run, as it stands in the table


class RunTable:
    """The CSV file of all runs, one a row. Rows of earlier calls stay; what stands there need not run again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[Key, dict[str, str]] = {}
        if not path.exists():
            return
        try:
            with open(path, encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                rows = list(reader)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise CxrfastError(f"{path} cannot be read ({error}); choose another --out") from error
        if tuple(reader.fieldnames or ()) != _COLUMNS or any(None in row or None in row.values() for row in rows):
            raise CxrfastError(f"{path} is not a table of this version's runs; choose another --out")
        self._rows = {tuple(row[name] for name in (*_SOURCE, *_SETTINGS)): row for row in rows}

    def __contains__(self, key: Key) -> bool:
        return key in self._rows

    def __getitem__(self, key: Key) -> dict[str, str]:
        return self._rows[key]

    def add(self, key: Key, outcome: Outcome) -> None:
        """Add a run and write the file, whole or not at all."""
        measured = {name: _text(getattr(outcome, name)) for name in _MEASURES}
        self._rows[key] = {**dict(zip((*_SOURCE, *_SETTINGS), key, strict=True)), **measured}
        write_csv(self.path, _COLUMNS, self._rows.values())


def run_key(source: Source, settings: Settings) -> Key:
    return (source.name, source.positive_class, *(_text(value) for value in asdict(settings).values()))


def _text(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


class Spread(NamedTuple):
    """A measure over runs."""

    mean: float
    min: float
    max: float


class Summary(NamedTuple):
    """The runs of one method on bags of one size, with one number of training bags."""

    method: str
    bag_size: int
    train_bags: int
    runs: int
    iou: Spread
    auc: Spread


def summarize(rows: Iterable[dict[str, str]]) -> list[Summary]:
    """Mean, minimum and maximum over the runs of every configuration, in the order of their first rows."""
    groups: dict[tuple[str, int, int], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["method"], int(row["bag_size"]), int(row["train_bags"])), []).append(row)
    summaries = []
    for key, group in groups.items():
        spreads = []
        for measure in ("iou", "auc"):
            values = [float(row[measure]) for row in group]
            spreads.append(Spread(sum(values) / len(values), min(values), max(values)))
        summaries.append(Summary(*key, len(group), *spreads))
    return summaries


def write_summary(path: Path, summaries: Sequence[Summary]) -> None:
    columns = ["method", "bag_size", "train_bags", "runs"]
    columns += [f"{measure}_{kind}" for measure in ("iou", "auc") for kind in Spread._fields]
    rows = []
    for summary in summaries:
        values = [*summary[:4], *(f"{value:.4f}" for value in (*summary.iou, *summary.auc))]
        rows.append(dict(zip(columns, map(str, values), strict=True)))
    write_csv(path, columns, rows)


def markdown(summaries: Sequence[Summary], measure: str) -> str:
    """One measure as a table: a row per number of training bags and method, a column per bag size. Cells are
    "mean (min–max)" over the runs; the best mean of a column among equal numbers of training bags is bold."""
    sizes = sorted({summary.bag_size for summary in summaries})
    methods = list(dict.fromkeys(summary.method for summary in summaries))
    cells = {(s.train_bags, s.method, s.bag_size): getattr(s, measure) for s in summaries}
    lines = ["| training bags | method | " + " | ".join(f"bags of {size}" for size in sizes) + " |"]
    lines.append("|---|---|" + "---|" * len(sizes))
    for bags in sorted({summary.train_bags for summary in summaries}):
        for method in methods:
            if not any((bags, method, size) in cells for size in sizes):
                continue
            row = [str(bags), METHODS[method].label]
            for size in sizes:
                rivals = [cells[bags, m, size].mean for m in methods if (bags, m, size) in cells]
                row.append(_cell(cells.get((bags, method, size)), max(rivals, default=0)))
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _cell(spread: Spread | None, best: float) -> str:
    if spread is None:
        return "–"
    mean = f"{spread.mean:.2f}"
    return f"{f'**{mean}**' if spread.mean == best else mean} ({spread.min:.2f}–{spread.max:.2f})"
