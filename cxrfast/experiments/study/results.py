"""Results of a study, and the effect of each contribution of the paper with a test paired by patient."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from cxrfast.data import Record, Splits, read_data
from cxrfast.evaluation.record import EvaluationRecord, NoGate
from cxrfast.experiments.study.plan import CONTRIBUTIONS, Study, StudyRow, StudyRun
from cxrfast.metrics.detection import Measure
from cxrfast.predictions.table import Predictions, read_predictions
from cxrfast.report.comparison import compare_predictions
from cxrfast.runs import RunDirectory, open_run
from cxrfast.training.preparation import limit_annotation

PROTOCOLS = ("strict", "own")  # map thresholds chosen on other patients' boxes; map thresholds of the method
MEASURES: Mapping[str, str] = {
    "auroc": "AUROC",
    "iou 0.1": "IoU ≥ 0.1",
    "iou 0.3": "IoU ≥ 0.3",
    "ior 0.1": "IoR ≥ 0.1",
    "own iou 0.1": "IoU ≥ 0.1, own threshold",
    "pointing": "pointing game",
}
"""Means over classes, in the order of the columns of the tables."""

_COMPARED: Mapping[str, Mapping[str, str]] = {
    "strict": {"AUROC": "auroc", "found at IoU ≥ 0.1": "iou 0.1", "found at IoU ≥ 0.3": "iou 0.3"},
    "own": {"found at IoU ≥ 0.1": "own iou 0.1"},
}
"""By protocol, the titles of the paired tests and the names of the measures."""


@dataclass(frozen=True)
class StudyOutcome:
    """The results of a finished run."""

    cell: StudyRun
    annotated: int  # training images with boxes
    numbers: Mapping[str, float]  # MEASURES; NaN where there is none
    predictions: Mapping[str, Predictions]  # by PROTOCOLS


@dataclass(frozen=True)
class SeedValues:
    """The values of a number for each seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values) if self.values else math.nan


@dataclass(frozen=True)
class StudyLine:
    """The results of one row of the table with one share."""

    row: StudyRow
    share: float
    seeds: tuple[int, ...]
    annotated: SeedValues
    numbers: Mapping[str, SeedValues]


@dataclass(frozen=True)
class Difference:
    """The effect of one contribution on one measure: mean over seeds, with an interval from the test patients."""

    contribution: str
    share: float
    seeds: tuple[int, ...]
    measure: str
    difference: float
    low: float
    high: float
    p_value: float
    per_seed: tuple[float, ...]


@dataclass(frozen=True)
class StudyResult:
    study: Study
    lines: Sequence[StudyLine]
    differences: Sequence[Difference]


def evaluations_of(cell: StudyRun, out: Path) -> dict[str, RunDirectory]:
    """By protocol, the folders of the evaluations of a run."""
    return {name: RunDirectory(out / cell.folder / name) for name in PROTOCOLS}


def read_outcome(cell: StudyRun, out: Path) -> StudyOutcome:
    """Read the results of an evaluated run. Raises CxrfastError if they cannot be read."""
    folder, evaluations = out / cell.folder, evaluations_of(cell, out)
    strict, own = (EvaluationRecord.load(place.evaluation()) for place in evaluations.values())
    numbers = {
        "auroc": strict.mean.auroc.value,
        "iou 0.1": _accuracy(strict, "iou", 0.1),
        "iou 0.3": _accuracy(strict, "iou", 0.3),
        "ior 0.1": _accuracy(strict, "ior", 0.1),
        "own iou 0.1": _accuracy(own, "iou", 0.1),
        "pointing": _mean(strict.detection.pointing_game.values()) if strict.detection else math.nan,
    }
    train = Splits.load(open_run(folder).splits).part("train", _records(out / cell.phantoms))
    annotated = sum(bool(record.boxes) for record in limit_annotation(train, cell.share, cell.seed))
    predictions = {name: read_predictions(place.predictions()) for name, place in evaluations.items()}
    return StudyOutcome(cell, annotated, numbers, predictions)


@lru_cache
def _records(phantoms: Path) -> Sequence[Record]:
    return read_data(phantoms).records


def _accuracy(record: EvaluationRecord, measure: Measure, t: float) -> float:
    """The accuracy without a gate."""
    for table in record.localization.tables if record.localization else ():
        if table.measure == measure and isinstance(table.gate, NoGate):
            return next((row.mean.value for row in table.rows if t == row.T), math.nan)
    return math.nan


def _mean(values: Iterable[float]) -> float:
    present = [value for value in values if not math.isnan(value)]
    return statistics.fmean(present) if present else math.nan


def summarize(study: Study, outcomes: Sequence[StudyOutcome]) -> StudyResult:
    """The results of all rows and of all contributions, for every share, over the seeds."""
    groups: dict[tuple[str, float], list[StudyOutcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.cell.row.name, outcome.cell.share), []).append(outcome)
    lines = [_line(groups[row.name, share]) for row, share in _places(study) if (row.name, share) in groups]
    differences = [
        difference
        for name, (with_it, without) in CONTRIBUTIONS.items()
        for share in study.shares
        for difference in _differences(name, share, groups.get((with_it, share), ()), groups.get((without, share), ()))
    ]
    return StudyResult(study, lines, differences)


def _places(study: Study) -> list[tuple[StudyRow, float]]:
    boxed = [(row, share) for share in study.shares for row in study.rows if row.boxes]
    return [*((row, 0.0) for row in study.rows if not row.boxes), *boxed]


def _line(outcomes: Sequence[StudyOutcome]) -> StudyLine:
    first = outcomes[0].cell
    return StudyLine(
        first.row,
        first.share,
        tuple(outcome.cell.seed for outcome in outcomes),
        SeedValues(tuple(float(outcome.annotated) for outcome in outcomes)),
        {name: SeedValues(tuple(outcome.numbers[name] for outcome in outcomes)) for name in MEASURES},
    )


def _differences(
    name: str, share: float, with_it: Sequence[StudyOutcome], without: Sequence[StudyOutcome]
) -> list[Difference]:
    """Differences over the seeds and the classes for which both rows have numbers."""
    seeds = [o.cell.seed for o in with_it if o.cell.seed in {other.cell.seed for other in without}]
    if not seeds:
        return []
    first, second = ([next(o for o in side if o.cell.seed == seed) for seed in seeds] for side in (without, with_it))
    differences = []
    for protocol, titles in _COMPARED.items():
        measures = compare_predictions(_pool(first, protocol), _pool(second, protocol), protocol)
        for measure in measures:
            if measure.title in titles:
                line, number = measure.lines[-1], titles[measure.title]
                by_seed = tuple(b.numbers[number] - a.numbers[number] for a, b in zip(first, second, strict=True))
                interval = (line.low, line.high, line.p_value)
                differences.append(
                    Difference(name, share, tuple(seeds), number, line.difference, *interval, per_seed=by_seed)
                )
    return differences


def _pool(outcomes: Sequence[StudyOutcome], protocol: str) -> Predictions:
    """The test images of all seeds as one set, with separate patients and class columns for each seed.

    Columns are separate because scores of different networks must not be ranked together.
    """
    tables = [outcome.predictions[protocol] for outcome in outcomes]
    seeds = [outcome.cell.seed for outcome in outcomes]

    def joined(field: str, elsewhere: float) -> torch.Tensor:
        columns = [getattr(table, field) for table in tables]
        blocks = [torch.full((len(a), b.shape[1]), elsewhere, dtype=a.dtype) for a in columns for b in columns]
        rows = [blocks[n * len(columns) : (n + 1) * len(columns)] for n in range(len(columns))]
        for n, row in enumerate(rows):
            row[n] = columns[n]
        return torch.cat([torch.cat(row, dim=1) for row in rows])

    def prefixed(field: str) -> list[str]:
        return [f"{seed}/{name}" for seed, table in zip(seeds, tables, strict=True) for name in getattr(table, field)]

    return Predictions(
        class_names=tuple(prefixed("class_names")),
        images=prefixed("images"),
        patients=prefixed("patients"),
        prob=joined("prob", math.nan),
        labels=joined("labels", math.nan),
        n_boxes=joined("n_boxes", 0),
        iou=joined("iou", math.nan),
        ior=joined("ior", math.nan),
    )
