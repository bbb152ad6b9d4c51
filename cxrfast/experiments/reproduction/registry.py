"""The tables and figures of `cxrfast reproduce`, by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrfast.errors import UsageError
from cxrfast.experiments.reproduction.figures import FIGURES
from cxrfast.experiments.reproduction.interface import Outcome, Plan
from cxrfast.experiments.reproduction.plans import TablePlan
from cxrfast.experiments.reproduction.runner import Reproduction, run_table
from cxrfast.experiments.reproduction.settings import Overrides
from cxrfast.experiments.reproduction.tables import TABLES
from cxrfast.experiments.reproduction.text import ESTIMATE, table_lines
from cxrfast.report.terminal.layout import wrap
from cxrfast.runs.directory import RUNS

FOLDER = RUNS / "reproduce"


@dataclass(frozen=True)
class TableOfRuns:
    """A table whose rows are networks trained on X-rays."""

    table: TablePlan
    data: str = "the folder of ChestX-ray14"

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def title(self) -> str:
        return f"{self.table.title}; protocol {self.table.protocol}"

    def listing(self) -> Sequence[str]:
        return table_lines(self.table)

    def run(self, data: Path, out: Path, *, rows: Sequence[str] | None, overrides: Overrides) -> Reproduction:
        return run_table(self.table, data, out, rows=rows, overrides=overrides)


_PLANS: tuple[Plan, ...] = (*map(TableOfRuns, TABLES.values()), *FIGURES)
PLANS: dict[str, Plan] = {plan.name: plan for plan in _PLANS}


def find_plan(name: str) -> Plan:
    """The table or figure of that name. Raises :class:`UsageError`, with all names, if it is unknown."""
    if name not in PLANS:
        raise UsageError(f"table: expected one of {', '.join(PLANS)}, got {name!r}")
    return PLANS[name]


def listing() -> str:
    """All plans with their rows and the costs at the paper's setting."""
    lines = []
    for plan in PLANS.values():
        lines += [*wrap(f"{plan.name:<12}{plan.title}", ""), *plan.listing(), ""]
    return "\n".join([*lines, *wrap(ESTIMATE)]) + "\n"


def reproduce(
    name: str,
    data: Path,
    out: Path | None = None,
    *,
    rows: Sequence[str] | None = None,
    overrides: Overrides | None = None,
) -> Outcome:
    """Do the unfinished runs of a table or figure, and compare the results with the published ones.

    All files are written to `out`, by default runs/reproduce. After an interruption, the same call resumes.

    Raises UsageError for unknown names and settings, before anything runs.
    """
    folder = FOLDER if out is None else Path(out)
    return find_plan(name).run(Path(data), folder, rows=rows, overrides=overrides or Overrides())
