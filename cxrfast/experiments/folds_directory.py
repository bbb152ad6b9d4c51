"""The folder of a cross-validation: its settings, its splits and its runs."""

import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field

from cxrfast._files import write_text
from cxrfast._logging import get_logger
from cxrfast.data import DataSource, FoldsBy, FoldsOf, FoldSplits, Record, make_folds, read_data
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation import PROTOCOLS, find_protocol
from cxrfast.runs.directory import RUNS, RunDirectory, fold_name, make_folder, refuse_full_folder
from cxrfast.runs.settings import CROSS_VALIDATION
from cxrfast.training.config import RunConfig, build_config, validated
from cxrfast.training.preparation import check_without_validation, choose_classes

logger = get_logger(__name__)

_OF_THE_MACHINE = {"device", "workers", "cache"}  # may differ when a cross-validation goes on

# Options that earlier versions lacked. Their defaults are not part of a folder's name, so that it stays the same.
_NEW_DATA_OPTIONS: dict[str, Any] = {
    "dataset": None,
    "uncertain": None,
    "readers": None,
    "views": "frontal",
    "class_map": {},
}


class CrossValidation(BaseModel):
    """What a cross-validation is, beside the settings of its runs. A section of the folder's `config.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folds: int = Field(5, ge=2)
    seeds: int = Field(1, ge=1, description="runs of every fold: seed, seed + 1, …, all on the same splits")
    unannotated: float = Field(1.0, ge=0, le=1, description="fraction of the images without boxes that may train")
    by: FoldsBy = "patient"
    of: FoldsOf = "boxes"
    protocol: str = "strict"


class FoldsDirectory(RunDirectory):
    """The folder of a cross-validation, with its settings read and written."""

    def load(self) -> tuple[RunConfig, CrossValidation]:
        settings = self.read_config()
        plan = build_cross_validation(take_section(settings))
        return build_config(settings), plan

    def save(self, config: RunConfig, plan: CrossValidation) -> None:
        settings = {**config.model_dump(mode="json"), CROSS_VALIDATION: plan.model_dump(mode="json")}
        write_text(self.config, yaml.safe_dump(settings, sort_keys=False))


class FoldRun(NamedTuple):
    """One run of a cross-validation."""

    fold: int
    seed: int
    name: str  # and its folder within that of the cross-validation


def take_section(settings: dict[str, Any]) -> dict[str, Any]:
    """What a configuration file says about a cross-validation, taken out of its settings; empty if nothing."""
    section = settings.pop(CROSS_VALIDATION, None) or {}
    if not isinstance(section, dict) or not all(isinstance(name, str) for name in section):
        raise UsageError(f"{CROSS_VALIDATION}: expected 'name: value' lines, got {section!r}")
    return section


def build_cross_validation(settings: dict[str, Any]) -> CrossValidation:
    """Complete `settings`: folds are by image where the protocol's paper has them so, else by patient.

    Raises UsageError, in one line, for an unknown protocol, a value out of range, or folds that the protocol refuses.
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
        raise UsageError(f"unannotated: folds of all images have none beside them; leave out {plan.unannotated:g}")
    if protocol.patients_apart and plan.by != "patient":
        others = ", ".join(name for name, entry in PROTOCOLS.items() if not entry.patients_apart)
        raise UsageError(
            f"folds-by: by {plan.by}, training has seen patients that protocol {protocol.name} evaluates; leave it "
            f"out, or choose another --protocol: {others}"
        )
    return plan


def with_val_share(config: RunConfig, plan: CrossValidation, val_share: float | None) -> RunConfig:
    """The share of what a fold may train on that validates: as given, as the protocol's paper has it, or the run's."""
    if val_share is None:
        val_share = PROTOCOLS[plan.protocol].training_validation
    return config if val_share is None else config.model_copy(update={"val_share": val_share})


def all_runs(config: RunConfig, plan: CrossValidation) -> list[FoldRun]:
    """Seed by seed: after the first seed every image has been tested once."""
    seeds = range(config.seed, config.seed + plan.seeds)
    return [FoldRun(fold, seed, fold_name(fold, seed)) for seed in seeds for fold in range(plan.folds)]


def check_fold(fold: int | None, plan: CrossValidation) -> None:
    if fold is not None and not 0 <= fold < plan.folds:
        raise UsageError(f"fold: expected 0 to {plan.folds - 1}, as there are {plan.folds} folds, got {fold}")


def open_folder(config: RunConfig, plan: CrossValidation, out: Path | None) -> Path:
    """The folder with config.yaml and splits.json, new or of the same cross-validation. Data are read first."""
    if config.split == "official":
        raise UsageError("split: folds take the place of the official lists; leave out --split official")
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
    """The same for the same settings, so that a repeated command, on another machine too, finds what there is."""
    settings = _comparable(config, plan) | {"classes": config.classes}
    if plan.of == "boxes":  # as in earlier versions, which knew no other
        del settings["of"]
    for name, default in _NEW_DATA_OPTIONS.items():
        if settings[name] == default:
            del settings[name]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return RUNS / f"{config.method}-{plan.folds}-folds-{digest[:8]}"


def _comparable(config: RunConfig, plan: CrossValidation) -> dict[str, Any]:
    """All settings that make up a cross-validation, but those of the machine and what may grow."""
    settings = config.model_dump(mode="json", exclude={*_OF_THE_MACHINE, "classes", "options"})
    return settings | config.options | plan.model_dump(exclude={"seeds"})


def _add_seeds(folder: FoldsDirectory, config: RunConfig, plan: CrossValidation) -> None:
    """Refuse other settings than the folder's; more seeds are fine."""
    old_config, old_plan = folder.load()
    old, new = _comparable(old_config, old_plan), _comparable(config, plan)
    if config.classes is not None:
        old["classes"], new["classes"] = old_config.classes, config.classes
    if plan.seeds < old_plan.seeds:
        old["seeds"], new["seeds"] = old_plan.seeds, plan.seeds
    for name in new:
        if old[name] != new[name]:
            raise UsageError(
                f"out: {folder.path} has {name} {old[name]}, not {new[name]}; choose another folder, or go on with its "
                f"own settings: --resume {shlex.quote(str(folder.path))}"
            )
    if plan.seeds > old_plan.seeds:
        folder.save(old_config, plan)


def _check_splits(folder: FoldsDirectory, splits: FoldSplits, plan: CrossValidation, records: Sequence[Record]) -> None:
    pairs = {"folds": (len(splits.folds), plan.folds), "by": (splits.by, plan.by), "of": (splits.of, plan.of)}
    for name, (in_file, wanted) in pairs.items():
        if in_file != wanted:
            raise UsageError(f"{folder.splits} has {name} {in_file}, not {wanted}; correct one of the two")
    try:
        splits.check(records)
    except CxrfastError as error:
        raise CxrfastError(f"{folder.splits}: {error}") from None


def _classes_of_all_folds(config: RunConfig, splits: FoldSplits, source: DataSource) -> list[str]:
    """Those that are asked for, or all that training images of every fold show."""
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
        logger.info(f"left out, not in the training images of every fold: {', '.join(sorted(found - set(common)))}")
    if not common:
        raise CxrfastError(f"data: no class is in the training images of every fold of {config.data}")
    return common


def read_splits(folder: FoldsDirectory, config: RunConfig) -> tuple[FoldSplits, list[Record]]:
    records = list(read_data(config.data, config.data_options).records)
    splits = FoldSplits.load(folder.splits)
    _check_splits(folder, splits, folder.load()[1], records)
    return splits, records
