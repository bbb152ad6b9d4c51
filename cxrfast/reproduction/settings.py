"""From a planned run and what a user overrides to a configuration, and how far that is from the paper's setting."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cxrfast.data import ChestXray14
from cxrfast.demo import SETTINGS
from cxrfast.errors import UsageError
from cxrfast.methods import get_method
from cxrfast.reproduction.plans import PlannedRun, TablePlan
from cxrfast.training import RunConfig, build_config

IMAGES = 112_120  # of ChestX-ray14
LABELS = "2017"  # the only version there was
SCALES = ("small",)
_SMALL: dict[str, Any] = {"image_size": 64, "epochs": 2, "batch_size": 16, "lr": 2e-3}
_SMALL_FOLDS = 2
_SMALL_METHOD: dict[str, dict[str, Any]] = {
    "rozenberg": {"crf_epochs": 1, "grid": 8},
    "li": {"grid": 8},
    "wang": {"transition_channels": 64},
}


@dataclass(frozen=True)
class Overrides:
    """What a user asks for instead of the paper's setting."""

    settings: Mapping[str, Any] = field(default_factory=dict)  # of RunConfig
    options: Mapping[str, Any] = field(default_factory=dict)  # of the methods that have them
    scale: str | None = None
    folds: int | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and self.scale not in SCALES:
            raise UsageError(f"scale: expected {' or '.join(SCALES)}, got {self.scale!r}")

    def folds_of(self, table: TablePlan) -> int:
        return self.folds or (_SMALL_FOLDS if self.scale else table.folds)

    def check(self, runs: Iterable[PlannedRun]) -> None:
        """Raise :class:`UsageError` for an option that none of the runs' methods has."""
        methods = {run.method: get_method(run.method) for run in runs}
        for name in self.options:
            if methods and not any(name in method.Options.model_fields for method in methods.values()):
                raise UsageError(f"{name}: no option of {', '.join(methods)}; see: cxrfast info {next(iter(methods))}")


def run_config(run: PlannedRun, data: Any, overrides: Overrides) -> RunConfig:
    """The paper's setting with the overrides; options go to the methods that have them."""
    fields = get_method(run.method).Options.model_fields
    options: dict[str, Any] = {}
    small: dict[str, Any] = {}
    if overrides.scale == "small":
        small = _SMALL
        demo = SETTINGS[run.method]["options"]
        options |= {**demo, **_SMALL_METHOD.get(run.method, {})}
    options |= {name: value for name, value in overrides.options.items() if name in fields}
    options |= run.options  # what makes it this row
    settings = {"method": run.method, "data": data, "labels": LABELS, **small, **overrides.settings}
    if not run.cross_validated:
        settings["split"] = "official"
    return build_config({**settings, "options": options})


def deviations(
    run: PlannedRun, config: RunConfig, table: TablePlan, folds: int, data: ChestXray14 | None
) -> tuple[str, ...]:
    """How the configuration, and the data, differ from the paper's setting; empty if they do not."""
    method = get_method(run.method)
    found = []
    for name, value in vars(method.defaults).items():
        found += _differs(name, getattr(config, name), value)
    paper = {**method.Options(pretrained=run.pretrained).model_dump(mode="json"), **run.options}
    for name, value in paper.items():
        if name == "pretrained":
            if run.pretrained and not config.options[name]:
                found.append("random weights at the start instead of ImageNet's (--pretrained imagenet)")
            elif isinstance(config.options[name], str):
                found.append(f"weights of {config.options[name]} at the start instead of timm's of ImageNet")
        else:
            found += _differs(name, config.options[name], value)
    found += _differs("labels", config.labels, LABELS)
    if run.cross_validated:
        found += _differs("folds", folds, table.folds)
    if data is not None and len(data.records) != IMAGES:
        found.append(f"{len(data.records):,} images instead of the {IMAGES:,} of ChestX-ray14")
    return tuple(found)


def _differs(name: str, value: Any, paper: Any) -> list[str]:
    if _plain(value) == _plain(paper):
        return []
    return [f"{name.replace('_', ' ')} {_plain(value)} instead of {_plain(paper)}"]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
