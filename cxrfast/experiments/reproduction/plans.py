"""What a table of a paper is: which runs it needs, by which protocol they are scored, what is published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cxrfast.errors import UsageError
from cxrfast.published import PublishedRow, rows
from cxrfast.published.numbers import Metric


@dataclass(frozen=True)
class PlannedRun:
    """One training on the published lists, or the folds of a cross-validation; several tables may show it.

    Settings that are not named here are the method's defaults, but for what the register of the paper's statements has
    as options.
    """

    name: str  # of its folder
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)  # what makes it this row
    unannotated: float | None = None  # share of the unannotated images in training; None: the published lists

    @property
    def cross_validated(self) -> bool:
        return self.unannotated is not None


@dataclass(frozen=True)
class PublishedLine:
    """Which line of a published table, at every metric, measure and T."""

    paper: str
    table: str
    row: str  # its name in the data, "" where the table has no other

    def find(self, metric: Metric) -> tuple[PublishedRow, ...]:
        """All that is published in it by this metric."""
        return rows(paper=self.paper, table=self.table, row=self.row, metric=metric)

    def at(self, metric: Metric, measure: str | None, t: float | None) -> PublishedRow | None:
        """What is published in it by this metric and measure, at this T."""
        return next((line for line in self.find(metric) if (line.measure, line.T) == (measure, t)), None)


@dataclass(frozen=True)
class PlannedRow:
    """A line of a table: ours, published, or both."""

    name: str  # what --rows takes
    title: str
    run: PlannedRun | None  # None: somebody else's method, published only
    published: PublishedLine | None = None  # None: no published line is known


@dataclass(frozen=True)
class TablePlan:
    """A table of a paper."""

    name: str  # what the command line takes
    title: str
    paper: str  # key, as in the register
    protocol: str
    metrics: tuple[Metric, ...]  # what it shows, of all that an evaluation has
    rows: tuple[PlannedRow, ...]
    measures: tuple[str, ...] = ("iou", "ior")  # those of the protocol that it shows
    note: str | None = None
    folds: int = 5  # of rows that are cross-validated
    folds_by: Literal["patient", "image"] = "image"

    def choose(self, names: Sequence[str] | None) -> tuple[PlannedRow, ...]:
        """The rows of these names, in the table's order; all without names."""
        known = [row.name for row in self.rows]
        for name in names or ():
            if name not in known:
                raise UsageError(f"rows: unknown row {name!r} of {self.name}; expected {', '.join(known)}")
        return tuple(row for row in self.rows if not names or row.name in names)
