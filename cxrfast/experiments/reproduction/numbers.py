"""The numbers of an evaluation in one form for single runs and cross-validations."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cxrfast.evaluation.cross_validation.record import (
    CrossValidationRecord,
    MeanSpreadRecord,
    PooledRow,
    SpreadRecord,
)
from cxrfast.evaluation.record import EvaluationRecord, Gate, MeanRecord, NoGate


@dataclass(frozen=True)
class Value:
    """Our value: of one run with its 95 % interval, or the mean over folds and seeds with its standard deviation."""

    value: float | None
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    runs: int | None = None  # number of runs with a value
    pooled: float | None = None  # from the pooled images of all folds


@dataclass(frozen=True)
class Numbers:
    """One number per class, for one metric and, if the metric has them, one measure and T."""

    metric: str
    measure: str | None
    relation: str | None  # "≥" or ">"
    T: float | None
    gate: Gate
    classes: Mapping[str, Value]
    mean: Value
    left_out: tuple[str, ...]  # classes that are not in the mean

    @property
    def title(self) -> str:
        return title_of(self.metric, self.measure, self.T, self.relation, self.gate)


def title_of(metric: str, measure: str | None, t: float | None, relation: str | None, gate: Gate) -> str:
    """A heading, such as "accuracy at IoU ≥ 0.1"."""
    if measure is None:
        return "AUROC"
    what = "accuracy" if metric == "accuracy" else "average number of false positives (AFP)"
    where = f", where the image's {gate}" if str(gate) else ""
    return f"{what} at {'IoU' if measure == 'iou' else 'IoR'} {relation} {t:g}{where}"


def numbers_of(record: EvaluationRecord | CrossValidationRecord) -> Iterator[Numbers]:
    """All numbers of an evaluation, one table after the other."""
    classes: Mapping[str, Value]
    if isinstance(record, CrossValidationRecord):
        classes = {name: _spread(row.auroc) for name, row in record.classes.items()}
        yield Numbers("auroc", None, None, None, NoGate(), classes, *_mean_spread(record.mean.auroc))
    else:
        classes = {name: _one(row.auroc, *row.auroc_interval) for name, row in record.classes.items()}
        yield Numbers("auroc", None, None, None, NoGate(), classes, *_mean_of_run(record.mean.auroc))
    if record.localization is None:
        return
    for table in record.localization.tables:
        for row in table.rows:
            place = (table.measure, table.relation, row.T, table.gate)
            if isinstance(row, PooledRow):
                mean, left_out = _mean_spread(row.mean)
                values = {name: _spread(cell) for name, cell in row.classes.items()}
                false = {name: _spread(cell.afp) for name, cell in row.classes.items() if cell.afp is not None}
            else:
                mean, left_out = _mean_of_run(row.mean)
                values = {name: _one(c.accuracy, c.low, c.high) for name, c in row.classes.items()}
                false = {name: _one(c.afp) for name, c in row.classes.items() if c.false_positives is not None}
            yield Numbers("accuracy", *place, values, mean, left_out)
            if len(false) == len(values):
                # The mean is over the classes with an accuracy, because a class without boxes has only false positives.
                yield Numbers("afp", *place, false, _mean(false, left_out), left_out)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _one(value: float, low: float = math.nan, high: float = math.nan) -> Value:
    """The value of one run, with its interval if there is one."""
    return Value(_known(value), _known(low), _known(high))


def _spread(of: SpreadRecord) -> Value:
    return Value(_known(of.mean), sd=_known(of.sd), runs=of.n, pooled=_known(of.pooled))


def _mean_spread(of: MeanSpreadRecord) -> tuple[Value, tuple[str, ...]]:
    return _spread(of), of.left_out


def _mean_of_run(of: MeanRecord) -> tuple[Value, tuple[str, ...]]:
    return _one(of.value, *of.interval or ()), of.left_out


def _mean(values: Mapping[str, Value], left_out: Sequence[str]) -> Value:
    present = [of.value for name, of in values.items() if of.value is not None and name not in left_out]
    return Value(sum(present) / len(present) if present else None)
