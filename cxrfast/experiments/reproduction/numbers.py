"""The numbers of an evaluation, of one run or of folds, in one form."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrfast.errors import CxrfastError


@dataclass(frozen=True)
class Value:
    """Ours: with a 95 % interval of one run, or with the spread over the runs of folds and seeds."""

    value: float | None
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    runs: int | None = None  # of folds and seeds that have the number
    pooled: float | None = None  # over the images of all folds together


@dataclass(frozen=True)
class Numbers:
    """One number for each class by one metric, and if it has any, one measure and T."""

    metric: str
    measure: str | None
    relation: str | None  # "≥" or ">"
    T: float | None
    gate: str | None
    classes: Mapping[str, Value]
    mean: Value
    left_out: tuple[str, ...]  # classes that are not in the mean

    @property
    def title(self) -> str:
        return title_of(self.metric, self.measure, self.T, self.relation, self.gate)


def title_of(metric: str, measure: str | None, t: float | None, relation: str | None, gate: str | None) -> str:
    """A heading, such as "accuracy at IoU ≥ 0.1"."""
    if measure is None:
        return "AUROC"
    what = "accuracy" if metric == "accuracy" else "average number of false positives (AFP)"
    where = f", where the image's {gate}" if gate else ""
    return f"{what} at {'IoU' if measure == 'iou' else 'IoR'} {relation} {t:g}{where}"


def read_evaluation(path: Path) -> dict[str, Any]:
    """The content of an `evaluation-test.json` or of a `cross-validation.json`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CxrfastError(f"{path} cannot be read ({error}); delete it, and run the same command again") from error


def numbers_of(content: Mapping[str, Any]) -> Iterator[Numbers]:
    """All numbers of such a file."""
    classes = content["classes"]
    mean = content["mean"]["auroc"]
    yield Numbers(
        "auroc",
        None,
        None,
        None,
        None,
        {name: _value(row["auroc"], *row.get("auroc_interval", ())) for name, row in classes.items()},
        _value(mean),
        tuple(mean["left_out"]),
    )
    if content.get("localization") is None:
        return
    for table in content["localization"]["tables"]:
        for row in table["rows"]:
            place = (table["measure"], table["relation"], row["T"], table["gate"])
            values = {name: _of_class(cell) for name, cell in row["classes"].items()}
            yield Numbers("accuracy", *place, values, _value(row["mean"]), tuple(row["mean"]["left_out"]))
            if all("afp" in cell for cell in row["classes"].values()):
                false = {name: _value(cell["afp"]) for name, cell in row["classes"].items()}
                # In the mean are the classes that its accuracy is over: a class without boxes has false ones only.
                left_out = tuple(row["mean"]["left_out"])
                yield Numbers("afp", *place, false, _mean(false, left_out), left_out)


def _of_class(cell: Mapping[str, Any]) -> Value:
    if "accuracy" in cell:  # of one run
        return _value(cell["accuracy"], cell["low"], cell["high"])
    return _value(cell)


def _value(number: Any, low: float | None = None, high: float | None = None) -> Value:
    """A number, a mean over classes, or what folds pool."""
    if not isinstance(number, Mapping):
        return Value(number, low, high)
    if "value" in number:
        return Value(number["value"], *number.get("interval", ()))
    return Value(number["mean"], sd=number["sd"], runs=number["n"], pooled=number["pooled"])


def _mean(values: Mapping[str, Value], left_out: Sequence[str]) -> Value:
    present = [of.value for name, of in values.items() if of.value is not None and name not in left_out]
    return Value(sum(present) / len(present) if present else None)
