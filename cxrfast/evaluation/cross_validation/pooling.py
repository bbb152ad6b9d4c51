"""Pools the evaluations of a cross-validation: mean ± sd over the runs, and numbers over all test images."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cxrfast.evaluation.cross_validation.detection import PooledDetection, pool_detection
from cxrfast.evaluation.cross_validation.fold_evaluation import FoldEvaluation, by_seed, check_alike, one_of_each_fold
from cxrfast.evaluation.cross_validation.numbers import Column, Spread, average
from cxrfast.evaluation.cross_validation.record import (
    CrossValidationHead,
    CrossValidationRecord,
    PooledAccuracy,
    PooledLocalization,
    PooledMeans,
    PooledRow,
    PooledScores,
    PooledTableRecord,
    RunRecord,
)
from cxrfast.evaluation.record import AccuracyRecord, LocalizationHead, ReliabilityBin, TableHead
from cxrfast.metrics.bootstrap import Statistic, bootstrap_interval_with_mean, weighted_auroc
from cxrfast.metrics.calibration import ReliabilityCurve, expected_calibration_error, reliability_curve
from cxrfast.metrics.classification import auroc, average_precision
from cxrfast.predictions.table import Predictions, concatenate

_OF_SCORES = ("auroc", "average_precision", "ece", "ece_calibrated")  # fields of ClassRecord


@dataclass(frozen=True)
class PooledTable:
    """One localisation table of the protocol, over the runs."""

    head: TableHead
    thresholds: tuple[float, ...]  # T
    accuracy: tuple[Column, ...]  # [T]
    hits: tuple[tuple[tuple[int, ...], ...], ...]  # [T, K, runs]
    afp: tuple[Column, ...] | None  # [T]
    oracle: tuple[tuple[float, ...], ...] | None  # [T, K], over the test annotations of all folds; None without a grid


@dataclass(frozen=True)
class PooledResult:
    """The evaluated runs of a cross-validation together."""

    head: CrossValidationHead
    runs: tuple[FoldEvaluation, ...]
    class_names: tuple[str, ...]
    n_positive: tuple[int, ...]  # [K], on the test images of all folds
    n_negative: tuple[int, ...]  # [K]
    n_annotated: tuple[int, ...]  # [K]
    auroc: Column
    average_precision: Column
    ece: Column  # of prob
    ece_calibrated: Column  # of prob_calibrated, with each run's own temperatures
    reliability: tuple[
        ReliabilityCurve | None, ReliabilityCurve | None
    ]  # of prob and prob_calibrated, over all folds and seeds
    tables: tuple[PooledTable, ...]
    detection: PooledDetection | None  # None: no run has one

    @property
    def n_images(self) -> int:
        return sum(run.record.n_images for run in one_of_each_fold(self.runs))

    @property
    def unreadable(self) -> dict[str, str]:
        return {image: why for run in self.runs for image, why in run.record.unreadable.items()}

    @property
    def record(self) -> CrossValidationRecord:
        """The typed record; docs/evaluation.md describes its JSON."""
        return CrossValidationRecord(
            **dict(self.head),
            runs=tuple(_run(run) for run in self.runs),
            n_images=self.n_images,
            classes={name: self._class(k) for k, name in enumerate(self.class_names)},
            mean=PooledMeans(**{name: getattr(self, name).mean_record for name in _OF_SCORES}),
            localization=self._localization(),
            detection=None if self.detection is None else self.detection.record,
        )

    def _class(self, k: int) -> PooledScores:
        prob, calibrated = (ReliabilityBin.all_of(curve, k) for curve in self.reliability)
        return PooledScores(
            n_positive=self.n_positive[k],
            n_negative=self.n_negative[k],
            n_annotated=self.n_annotated[k],
            **{name: getattr(self, name).classes[k].record for name in _OF_SCORES},
            reliability=prob,
            reliability_calibrated=calibrated,
        )

    def _localization(self) -> PooledLocalization | None:
        found = next((run.record.localization for run in self.runs if run.tables), None)
        if found is None:
            return None
        tables = tuple(
            PooledTableRecord(**dict(table.head), rows=tuple(self._row(table, i) for i in range(len(table.thresholds))))
            for table in self.tables
        )
        return PooledLocalization(
            **{name: getattr(found, name) for name in LocalizationHead.model_fields}, tables=tables
        )

    def _row(self, table: PooledTable, i: int) -> PooledRow:
        classes = {
            name: PooledAccuracy(
                **dict(table.accuracy[i].classes[k].record),
                hits=table.hits[i][k],
                n_annotated=tuple(run.annotated(name) for run in self.runs),
                afp=None if table.afp is None else table.afp[i].classes[k].record,
                oracle=math.nan if table.oracle is None else table.oracle[i][k],
            )
            for k, name in enumerate(self.class_names)
        }
        return PooledRow(T=table.thresholds[i], mean=table.accuracy[i].mean_record, classes=classes)

    def save(self, path: str | os.PathLike) -> None:
        """Write :attr:`record` as JSON to ``path``."""
        self.record.save(path)


def _run(run: FoldEvaluation) -> RunRecord:
    names = ("n_images", "n_patients", "shared_patients", "split_hash", "weights", "warnings", "unreadable")
    shared = {name: getattr(run.record, name) for name in names}
    return RunRecord(run=run.name, fold=run.fold, seed=run.seed, **shared)


def pool(runs: Sequence[FoldEvaluation], head: CrossValidationHead) -> PooledResult:
    """Every number as mean ± sd over the runs, and pooled over the test images of all folds.

    The pooled AUROC ranks the scores of all folds together. The pooled accuracy is hits / annotations over all folds.
    Pooled numbers are computed for each seed that has all folds, and averaged over these seeds. The pooled AUROC has an
    interval from resamples of the patients of all folds; it does not include the variance of training. AP and FROC of
    boxes are not pooled.

    Raises :class:`CxrfastError` for runs of different protocols, T or classes.
    """
    check_alike(runs)
    names = runs[0].record.class_names
    seeds = [group for group in by_seed(runs) if len(group) == head.folds]

    at_once = [concatenate([run.predictions for run in group]) for group in seeds]

    def column(name: str, function: Callable[[Predictions], Tensor]) -> Column:
        together = [function(predictions) for predictions in at_once]
        return Column(
            tuple(
                Spread(
                    tuple(getattr(run.record.classes[c], name) for run in runs),
                    average([values[k].item() for values in together]),
                )
                for k, c in enumerate(names)
            ),
            names,
        )

    one_seed = one_of_each_fold(runs)
    ranked = column("auroc", lambda all_: auroc(*_known(all_)))
    labels = torch.cat([_known(run.predictions)[1] for run in one_seed])
    first = next((run for run in runs if run.tables), None)
    return PooledResult(
        head=head,
        runs=tuple(runs),
        class_names=names,
        n_positive=tuple((labels == 1).sum(dim=0).tolist()),
        n_negative=tuple((labels == 0).sum(dim=0).tolist()),
        n_annotated=tuple(sum(run.annotated(name) for run in one_seed) for name in names),
        auroc=_with_intervals(ranked, at_once) if at_once else ranked,
        average_precision=column("average_precision", lambda all_: average_precision(*_known(all_))),
        ece=column("ece", lambda all_: expected_calibration_error(*_judged(all_, all_.prob))),
        ece_calibrated=column(
            "ece_calibrated", lambda all_: expected_calibration_error(*_judged(all_, all_.prob_calibrated))
        ),
        reliability=_reliability(concatenate(at_once)) if at_once else (None, None),
        tables=() if first is None else tuple(_pool_table(runs, seeds, names, t) for t in range(len(first.tables))),
        detection=pool_detection(runs, seeds, names),
    )


def _with_intervals(column: Column, seeds: Sequence[Predictions]) -> Column:
    """Add the intervals of a pooled AUROC. The statistic is the mean over seeds, on the same resample of patients."""
    first = seeds[0]
    place = [{image: n for n, image in enumerate(of.images)} for of in seeds]
    ordered = [torch.tensor([of[image] for image in first.images]) for of in place]
    parts = [weighted_auroc(*(table[order] for table in _known(of))) for of, order in zip(seeds, ordered, strict=True)]
    statistic = Statistic(
        lambda weights: torch.stack([part(weights) for part in parts]).mean(dim=0),
        tuple(group for part in parts for group in part.needs),
    )
    classes, (_, low, high) = bootstrap_interval_with_mean(statistic, first.patients)
    ends = zip(classes.low.tolist(), classes.high.tolist(), strict=True)
    numbers = tuple(replace(n, interval=pair) for n, pair in zip(column.classes, ends, strict=True))
    return replace(column, classes=numbers, mean_interval=(low.item(), high.item()))


def _known(found: Predictions) -> tuple[Tensor, Tensor]:
    """Scores [N, K], and labels [N, K], which are NaN where there is no score."""
    return found.prob.nan_to_num(0.5), torch.where(found.prob.isnan(), torch.nan, found.labels)


def _judged(found: Predictions, probabilities: Tensor | None) -> tuple[Tensor, Tensor]:  # [N, K]
    """Probabilities [N, K], and labels [N, K], which are all NaN for a class with a labelled image without probability.

    Such a class has no pooled number, since that would not be of all images.
    """
    labels = _known(found)[1]
    if probabilities is None or ((probabilities < 0) | (probabilities > 1)).any():
        return torch.full_like(labels, 0.5), torch.full_like(labels, torch.nan)
    silent = probabilities.isnan()
    incomplete = (silent & ~labels.isnan()).any(dim=0)
    return probabilities.nan_to_num(0.5), torch.where(silent | incomplete, torch.nan, labels)


def _reliability(found: Predictions) -> tuple[ReliabilityCurve, ReliabilityCurve]:
    return (
        reliability_curve(*_judged(found, found.prob)),
        reliability_curve(*_judged(found, found.prob_calibrated)),
    )


def _pool_table(
    runs: Sequence[FoldEvaluation], seeds: Sequence[Sequence[FoldEvaluation]], names: tuple[str, ...], number: int
) -> PooledTable:
    table = next(run.tables[number] for run in runs if run.tables)
    cells = list(table.rows[0].classes.values())
    counts_false = all(cell.false_positives is not None for cell in cells)

    def cell(run: FoldEvaluation, i: int, name: str) -> AccuracyRecord | None:
        return run.tables[number].rows[i].classes[name] if run.tables else None

    def of(run: FoldEvaluation, i: int, name: str, key: str) -> float:
        found = cell(run, i, name)
        return math.nan if found is None else getattr(found, key)

    def count(run: FoldEvaluation, i: int, name: str, key: str) -> int:
        found = cell(run, i, name)
        return 0 if found is None else getattr(found, key) or 0

    def column(i: int, key: str, counted: str, among: Sequence[Sequence[str]]) -> Column:
        """``among``: for each class, the classes whose annotations are the denominator."""
        numbers = []
        for name, denominator in zip(names, among, strict=True):
            shares = []
            for group in seeds:
                total = sum(run.annotated(other) for run in group for other in denominator)
                shares.append(sum(count(run, i, name, counted) for run in group) / total if total else math.nan)
            numbers.append(Spread(tuple(of(run, i, name, key) for run in runs), average(shares)))
        return Column(tuple(numbers), names)

    def share(i: int, name: str) -> float:
        """The oracle over all test annotations, each counted once."""
        found = [(run.annotated(name), of(run, i, name, "oracle")) for run in one_of_each_fold(runs)]
        known = [(n, value) for n, value in found if not math.isnan(value)]
        total = sum(n for n, _ in known)
        return sum(n * value for n, value in known) / total if total else math.nan

    rows = range(len(table.rows))
    own, all_ = [[name] for name in names], [names] * len(names)
    on_a_grid = any(run.record.localization is not None and run.record.localization.grid is not None for run in runs)
    return PooledTable(
        head=TableHead(**{name: getattr(table, name) for name in TableHead.model_fields}),
        thresholds=tuple(row.T for row in table.rows),
        accuracy=tuple(column(i, "accuracy", "hits", own) for i in rows),
        hits=tuple(tuple(tuple(count(run, i, name, "hits") for run in runs) for name in names) for i in rows),
        afp=tuple(column(i, "afp", "false_positives", all_) for i in rows) if counts_false else None,
        oracle=tuple(tuple(share(i, name) for name in names) for i in rows) if on_a_grid else None,
    )
