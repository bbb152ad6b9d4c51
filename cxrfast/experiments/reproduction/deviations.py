"""Deviations of a run from its paper, statement by statement of the register."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cxrfast.data import DataSource
from cxrfast.experiments.reproduction.plans import PlannedRun, TablePlan
from cxrfast.experiments.reproduction.register import stated, statements_on, value_of
from cxrfast.experiments.reproduction.settings import LABELS, Overrides, run_config
from cxrfast.published import Statement
from cxrfast.training import RunConfig

IMAGES = 112_120  # of ChestX-ray14
_NOT_OF_THE_PAPER = {"method", "data", "classes", "seed", "device", "workers", "cache", "precision", "options"}


@dataclass(frozen=True)
class Deviations:
    """The deviations of a run from the paper's setting."""

    texts: tuple[str, ...]
    unchecked: str | None = None  # why the settings could not be compared with the paper's


@dataclass(frozen=True)
class _Stated:
    value: Any
    places: tuple[str, ...]


def deviations_of(
    run: PlannedRun, config: RunConfig, table: TablePlan, folds: int, data: DataSource | None
) -> Deviations:
    """How the configuration, the code and the data differ from the paper.

    Every statement of the register on the run's method is compared, except ablations and the options that define the
    row of the table. Three kinds of deviations are listed: settings that differ from the stated ones, deviations of the
    code that no setting can remove, and settings that the paper does not state but the user has changed.
    """
    found = statements_on(table.paper, run.method)
    if run.cross_validated:
        config = config.model_copy(update={"split": "folds"})  # as in the runs of the cross-validation
    texts = [*_settings(run, config, table.paper, found), *_code(table.paper, found)]
    texts += _changes(run, config, table, found)
    if not any("labels" in of.setting for of in found) and config.labels != LABELS:
        texts.append(f"labels {config.labels} instead of {LABELS}")
    if run.cross_validated and folds != table.folds:
        texts.append(f"folds {folds} instead of {table.folds}")
    if data is not None and len(data.records) != IMAGES:
        texts.append(f"{len(data.records):,} images instead of the {IMAGES:,} of ChestX-ray14")
    unchecked = None if found else f"the register has no statements of {table.paper} on method {run.method}"
    return Deviations(tuple(dict.fromkeys(texts)), unchecked)


def _settings(run: PlannedRun, config: RunConfig, paper: str, found: Sequence[Statement]) -> Iterator[str]:
    for name, of in _stated(run, paper, found).items():
        own = value_of(config, name)
        if _same(own, of.value):
            continue
        places = "; ".join(dict.fromkeys(of.places))
        if name == "pretrained" and not own:
            yield f"random initial weights instead of ImageNet's ({places}; --pretrained imagenet)"
        elif name == "pretrained":
            yield f"initial weights of {own} instead of ImageNet's ({places})"
        else:
            yield f"{_words(name)} {_plain(own)} instead of {_plain(of.value)} ({places})"


def _stated(run: PlannedRun, paper: str, found: Sequence[Statement]) -> dict[str, _Stated]:
    """The paper's value of each setting, and where it is stated. If there are two values, the first."""
    values: dict[str, _Stated] = {}
    for statement in found:
        if statement.kind == "ablation" or statement.silent or not statement.setting:
            continue
        for name, value in stated(statement).items():
            if name.removeprefix("options.") in run.options:
                continue
            before = values.setdefault(name, _Stated(value, ()))
            if _same(before.value, value):
                values[name] = _Stated(value, (*before.places, _place(statement, paper)))
    return values


def _code(paper: str, found: Sequence[Statement]) -> Iterator[str]:
    """Deviations of the code that no setting can remove."""
    for statement in found:
        if statement.status == "deviation" and not statement.setting and statement.kind != "ablation":
            does = (statement.does or "").strip().rstrip(".")
            yield f"{does} ({_place(statement, paper)})"


def _changes(run: PlannedRun, config: RunConfig, table: TablePlan, found: Sequence[Statement]) -> Iterator[str]:
    """Changed settings that the paper does not state."""
    planned = run_config(run, table, config.data, Overrides(options={"pretrained": config.options.get("pretrained")}))
    known = _stated(run, table.paper, found)
    names = [name for name in RunConfig.model_fields if name not in _NOT_OF_THE_PAPER | {"split", "labels"}]
    for name in (*names, *(f"options.{name}" for name in planned.options if name not in run.options)):
        own, of_plan = value_of(config, name), value_of(planned, name)
        if name not in known and not _same(own, of_plan):
            yield f"{_words(name)} {_plain(own)} instead of the planned {_plain(of_plan)}"


def _place(statement: Statement, paper: str) -> str:
    return statement.place if statement.paper == paper else f"{statement.paper}, {statement.place}"


def _words(name: str) -> str:
    """The name of a setting; options as --set takes them."""
    return name.removeprefix("options.") if name.startswith("options.") else name.replace("_", " ")


def _same(one: Any, other: Any) -> bool:
    """Equality of two values, in which tuples equal lists."""
    return _listed(one) == _listed(other)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _plain(value: Any) -> str:
    """The value as written in a configuration file."""
    return value if isinstance(value, str) else json.dumps(_listed(value), ensure_ascii=False)
