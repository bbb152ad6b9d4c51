"""Results of runs: a CSV table, and mean, minimum and maximum over runs."""

import csv
import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

from cxrfast._files import write_text
from cxrfast.errors import CxrfastError
from cxrfast.experiments.bags.drawing import parse_positives
from cxrfast.experiments.bags.experiment import BagOutcome, BagSettings
from cxrfast.experiments.bags.images import BagSource
from cxrfast.experiments.bags.methods import Spelling

_SOURCE = ("dataset", "positive_class")
_SETTINGS = tuple(field.name for field in fields(BagSettings))
_MEASURES = ("iou", "auc", "epoch", "val_auc", "positives_per_bag", "seconds")
_COLUMNS = (*_SOURCE, *_SETTINGS, *_MEASURES)

Key = tuple[str, ...]  # the columns that identify a run, as text


class RunTable:
    """The CSV file of all runs, one per row. Rows of earlier calls are kept, so that their runs are not repeated."""

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
            raise CxrfastError(
                f"{path}: expected a table of runs of this version, got other columns; choose another --out"
            )
        self._rows = {tuple(row[name] for name in (*_SOURCE, *_SETTINGS)): row for row in rows}

    def __contains__(self, key: Key) -> bool:
        return key in self._rows

    def __getitem__(self, key: Key) -> dict[str, str]:
        return self._rows[key]

    def add(self, key: Key, outcome: BagOutcome) -> None:
        """Add a run and rewrite the file, atomically."""
        measured = {name: _text(getattr(outcome, name)) for name in _MEASURES}
        self._rows[key] = {**dict(zip((*_SOURCE, *_SETTINGS), key, strict=True)), **measured}
        write_csv(self.path, _COLUMNS, self._rows.values())


def run_key(source: BagSource, settings: BagSettings) -> Key:
    return (source.name, source.positive_class, *(_text(value) for value in asdict(settings).values()))


def _text(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


class RunSpread(NamedTuple):
    """Mean and range of a measure over runs."""

    mean: float
    min: float
    max: float


class Summary(NamedTuple):
    """The results of one method for one combination of bag size, positives and number of training bags."""

    method: str  # as written by :class:`cxrfast.experiments.bags.methods.Spelling`
    bag_size: int
    train_bags: int
    positives: str  # the option
    positives_per_bag: float  # measured: the mean over the positive test bags
    runs: int
    iou: RunSpread
    auc: RunSpread

    @property
    def label(self) -> str:
        return Spelling.parse(self.method).label


def summarize(rows: Iterable[dict[str, str]]) -> list[Summary]:
    """Mean, minimum and maximum over the runs of every configuration, in the order of first occurrence."""
    groups: dict[tuple[str, int, int, str], list[dict[str, str]]] = {}
    for row in rows:
        spelling = str(Spelling(row["method"], row["pool"] or None))
        key = (spelling, int(row["bag_size"]), int(row["train_bags"]), row["positives"])
        groups.setdefault(key, []).append(row)
    summaries = []
    for key, group in groups.items():
        of = {name: [float(row[name]) for row in group] for name in ("positives_per_bag", "iou", "auc")}
        mean = {name: sum(values) / len(values) for name, values in of.items()}
        spreads = [RunSpread(mean[name], min(of[name]), max(of[name])) for name in ("iou", "auc")]
        summaries.append(Summary(*key, mean["positives_per_bag"], len(group), *spreads))
    return summaries


def write_summary(path: Path, summaries: Sequence[Summary]) -> None:
    columns = list(Summary._fields[:-2])
    columns += [f"{measure}_{kind}" for measure in ("iou", "auc") for kind in RunSpread._fields]
    rows = []
    for summary in summaries:
        values = [*map(_text, summary[:-2]), *(f"{value:.4f}" for value in (*summary.iou, *summary.auc))]
        rows.append(dict(zip(columns, values, strict=True)))
    write_csv(path, columns, rows)


def positives_order(text: str) -> tuple[float, str]:
    """Sort key: "natural", then shares, then numbers of instances, each in ascending order."""
    value = parse_positives(text)
    return (-1.0 if value is None else float(value), text)


def markdown(summaries: Sequence[Summary], measure: str) -> str:
    """One measure as a Markdown table.

    A row is a method with a number of training bags and, if there are several, a number of positives; a column is a bag
    size. Cells are "mean (min–max)" over the runs. The best mean among the methods of equal conditions is bold.
    """
    sizes = sorted({summary.bag_size for summary in summaries})
    methods = list(dict.fromkeys(summary.method for summary in summaries))
    labels = {summary.method: summary.label for summary in summaries}
    kinds = sorted({s.positives for s in summaries}, key=positives_order)
    cells = {(s.train_bags, s.positives, s.method, s.bag_size): getattr(s, measure) for s in summaries}
    several = ["positives"] if len(kinds) > 1 else []
    headers = ["training bags", *several, "method", *(f"bags of {size}" for size in sizes)]
    lines = ["| " + " | ".join(headers) + " |", "|---" * len(headers) + "|"]
    for bags, kind in itertools.product(sorted({summary.train_bags for summary in summaries}), kinds):
        for method in methods:
            if not any((bags, kind, method, size) in cells for size in sizes):
                continue
            row = [str(bags), *([kind] if several else []), labels[method]]
            for size in sizes:
                rivals = [cells[bags, kind, m, size].mean for m in methods if (bags, kind, m, size) in cells]
                row.append(_cell(cells.get((bags, kind, method, size)), max(rivals, default=0)))
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _cell(spread: RunSpread | None, best: float) -> str:
    if spread is None:
        return "–"
    mean = f"{spread.mean:.2f}"
    return f"{f'**{mean}**' if spread.mean == best else mean} ({spread.min:.2f}–{spread.max:.2f})"
