"""The folder of a cross-validation: its settings, its splits and its runs."""

import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field

from cxrfast._files import write_text
from cxrfast._logging import get_logger
from cxrfast._yaml import dump_yaml
from cxrfast.data import DataSource, FoldsBy, FoldsOf, FoldSplits, Record, make_folds, read_data
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation import PROTOCOLS, find_protocol
from cxrfast.runs.directory import RUNS, RunDirectory, fold_name, make_folder, refuse_full_folder
from cxrfast.runs.settings import CROSS_VALIDATION
from cxrfast.training.config import RunConfig, build_config, validated
from cxrfast.training.preparation import check_without_validation, choose_classes

logger = get_logger(__name__)

_OF_THE_MACHINE = {"device", "workers", "cache"}  # may differ when a cross-validation is resumed

# Options that earlier versions lacked. Their defaults are not part of a folder's name, so that it stays the same.
_NEW_OPTIONS: dict[str, Any] = {
    "dataset": None,
    "uncertain": None,
    "readers": None,
    "views": "frontal",
    "class_map": {},
    "operating_point": "youden",
}


class CrossValidation(BaseModel):
    """The settings of a cross-validation itself, a section of the folder's `config.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folds: int = Field(5, ge=2)
    seeds: int = Field(1, ge=1, description="runs per fold, with the seeds seed, seed + 1, … and the same splits")
    unannotated: float = Field(
        1.0, ge=0, le=1, description="share of the images without boxes that is used for training"
    )
    by: FoldsBy = "patient"
    of: FoldsOf = "boxes"
    protocol: str = "strict"


class FoldsDirectory(RunDirectory):
    """The folder of a cross-validation; reads and writes its settings."""

    def load(self) -> tuple[RunConfig, CrossValidation]:
        settings = self.read_config()
        plan = build_cross_validation(take_section(settings))
        return build_config(settings), plan

    def save(self, config: RunConfig, plan: CrossValidation) -> None:
        settings = {**config.model_dump(mode="json"), CROSS_VALIDATION: plan.model_dump(mode="json")}
        write_text(self.config, dump_yaml(settings))


class FoldRun(NamedTuple):
    """One run of a cross-validation."""

    fold: int
    seed: int
    name: str  # also its folder, relative to that of the cross-validation


def take_section(settings: dict[str, Any]) -> dict[str, Any]:
    """Remove the section of the cross-validation from the settings of a configuration file, and return it."""
    section = settings.pop(CROSS_VALIDATION, None) or {}
    if not isinstance(section, dict) or not all(isinstance(name, str) for name in section):
        raise UsageError(f"{CROSS_VALIDATION}: expected 'name: value' lines, got {section!r}")
    return section


def build_cross_validation(settings: dict[str, Any]) -> CrossValidation:
    """Complete `settings`. Folds are by image if they are so in the protocol's paper, else by patient.

    Raises UsageError for an unknown protocol, a value out of range, or folds that the protocol does not allow.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    protocol = find_protocol(given.get("protocol", "strict"))
    if "by" not in given and protocol.training_folds is not None:
        given["by"] = protocol.training_folds.by
    for name, known in (("by", get_args(FoldsBy)), ("of", get_args(FoldsOf))):
        if given.get(name, known[0]) not in known:
            raise UsageError(f"folds-{name}: expected {' or '.join(known)}, got {given[name]!r}")
    plan = validated(CrossValidation, given)
    if plan.of == "all" and plan.unannotated < 1:
        raise UsageError(
            f"unannotated: expected no value with folds of all images, got {plan.unannotated:g}; leave it out"
        )
    if protocol.patients_apart and plan.by != "patient":
        others = ", ".join(name for name, entry in PROTOCOLS.items() if not entry.patients_apart)
        raise UsageError(
            f"folds-by: expected patient for protocol {protocol.name}, so that no test patient is in training, got "
            f"{plan.by}; leave it out, or choose another --protocol: {others}"
        )
    return plan


def with_val_share(config: RunConfig, plan: CrossValidation, val_share: float | None) -> RunConfig:
    """Set the validation share: `val_share` if given, else that of the protocol's paper, else that of `config`."""
    if val_share is None:
        val_share = PROTOCOLS[plan.protocol].training_validation
    return config if val_share is None else config.model_copy(update={"val_share": val_share})


def all_runs(config: RunConfig, plan: CrossValidation) -> list[FoldRun]:
    """All runs, seed by seed, so that after the first seed every image has been tested once."""
    seeds = range(config.seed, config.seed + plan.seeds)
    return [FoldRun(fold, seed, fold_name(fold, seed)) for seed in seeds for fold in range(plan.folds)]


def check_fold(fold: int | None, plan: CrossValidation) -> None:
    if fold is not None and not 0 <= fold < plan.folds:
        raise UsageError(f"fold: expected 0 to {plan.folds - 1}, because there are {plan.folds} folds, got {fold}")


def open_folder(config: RunConfig, plan: CrossValidation, out: Path | None) -> Path:
    """Open or create the folder, with config.yaml and splits.json. If it exists, its settings must be the same."""
    if config.split == "official":
        raise UsageError("split: expected none for a cross-validation, got official; leave out --split")
    config = config.model_copy(update={"data": config.data.absolute(), "split": "folds"})
    folder = FoldsDirectory(_default_folder(config, plan) if out is None else out)
    if folder.is_cross_validation:
        _add_seeds(folder, config, plan)
        return folder.path
    if folder.path.is_dir() and set(folder.path.iterdir()) != {folder.splits}:
        refuse_full_folder(folder.path)
    source = read_data(config.data, config.data_options)
    if folder.splits.is_file():
        splits = FoldSplits.load(folder.splits)
        _check_splits(folder, splits, plan, source.records)
    else:
        splits = make_folds(
            source.records,
            folds=plan.folds,
            by=plan.by,
            of=plan.of,
            unannotated=plan.unannotated,
            validation=config.val_share,
            seed=config.seed,
            label_version=source.label_version,
            grouping=source.grouping,
        )
    if not all(fold.val for fold in splits.folds):
        check_without_validation(config)
    config = config.model_copy(update={"classes": _classes_of_all_folds(config, splits, source)})
    make_folder(folder.path)
    if not folder.splits.is_file():
        splits.save(folder.splits)
    folder.save(config, plan)
    logger.info(f"{plan.folds} folds by {plan.by}, {'; '.join(splits.notes)}; in {folder.splits}")
    return folder.path


def _default_folder(config: RunConfig, plan: CrossValidation) -> Path:
    """The same for equal settings, so that a repeated command finds the finished runs, also on another machine."""
    settings = _comparable(config, plan) | {"classes": config.classes}
    if plan.of == "boxes":  # keeps the names of earlier versions, which lacked the option
        del settings["of"]
    for name, default in _NEW_OPTIONS.items():
        if settings[name] == default:
            del settings[name]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return RUNS / f"{config.method}-{plan.folds}-folds-{digest[:8]}"


def _comparable(config: RunConfig, plan: CrossValidation) -> dict[str, Any]:
    """All settings that must not change: not those of the machine, nor the number of seeds."""
    settings = config.model_dump(mode="json", exclude={*_OF_THE_MACHINE, "classes", "options"})
    return settings | config.options | plan.model_dump(exclude={"seeds"})


def _add_seeds(folder: FoldsDirectory, config: RunConfig, plan: CrossValidation) -> None:
    """Raise UsageError if the settings differ from those of the folder. An increased number of seeds is saved."""
    old_config, old_plan = folder.load()
    old, new = _comparable(old_config, old_plan), _comparable(config, plan)
    if config.classes is not None:
        old["classes"], new["classes"] = old_config.classes, config.classes
    if plan.seeds < old_plan.seeds:
        old["seeds"], new["seeds"] = old_plan.seeds, plan.seeds
    for name in new:
        if old[name] != new[name]:
            option = {"by": "folds-by", "of": "folds-of"}.get(name, name)
            raise UsageError(
                f"out: expected a folder with {option} {new[name]}, got {folder.path} with {old[name]}; choose another "
                f"folder, or resume with its own settings: --resume {shlex.quote(str(folder.path))}"
            )
    if plan.seeds > old_plan.seeds:
        folder.save(old_config, plan)


def _check_splits(folder: FoldsDirectory, splits: FoldSplits, plan: CrossValidation, records: Sequence[Record]) -> None:
    pairs = {"folds": (len(splits.folds), plan.folds), "by": (splits.by, plan.by), "of": (splits.of, plan.of)}
    for name, (in_file, wanted) in pairs.items():
        if in_file != wanted:
            raise UsageError(f"{folder.splits}, {name}: expected {wanted}, got {in_file}; correct one of the two")
    try:
        splits.check(records)
    except CxrfastError as error:
        raise CxrfastError(f"{folder.splits}: {error}") from None


def _classes_of_all_folds(config: RunConfig, splits: FoldSplits, source: DataSource) -> list[str]:
    """The requested classes, or all with positive training images in every fold."""
    chosen, found = [], set()
    for number in range(len(splits.folds)):
        notes: list[str] = []
        try:
            train = splits.splits(number, source.records).part("train", source.records)
            chosen.append(choose_classes(config, source.class_names, train, notes))
        except CxrfastError as error:
            raise type(error)(f"fold {number}: {error}") from None
        found |= set(chosen[-1])
    common = [name for name in chosen[0] if all(name in names for names in chosen)]
    if found - set(common):
        absent = ", ".join(sorted(found - set(common)))
        logger.info(f"classes without a positive training image in every fold are left out: {absent}")
    if not common:
        raise CxrfastError(
            f"data: expected a class with positive training images in every fold, got none in {config.data}"
        )
    return common


def read_splits(folder: FoldsDirectory, config: RunConfig) -> tuple[FoldSplits, list[Record]]:
    records = list(read_data(config.data, config.data_options).records)
    splits = FoldSplits.load(folder.splits)
    _check_splits(folder, splits, folder.load()[1], records)
    return splits, records
