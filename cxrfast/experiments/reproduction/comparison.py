"""Comparison of our numbers with the published ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from cxrfast.evaluation import protocols
from cxrfast.evaluation.record import NoGate
from cxrfast.experiments.reproduction.numbers import Numbers, Value, title_of
from cxrfast.experiments.reproduction.plans import PlannedRow, TablePlan
from cxrfast.published import PublishedRow

State = Literal["done", "failed", "not run", "published only"]


@dataclass(frozen=True)
class ComparedNumber:
    """Our and the published number of one class, or of the mean over classes."""

    ours: Value | None
    published: float | None
    difference: float | None  # ours − published
    digits: int = 4  # decimals of the published number

    @property
    def known(self) -> bool:
        """Whether there is a number, ours or published."""
        return self.published is not None or (self.ours is not None and self.ours.value is not None)


@dataclass(frozen=True)
class MetricComparison:
    """The numbers of all classes, for one row of the table and one metric, measure and T."""

    title: str
    metric: str
    measure: str | None
    T: float | None
    cells: Mapping[str, ComparedNumber]
    mean: ComparedNumber
    common: ComparedNumber | None  # means over the common classes, if the two means are over different classes
    remarks: tuple[str, ...]

    @property
    def place(self) -> tuple[str, str | None, float | None]:
        """Metric, measure and T, by which rows of the table are compared."""
        return self.metric, self.measure, self.T


@dataclass(frozen=True)
class ComparedRow:
    """A row of the table, with its results."""

    name: str
    title: str
    state: State
    reason: str | None  # of a failure
    folder: str | None
    facts: Mapping[str, Any]  # of the evaluation: images, patients, label version, split
    deviations: tuple[str, ...]  # from the paper's setting
    unchecked: str | None  # why it could not be compared with the paper's setting
    comparisons: tuple[MetricComparison, ...]


@dataclass(frozen=True)
class ComparedTable:
    """A table, or the requested rows of it."""

    name: str
    title: str
    protocol: str
    note: str | None
    rows: tuple[ComparedRow, ...]

    @property
    def deviations(self) -> dict[str, tuple[str, ...]]:
        """The deviations from the paper's setting, each with the names of the rows concerned."""
        return self._rows_of(lambda row: row.deviations)

    @property
    def unchecked(self) -> dict[str, tuple[str, ...]]:
        """The reasons why rows could not be compared with the paper's setting, each with the names of the rows."""
        return self._rows_of(lambda row: () if row.unchecked is None else (row.unchecked,))

    @property
    def papers_setting(self) -> bool | None:
        """Whether every row has the paper's setting; None if unknown."""
        if self.deviations or any(row.state not in ("done", "published only") for row in self.rows):
            return False
        return None if self.unchecked else True

    def _rows_of(self, texts: Callable[[ComparedRow], Sequence[str]]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for row in self.rows:
            for text in texts(row):
                found[text] = (*found.get(text, ()), row.name)
        return found

    def to_dict(self) -> dict[str, Any]:
        return {
            "table": self.name,
            "title": self.title,
            "protocol": self.protocol,
            "note": self.note,
            "papers_setting": self.papers_setting,
            "deviations": list(self.deviations),
            "unchecked": list(self.unchecked),
            "rows": [asdict(row) for row in self.rows],
        }


def compare_row(plan: TablePlan, row: PlannedRow, numbers: Sequence[Numbers]) -> tuple[MetricComparison, ...]:
    """Every number that the table shows. A row without our numbers has only the published ones."""
    shown = [of for of in numbers if of.metric in plan.metrics and of.measure in (None, *plan.measures)]
    if row.run is None or not shown:
        return tuple(_published_alone(plan, row))
    return tuple(_compare(of, row.published and row.published.at(of.metric, of.measure, of.T)) for of in shown)  # type: ignore[arg-type]


def _compare(ours: Numbers, line: PublishedRow | None) -> MetricComparison:
    remarks = remarks_of(line) if line is not None else ["no published number is known"]
    published = (line.values if line is not None else None) or {}
    digits = line.digits if line is not None else 4
    cells = {name: _cell(value, published.get(name), digits) for name, value in ours.classes.items()}
    cells |= {name: ComparedNumber(None, value, None, digits) for name, value in published.items() if name not in cells}
    mean, common = ComparedNumber(ours.mean, None, None), None
    if line is not None and line.unavailable is None:
        mean = _cell(ours.mean, *_published_mean(line))
        mine = {name for name, value in ours.classes.items() if value.value is not None and name not in ours.left_out}
        if mine != set(line.classes):
            mean, common = replace(mean, difference=None), _common(cells)
            if not published:
                remarks.append(f"the published mean is over {len(line.classes)} classes, ours over {len(mine)}")
    if ours.left_out:
        remarks.append(f"not in our mean: {', '.join(ours.left_out)}")
    return MetricComparison(ours.title, ours.metric, ours.measure, ours.T, cells, mean, common, tuple(remarks))


def _common(cells: Mapping[str, ComparedNumber]) -> ComparedNumber | None:
    both = [(cell.ours.value, cell.published) for cell in cells.values() if cell.ours is not None]
    pairs = [(value, published) for value, published in both if value is not None and published is not None]
    if not pairs:
        return None
    value, published = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    return _cell(Value(value), published, 4)


def _published_alone(plan: TablePlan, row: PlannedRow) -> list[MetricComparison]:
    found = []
    for metric in plan.metrics if row.published is not None else ():
        for line in row.published.find(metric):  # type: ignore[union-attr]
            compared = _comparison_of(plan, line.measure)
            if compared is not None and line.T not in compared.thresholds:
                continue
            published = line.values or {}
            mean, digits = _published_mean(line)
            found.append(
                MetricComparison(
                    title_of(metric, line.measure, line.T, _relation(compared), NoGate()),
                    line.metric,
                    line.measure,
                    line.T,
                    {name: ComparedNumber(None, value, None, line.digits) for name, value in published.items()},
                    ComparedNumber(None, mean, None, digits),
                    None,
                    (*_other_protocol(plan, line), *remarks_of(line)),
                )
            )
    return found


def _comparison_of(plan: TablePlan, measure: str | None) -> protocols.HitCriterion | None:
    """The hit criterion of the table's protocol for a measure: the values of T, and whether a hit is > T or ≥ T."""
    return next((c for c in protocols.find_protocol(plan.protocol).criteria if c.measure == measure), None)


def _relation(compared: protocols.HitCriterion | None) -> str | None:
    return None if compared is None else "≥" if compared.inclusive else ">"


def _other_protocol(plan: TablePlan, line: PublishedRow) -> list[str]:
    same = line.protocol in (None, plan.protocol)
    return [] if same else [f"scored by protocol {line.protocol}, not by {plan.protocol}"]


def remarks_of(line: PublishedRow) -> list[str]:
    """Remarks that a reader of the published number needs."""
    found = []
    if line.unavailable is not None:
        found.append(f"published number not available here: {line.unavailable}")
    if not line.comparable:
        found.append(f"not comparable: {line.why}")
    if line.remark:
        found.append(line.remark)
    if line.values is None and line.mean is not None:
        found.append("only the mean over the classes is published")
    if line.values is not None and line.mean is None:
        found.append("the mean of the published classes is calculated by us")
    return found


def _published_mean(line: PublishedRow) -> tuple[float | None, int]:
    """The published mean, and its number of decimals."""
    if line.mean is not None or not line.values:
        return line.mean, line.mean_digits
    return sum(line.values.values()) / len(line.values), line.digits


def _cell(ours: Value, published: float | None, digits: int) -> ComparedNumber:
    known = ours.value is not None and published is not None
    return ComparedNumber(ours, published, ours.value - published if known else None, digits)  # type: ignore[operator]
