"""The configuration of a run: the options of `cxrfast train`, completed by the method's defaults."""

import difflib
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cxrfast._files import write_text
from cxrfast._yaml import dump_yaml
from cxrfast.data import DataOptions
from cxrfast.data.datasets.interface import ReaderMerge, Uncertain, Views
from cxrfast.devices import Device, Precision
from cxrfast.errors import UsageError
from cxrfast.methods import MethodOptions, get_method
from cxrfast.methods.base import LrSchedule, Optimizer
from cxrfast.metrics import Criterion

_ANYWHERE = {"device", "workers", "cache", "classes", "data"}  # ignored when two configurations are compared
_AS_TEXT = BeforeValidator(str)  # YAML reads 2017 and 32 as numbers


def _share(value: Any) -> Any:
    """A share in [0, 1); "none" means 0."""
    if value in ("none", "None"):
        return 0.0
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = math.nan
    if isinstance(value, bool) or not 0 <= share < 1:
        raise ValueError("expected none, or a share from 0 to below 1")
    return share


def _criterion(text: str) -> str:
    """The same text; the error does not repeat it, as that of every option ends with it."""
    try:
        Criterion.parse(text)
    except ValueError as error:
        raise ValueError(str(error).rpartition(", got ")[0]) from error
    return text


class RunConfig(BaseModel):
    """All settings of a run. They are saved as `config.yaml` in its folder, a file that `--config` accepts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    data: Path
    dataset: str | None = Field(None, description="name of the data set's layout; default: recognised")
    labels: Annotated[Literal["auto", "2017", "2020"], _AS_TEXT] = Field(
        "auto", description="label version of ChestX-ray14"
    )
    uncertain: Uncertain | None = Field(None, description="what uncertain labels become; default: unknown")
    readers: ReaderMerge | None = Field(None, description="how the annotations of several readers become one")
    views: Views = Field("frontal", description="frontal leaves out images that are known to be lateral")
    class_map: dict[str, str] = Field(default_factory=dict, description="class of the data set: name to use")
    classes: list[str] | None = Field(None, description="default: the classes with a positive training image")
    annotated: float | None = Field(
        None, ge=0, le=1, description="share of the training images that may keep boxes; default: all that have them"
    )
    split: Literal["patient", "official", "folds"] = "patient"  # "folds": set by a cross-validation for its runs
    val_share: Annotated[float, BeforeValidator(_share)] = Field(
        1 / 8, description="validation share of the non-test images, which choose the epoch; 0: the last epoch is kept"
    )
    image_size: int = Field(ge=32)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    lr_decay: float = Field(gt=0, le=1)
    lr_step: int = Field(1, ge=1)
    lr_schedule: LrSchedule = Field(
        "steps",
        description="steps: lr_decay is applied after every lr_step epochs; milestones: after each of lr_milestones; "
        "plateau: once, after lr_patience epochs without a better validation score; search: once, after the epoch of "
        "lr_milestones (default: a third, half and two thirds of the epochs) with the best validation score; all are "
        "tried",
    )
    lr_milestones: tuple[Annotated[int, Field(ge=1)], ...] = ()
    lr_patience: int = Field(3, ge=1)
    optimizer: Optimizer = Field("adam", description="sgd has a momentum of 0.9")
    augment: bool = True
    operating_point: Annotated[str, AfterValidator(_criterion)] = Field(
        "youden", description="criterion of the score thresholds: youden, f1, sensitivity=0.9 or specificity=0.9"
    )
    cache: bool | None = Field(None, description="keep decoded images in memory; default: if they take less than 2 GB")
    seed: int = Field(0, ge=0)
    device: Device = "auto"
    precision: Annotated[Precision, _AS_TEXT] = "32"
    workers: int = Field(0, ge=0)
    options: dict[str, Any] = Field(default_factory=dict, description="the method's own options")

    @property
    def data_options(self) -> DataOptions:
        """How the data set is read."""
        return DataOptions(
            dataset=self.dataset,
            labels=self.labels,
            uncertain=self.uncertain,
            readers=self.readers,
            views=self.views,
            class_map=self.class_map,
        )

    def method_options(self) -> MethodOptions:
        return get_method(self.method).Options(**self.options)

    def first_difference(self, other: "RunConfig") -> str | None:
        """The first setting in which `other` differs, as "name a, not b"; None if there is none.

        Settings of the machine are ignored, because a run may resume on another one. Classes are ignored, because the
        data determine them where they are not given.
        """
        mine, wanted = (
            {**config.model_dump(mode="json", exclude=_ANYWHERE), **config.options, "data": str(config.data.resolve())}
            for config in (self, other)
        )
        for name, value in wanted.items():
            if name != "options" and mine.get(name) != value:
                return f"{name.replace('_', ' ')} {mine.get(name)}, not {value}"
        return None


def build_config(settings: dict[str, Any]) -> RunConfig:
    """Complete `settings` with the method's defaults.

    Raises UsageError for an unknown method or option, a value out of range, or a missing required option.
    """
    if "method" not in settings:
        raise UsageError("method: expected the name of a method, got none; for example --method rozenberg")
    if "data" not in settings:
        raise UsageError(
            "data: expected the folder of a data set, got none; add --data DIR, or draw phantoms with cxrfast synth DIR"
        )
    method = get_method(settings["method"])
    given = {**vars(method.defaults), **_implied_schedule(settings), **settings}
    options = validated(method.Options, given.get("options") or {}, prefix="options.")
    config = validated(RunConfig, given)
    _check_milestones(config)
    return config.model_copy(update={"options": options.model_dump(mode="json")})


def _implied_schedule(settings: dict[str, Any]) -> dict[str, str]:
    """The schedule that `lr_milestones` or `lr_step` implies if none is named; it replaces the method's default.

    Configuration files of earlier versions have `lr_step` but no schedule.
    """
    if "lr_milestones" in settings:
        return {"lr_schedule": "milestones"}
    return {"lr_schedule": "steps"} if "lr_step" in settings else {}


def _check_milestones(config: RunConfig) -> None:
    milestones = config.lr_milestones
    if config.lr_schedule == "milestones" and not milestones:
        raise UsageError("lr_milestones: expected epochs for lr_schedule milestones, got none; for example 10")
    if list(milestones) != sorted(set(milestones)):
        raise UsageError(f"lr_milestones: expected increasing epochs, got {', '.join(map(str, milestones))}")
    if config.lr_schedule == "search" and milestones and milestones[0] >= config.epochs:
        raise UsageError(f"lr_milestones: expected an epoch below {config.epochs}, the last one, got {milestones[0]}")


def save_config(config: RunConfig, path: Path) -> None:
    write_text(path, dump_yaml(config.model_dump(mode="json")))


def validated(model: type[Any], values: dict[str, Any], prefix: str = "") -> Any:
    """`model(**values)`, with pydantic's first error as a UsageError that names the option."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            close = difflib.get_close_matches(name, model.model_fields, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(model.model_fields)}"
            raise UsageError(f"{prefix}{name}: unknown option; {hint}") from error
        message = re.sub("^Input should be (?=greater|less)", "Expected a number ", first["msg"])
        message = message.removeprefix("Value error, ").replace("Input should be", "Expected", 1)
        reason = message[0].lower() + message[1:]
        raise UsageError(f"{prefix}{name}: {reason}, got {first['input']!r:.80}") from error
