"""Plans of the papers' tables: the runs, the evaluation protocol, and the published rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cxrfast.errors import UsageError
from cxrfast.published import PublishedRow, rows
from cxrfast.published.numbers import Metric


@dataclass(frozen=True)
class PlannedRun:
    """A run on the published lists, or a cross-validation. Several tables may share it.

    All other settings are those of the register of statements or, where it has none, the method's defaults.
    """

    name: str  # name of its folder
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)  # the options that define the row
    unannotated: float | None = None  # share of the unannotated images in training; None: the published lists

    @property
    def cross_validated(self) -> bool:
        return self.unannotated is not None


@dataclass(frozen=True)
class PublishedLine:
    """A row of a published table, for all metrics, measures and T."""

    paper: str
    table: str
    row: str  # its name in the data; "" if the table has only one line

    def find(self, metric: Metric) -> tuple[PublishedRow, ...]:
        """All published numbers of the row for this metric."""
        return rows(paper=self.paper, table=self.table, row=self.row, metric=metric)

    def at(self, metric: Metric, measure: str | None, t: float | None) -> PublishedRow | None:
        """The published numbers of the row for this metric and measure at T; None if there are none."""
        return next((line for line in self.find(metric) if (line.measure, line.T) == (measure, t)), None)


@dataclass(frozen=True)
class PlannedRow:
    """A row of a table: ours, published, or both."""

    name: str  # as in --rows
    title: str
    run: PlannedRun | None  # None: a method that is only published
    published: PublishedLine | None = None  # None: no published line is known


@dataclass(frozen=True)
class TablePlan:
    """A table of a paper."""

    name: str  # on the command line
    title: str
    paper: str  # key, as in the register
    protocol: str
    metrics: tuple[Metric, ...]  # the metrics that it shows
    rows: tuple[PlannedRow, ...]
    measures: tuple[str, ...] = ("iou", "ior")  # the measures of the protocol that it shows
    note: str | None = None
    folds: int = 5  # of rows that are cross-validated
    folds_by: Literal["patient", "image"] = "image"

    def choose(self, names: Sequence[str] | None) -> tuple[PlannedRow, ...]:
        """The rows with these names, in the table's order; None: all rows."""
        known = [row.name for row in self.rows]
        for name in names or ():
            if name not in known:
                raise UsageError(f"rows: expected some of {', '.join(known)} for {self.name}, got {name!r}")
        return tuple(row for row in self.rows if not names or row.name in names)
