"""Builds the configuration of a planned run, with the user's overrides."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cxrfast.errors import UsageError
from cxrfast.evaluation import find_protocol
from cxrfast.experiments.demo import SETTINGS
from cxrfast.experiments.reproduction.plans import PlannedRun, TablePlan
from cxrfast.experiments.reproduction.register import merged, papers_setting, statements_on
from cxrfast.methods import get_method
from cxrfast.training import RunConfig, build_config

LABELS = "2017"  # the only version at the time of the papers
SCALES = ("small",)
_SMALL: dict[str, Any] = {"image_size": 64, "epochs": 2, "batch_size": 16, "lr": 2e-3, "lr_schedule": "steps"}
_SMALL_FOLDS = 2
_SMALL_METHOD: dict[str, dict[str, Any]] = {
    "rozenberg": {"crf_epochs": 1, "grid": 8},
    "li": {"grid": 8},
    "wang": {"transition_channels": 64},
    "cia": {"negatives": 8, "hidden": 16, "alignment_epochs": 1},
    "yao": {"width": 8, "levels": 3, "growth": 4, "dense_layers": 1},
}


@dataclass(frozen=True)
class Overrides:
    """The user's changes of the paper's setting."""

    settings: Mapping[str, Any] = field(default_factory=dict)  # fields of RunConfig
    options: Mapping[str, Any] = field(default_factory=dict)  # for those methods that have them
    scale: str | None = None
    folds: int | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and self.scale not in SCALES:
            raise UsageError(f"scale: expected {' or '.join(SCALES)}, got {self.scale!r}")

    def folds_of(self, table: TablePlan) -> int:
        return self.folds or (_SMALL_FOLDS if self.scale else table.folds)

    def check(self, runs: Iterable[PlannedRun]) -> None:
        """Raise :class:`UsageError` for an option that no method of the runs has."""
        methods = {run.method: get_method(run.method) for run in runs}
        for name in self.options:
            if methods and not any(name in method.Options.model_fields for method in methods.values()):
                raise UsageError(
                    f"{name}: expected an option of {', '.join(methods)}; list them: cxrfast info {next(iter(methods))}"
                )


def run_config(run: PlannedRun, table: TablePlan, data: Any, overrides: Overrides) -> RunConfig:
    """The paper's setting with the overrides. Options are only set for methods that have them.

    The paper's setting is that of the register's statements without ablations; other settings have the method's
    defaults. Pretrained weights are only downloaded on request.
    """
    fields = get_method(run.method).Options.model_fields
    settings, options = merged(papers_setting(statements_on(table.paper, run.method)))
    options.pop("pretrained", None)
    validation = find_protocol(table.protocol).training_validation
    if run.cross_validated and validation is not None:
        settings = {"val_share": validation, **settings}
    if overrides.scale == "small":
        settings |= _SMALL
        demo = SETTINGS.get(run.method, {}).get("options", {})
        options |= {**demo, **_SMALL_METHOD.get(run.method, {})}
    options |= {name: value for name, value in overrides.options.items() if name in fields}
    options |= run.options  # the options that define the row
    settings = {"labels": LABELS, **settings, **overrides.settings, "method": run.method, "data": data}
    settings["split"] = (
        "patient" if run.cross_validated else "official"
    )  # a cross-validation sets the splits of its folds itself
    return build_config({**settings, "options": options})
