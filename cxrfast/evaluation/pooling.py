"""The results of all folds and seeds of a cross-validation: mean ± sd of the runs, and all test images pooled."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cxrfast._files import write_text
from cxrfast.evaluation.pooled_detection import PooledDetection, pool_detection
from cxrfast.evaluation.pooled_numbers import Column, Number, average, nan_for_none, none_for_nan
from cxrfast.evaluation.run_numbers import RunNumbers, by_seed, check_alike, one_of_each_fold
from cxrfast.metrics.bootstrap import Statistic, bootstrap_interval_with_mean, weighted_auroc
from cxrfast.metrics.calibration import ReliabilityCurve, expected_calibration_error, reliability_curve
from cxrfast.metrics.classification import auroc, average_precision
from cxrfast.predictions.table import Predictions, concatenate

_OF_SCORES = ("auroc", "average_precision", "ece", "ece_calibrated")  # of the image scores, as a run's result has them


@dataclass(frozen=True)
class PooledTable:
    """One localisation table of the protocol."""

    measure: str
    relation: str
    gate: str | None
    thresholds: tuple[float, ...]  # T
    accuracy: tuple[Column, ...]  # [T]
    hits: tuple[tuple[tuple[int, ...], ...], ...]  # [T, K, runs]
    afp: tuple[Column, ...] | None  # [T]
    ceiling: tuple[tuple[float, ...], ...] | None  # [T, K], over the test annotations of all folds; None without a grid


@dataclass(frozen=True)
class PooledResult:
    """All runs of a cross-validation that are evaluated."""

    facts: Mapping[str, Any]  # of the cross-validation, for the record
    runs: tuple[RunNumbers, ...]
    class_names: tuple[str, ...]
    n_positive: tuple[int, ...]  # [K], of the test images of all folds
    n_negative: tuple[int, ...]  # [K]
    n_annotated: tuple[int, ...]  # [K]
    auroc: Column
    average_precision: Column
    ece: Column  # of prob
    ece_calibrated: Column  # of prob_calibrated, by each run's own temperatures
    reliability: tuple[ReliabilityCurve | None, ReliabilityCurve | None]  # of both, of all folds and seeds together
    tables: tuple[PooledTable, ...]
    detection: PooledDetection | None  # None: no run has one

    @property
    def n_images(self) -> int:
        return sum(run.report["n_images"] for run in one_of_each_fold(self.runs))

    @property
    def unreadable(self) -> dict[str, str]:
        return {image: why for run in self.runs for image, why in run.report["unreadable"].items()}

    def to_dict(self) -> dict[str, Any]:
        """For JSON; docs/evaluation.md describes it. None for NaN."""
        names = ("n_images", "n_patients", "shared_patients", "split_hash", "weights", "unreadable")
        return {
            **self.facts,
            "runs": [
                {"run": run.name, "fold": run.fold, "seed": run.seed, **{name: run.report[name] for name in names}}
                for run in self.runs
            ],
            "n_images": self.n_images,
            "classes": {name: self._class(k) for k, name in enumerate(self.class_names)},
            "mean": {name: getattr(self, name).mean_to_dict() for name in _OF_SCORES},
            "localization": self._localization(),
            "detection": None if self.detection is None else self.detection.to_dict(),
        }

    def _class(self, k: int) -> dict[str, Any]:
        return {
            "n_positive": self.n_positive[k],
            "n_negative": self.n_negative[k],
            "n_annotated": self.n_annotated[k],
            **{name: getattr(self, name).classes[k].to_dict() for name in _OF_SCORES},
            **{
                name: [] if curve is None else curve.filled(k)
                for name, curve in zip(("reliability", "reliability_calibrated"), self.reliability, strict=True)
            },
        }

    def _localization(self) -> dict[str, Any] | None:
        if not self.tables:
            return None
        found = next(run.report["localization"] for run in self.runs if run.tables)
        return {
            **{name: found[name] for name in ("paper", "unit", "region_rule", "threshold", "published_on")},
            "tables": [
                {
                    "measure": table.measure,
                    "relation": table.relation,
                    "gate": table.gate,
                    "rows": [self._row(table, i) for i in range(len(table.thresholds))],
                }
                for table in self.tables
            ],
        }

    def _row(self, table: PooledTable, i: int) -> dict[str, Any]:
        classes = {}
        for k, name in enumerate(self.class_names):
            classes[name] = {
                **table.accuracy[i].classes[k].to_dict(),
                "hits": table.hits[i][k],
                "n_annotated": [run.annotated(name) for run in self.runs],
            }
            if table.afp is not None:
                classes[name]["afp"] = table.afp[i].classes[k].to_dict()
            if table.ceiling is not None:
                classes[name]["ceiling"] = none_for_nan(table.ceiling[i][k])
        return {"T": table.thresholds[i], "mean": table.accuracy[i].mean_to_dict(), "classes": classes}

    def save(self, path: str | os.PathLike) -> None:
        """Write the JSON to ``path``."""
        write_text(path, json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")


def pool(runs: Sequence[RunNumbers], facts: Mapping[str, Any], *, folds: int) -> PooledResult:
    """Every number of the runs' evaluations as mean ± sd over the runs, and pooled over the test images of all folds.

    The pooled AUROC ranks the scores of all folds together; the pooled accuracy is hits / annotations of all folds. One
    number a seed that has all ``folds``, averaged over these seeds. The pooled AUROC has an interval: patients of all
    folds are drawn together, and the networks stay those that there are. AP and FROC of boxes are not pooled.

    Raises :class:`CxrfastError` for runs of different protocols, T or classes.
    """
    check_alike(runs)
    names = tuple(runs[0].report["classes"])
    seeds = [group for group in by_seed(runs) if len(group) == folds]

    at_once = [concatenate([run.predictions for run in group]) for group in seeds]

    def column(name: str, function: Callable[[Predictions], Tensor]) -> Column:
        together = [function(predictions) for predictions in at_once]
        return Column(
            tuple(
                Number(
                    tuple(nan_for_none(run.report["classes"][c].get(name)) for run in runs),
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
        facts=facts,
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
    """Those of a pooled AUROC: a resample of patients is the same for all seeds, whose mean is the statistic."""
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
    """[N, K] scores, and labels [N, K], unknown where nobody gave a score."""
    return found.prob.nan_to_num(0.5), torch.where(found.prob.isnan(), torch.nan, found.labels)


def _judged(found: Predictions, probabilities: Tensor | None) -> tuple[Tensor, Tensor]:  # [N, K]
    """Probabilities [N, K], and labels [N, K]. A class is without any label if a labelled image has no probability.

    For a number of the other images only is none of all of them.
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
    runs: Sequence[RunNumbers], seeds: Sequence[Sequence[RunNumbers]], names: tuple[str, ...], number: int
) -> PooledTable:
    table = next(run.tables[number] for run in runs if run.tables)
    kinds = next(iter(table["rows"][0]["classes"].values()))

    def cell(run: RunNumbers, i: int, name: str, key: str) -> Any:
        return run.tables[number]["rows"][i]["classes"][name][key] if run.tables else None

    def column(i: int, key: str, counted: str, among: Sequence[Sequence[str]]) -> Column:
        """``among``: per class, the classes whose annotations are the denominator."""
        numbers = []
        for name, denominator in zip(names, among, strict=True):
            shares = []
            for group in seeds:
                total = sum(run.annotated(other) for run in group for other in denominator)
                shares.append(sum(cell(run, i, name, counted) or 0 for run in group) / total if total else math.nan)
            numbers.append(Number(tuple(nan_for_none(cell(run, i, name, key)) for run in runs), average(shares)))
        return Column(tuple(numbers), names)

    def share(i: int, name: str) -> float:
        """Every test annotation once."""
        found = [(run.annotated(name), cell(run, i, name, "ceiling")) for run in one_of_each_fold(runs)]
        known = [(n, value) for n, value in found if value is not None]
        total = sum(n for n, _ in known)
        return sum(n * value for n, value in known) / total if total else math.nan

    rows = range(len(table["rows"]))
    own, all_ = [[name] for name in names], [names] * len(names)
    return PooledTable(
        measure=table["measure"],
        relation=table["relation"],
        gate=table["gate"],
        thresholds=tuple(row["T"] for row in table["rows"]),
        accuracy=tuple(column(i, "accuracy", "hits", own) for i in rows),
        hits=tuple(tuple(tuple(cell(run, i, name, "hits") or 0 for run in runs) for name in names) for i in rows),
        afp=tuple(column(i, "afp", "false_positives", all_) for i in rows) if "afp" in kinds else None,
        ceiling=tuple(tuple(share(i, name) for name in names) for i in rows) if "ceiling" in kinds else None,
    )
