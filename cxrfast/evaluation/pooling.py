"""The results of all folds and seeds of a cross-validation: mean ± sd of the runs, and all test images pooled."""

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cxrfast._files import write_text
from cxrfast.errors import CxrfastError
from cxrfast.evaluation.metrics import auroc, average_precision, mean_without_nan
from cxrfast.evaluation.predictions import read_predictions


@dataclass(frozen=True, eq=False)
class RunNumbers:
    """What the evaluation of one run has left."""

    name: str  # "fold-0/seed-0"
    fold: int
    seed: int
    report: Mapping[str, Any]  # EvaluationResult.to_dict()
    scores: Tensor  # [N, K]; NaN where there is none
    labels: Tensor  # [N, K]

    @classmethod
    def load(cls, name: str, fold: int, seed: int, report: Path, predictions: Path) -> "RunNumbers":
        """From `evaluation-test.json` and `predictions.csv`; CxrfastError, in one line, if they do not fit together."""
        try:
            numbers = json.loads(report.read_text(encoding="utf-8"))
            found = read_predictions(predictions)
            column = {name: k for k, name in enumerate(found.class_names)}
            columns = [column[name] for name in numbers["classes"]]
            scores, labels = found.prob[:, columns], found.labels[:, columns]
        except (OSError, ValueError, KeyError) as error:
            raise CxrfastError(f"{report} or {predictions} cannot be read ({error}); evaluate the run again") from error
        if len(scores) != numbers["n_images"]:
            raise CxrfastError(f"{predictions} does not belong to {report}; evaluate the run again")
        return cls(name, fold, seed, numbers, scores, labels)

    def annotated(self, class_name: str) -> int:
        """Test annotations of the class: the denominator."""
        return self.report["classes"][class_name]["n_annotated"]

    @property
    def tables(self) -> list[dict[str, Any]]:
        """Of the localisation; none if no test image has a box of the classes."""
        return self.report["localization"]["tables"] if self.report["localization"] else []


@dataclass(frozen=True)
class Number:
    """One number over the runs of a cross-validation."""

    values: tuple[float, ...]  # one a run; NaN where it has none
    pooled: float  # of the test images of all folds together, mean over seeds; NaN if a fold is still missing

    @property
    def present(self) -> list[float]:
        return [value for value in self.values if not math.isnan(value)]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.present) if self.present else math.nan

    @property
    def sd(self) -> float:
        """Of the sample: n − 1."""
        return statistics.stdev(self.present) if len(self.present) > 1 else math.nan

    def to_dict(self) -> dict[str, Any]:
        return {
            "mean": _none(self.mean),
            "sd": _none(self.sd),
            "n": len(self.present),
            "pooled": _none(self.pooled),
            "values": [_none(value) for value in self.values],
        }


@dataclass(frozen=True)
class Column:
    """A number for every class, and its mean over classes."""

    classes: tuple[Number, ...]  # [K]
    class_names: tuple[str, ...]  # [K]

    @property
    def mean(self) -> Number:
        """Every run's mean is over the classes that it has; the pooled one over those that any fold has."""
        runs = zip(*(number.values for number in self.classes), strict=True)
        values = tuple(mean_without_nan(run, self.class_names).value for run in runs)
        return Number(values, mean_without_nan([n.pooled for n in self.classes], self.class_names).value)

    def mean_to_dict(self) -> dict[str, Any]:
        pairs = list(zip(self.class_names, self.classes, strict=True))
        return {
            **self.mean.to_dict(),
            "left_out": [name for name, number in pairs if not number.present],
            "incomplete": [name for name, number in pairs if 0 < len(number.present) < len(number.values)],
        }


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
    tables: tuple[PooledTable, ...]

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
            "mean": {
                "auroc": self.auroc.mean_to_dict(),
                "average_precision": self.average_precision.mean_to_dict(),
            },
            "localization": self._localization(),
        }

    def _class(self, k: int) -> dict[str, Any]:
        return {
            "n_positive": self.n_positive[k],
            "n_negative": self.n_negative[k],
            "n_annotated": self.n_annotated[k],
            "auroc": self.auroc.classes[k].to_dict(),
            "average_precision": self.average_precision.classes[k].to_dict(),
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
        return {"T": table.thresholds[i], "mean": table.accuracy[i].mean_to_dict(), "classes": classes}

    def save(self, path: str | os.PathLike) -> None:
        """Write the JSON to ``path``."""
        write_text(path, json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")

    def to_text(self) -> str:
        """The tables, 100 columns wide at most."""
        from cxrfast.evaluation.pooled_text import to_text

        return to_text(self)


def pool(runs: Sequence[RunNumbers], facts: Mapping[str, Any], *, folds: int) -> PooledResult:
    """Every number of the runs' evaluations as mean ± sd over the runs, and pooled over the test images of all folds.

    The pooled AUROC ranks the scores of all folds together; the pooled accuracy is hits / annotations of all folds. One
    number a seed that has all ``folds``, averaged over these seeds.

    Raises :class:`CxrfastError` for runs of different protocols, T or classes.
    """
    _check_alike(runs)
    names = tuple(runs[0].report["classes"])
    seeds = [group for group in _by_seed(runs) if len(group) == folds]

    def column(name: str, function: Any) -> Column:
        together = [
            function(torch.cat([run.scores for run in group]), torch.cat([run.labels for run in group]))
            for group in seeds
        ]
        return Column(
            tuple(
                Number(
                    tuple(_nan(run.report["classes"][c][name]) for run in runs),
                    _average([values[k].item() for values in together]),
                )
                for k, c in enumerate(names)
            ),
            names,
        )

    one_seed = one_of_each_fold(runs)
    labels = torch.cat([run.labels for run in one_seed])
    first = next((run for run in runs if run.tables), None)
    return PooledResult(
        facts=facts,
        runs=tuple(runs),
        class_names=names,
        n_positive=tuple((labels == 1).sum(dim=0).tolist()),
        n_negative=tuple((labels == 0).sum(dim=0).tolist()),
        n_annotated=tuple(sum(run.annotated(name) for run in one_seed) for name in names),
        auroc=column("auroc", auroc),
        average_precision=column("average_precision", average_precision),
        tables=() if first is None else tuple(_pool_table(runs, seeds, names, t) for t in range(len(first.tables))),
    )


def _pool_table(
    runs: Sequence[RunNumbers], seeds: Sequence[Sequence[RunNumbers]], names: tuple[str, ...], number: int
) -> PooledTable:
    table = next(run.tables[number] for run in runs if run.tables)
    false_positives = "afp" in next(iter(table["rows"][0]["classes"].values()))

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
            numbers.append(Number(tuple(_nan(cell(run, i, name, key)) for run in runs), _average(shares)))
        return Column(tuple(numbers), names)

    rows = range(len(table["rows"]))
    own, all_ = [[name] for name in names], [names] * len(names)
    return PooledTable(
        measure=table["measure"],
        relation=table["relation"],
        gate=table["gate"],
        thresholds=tuple(row["T"] for row in table["rows"]),
        accuracy=tuple(column(i, "accuracy", "hits", own) for i in rows),
        hits=tuple(tuple(tuple(cell(run, i, name, "hits") or 0 for run in runs) for name in names) for i in rows),
        afp=tuple(column(i, "afp", "false_positives", all_) for i in rows) if false_positives else None,
    )


def one_of_each_fold(runs: Sequence[RunNumbers]) -> list[RunNumbers]:
    """Every test image once: the seeds of a fold have the same."""
    return list({run.fold: run for run in reversed(runs)}.values())


def _by_seed(runs: Sequence[RunNumbers]) -> list[list[RunNumbers]]:
    groups: dict[int, list[RunNumbers]] = {}
    for run in runs:
        groups.setdefault(run.seed, []).append(run)
    return list(groups.values())


def _check_alike(runs: Sequence[RunNumbers]) -> None:
    def kind(run: RunNumbers) -> Any:
        return run.report["protocol"], run.report["label_version"], list(run.report["classes"])

    def tables(run: RunNumbers) -> Any:
        return [(t["measure"], t["relation"], t["gate"], [row["T"] for row in t["rows"]]) for t in run.tables]

    first = next((run for run in runs if run.tables), runs[0])
    for run in runs:
        if kind(run) != kind(first) or (run.tables and tables(run) != tables(first)):
            raise CxrfastError(
                f"{run.name} was evaluated otherwise than {first.name} (protocol, T, labels or classes); evaluate the "
                "folder of folds again"
            )


def _average(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _none(value: float) -> float | None:
    return None if math.isnan(value) else value
