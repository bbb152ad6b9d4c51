"""`train` starts a run, `resume` continues one."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric

from cxrfast._logging import get_logger, quiet
from cxrfast.data import Splits
from cxrfast.devices import Device, make_fabric
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.methods import Method, MethodOptions, get_method
from cxrfast.methods.base import EpochBatches
from cxrfast.runs.directory import RunDirectory, new_run, open_run, write_environment
from cxrfast.training.checkpoint import load_checkpoint
from cxrfast.training.config import RunConfig, build_config, save_config
from cxrfast.training.loop import Trainer
from cxrfast.training.preparation import PreparedData, prepare_data
from cxrfast.training.schedule import Leg, plan_legs

logger = get_logger(__name__)


def train(
    config: RunConfig,
    out: Path | None = None,
    *,
    splits: Splits | None = None,
    restart: bool = False,
    within: Path | None = None,
) -> RunDirectory:
    """Train a new model in a new folder, and return the folder. The data are read before anything is written.

    Args:
        splits: replace the split that `config` describes.
        restart: accept a folder whose run has finished no epoch.
        within: folder of the cross-validation that the run belongs to. After an interruption, the user is told to
            resume it instead of the run.
    """
    fabric = make_fabric(config.device, config.precision)
    fabric.launch()
    _check_frozen(config)
    data = prepare_data(config, splits)
    config = config.model_copy(update={"classes": list(data.class_names), "data": config.data.absolute()})
    method = _new_method(config, data)
    sampler = _batch_sampler(config, data, method, fabric)
    run = _shared_folder(fabric, out, config.method, restart)
    if fabric.is_global_zero:
        for note in data.notes:
            logger.info(note)
        logger.info(f"{method.title}: {_start(config, method)}, into {run.path}")
        save_config(config, run.config)
        data.splits.save(run.splits)
        write_environment(run)
    _fit(Trainer(config, run, data, method, fabric, sampler), within)
    return run


def resume(
    path: Path,
    *,
    device: Device | None = None,
    workers: int | None = None,
    within: Path | None = None,
) -> RunDirectory:
    """Continue an interrupted run after its last finished epoch, with the settings in its folder.

    A run without a finished epoch starts again and gives the same numbers. `within` is as for :func:`train`.
    """
    run = open_run(path)
    config = build_config(run.read_config())
    changes = {name: value for name, value in (("device", device), ("workers", workers)) if value is not None}
    config = config.model_copy(update=changes)
    state = load_checkpoint(run.checkpoint) if run.checkpoint.exists() else None
    if state is not None and state["method"] != config.method:
        raise CxrfastError(
            f"resume: expected a checkpoint of method {config.method!r}, as in config.yaml, got {state['method']!r} in "
            f"{run.checkpoint}"
        )
    fabric = make_fabric(config.device, config.precision)
    fabric.launch()
    data = prepare_data(config, Splits.load(run.splits), config.classes)
    if state is None:
        logger.info(f"{run.path}: no finished epoch; starting again")
        method = _new_method(config, data)
        sampler = _batch_sampler(config, data, method, fabric)
        _fit(Trainer(config, run, data, method, fabric, sampler), within)
        return run
    method = get_method(config.method)(data.class_names, config.image_size, _without_pretrained(config))
    stages = method.stages(config.epochs)
    legs = plan_legs(stages, config)
    if _at_end(state, legs):
        logger.info(f"{run.path}: nothing to do; all {stages[-1].epochs} epochs of the last stage are finished")
        return run
    leg = legs[state["leg"]]
    branch = f", with the learning rate divided after epoch {leg.divided_after}" if leg.divided_after else ""
    logger.info(f"{run.path}: resuming after epoch {state['epoch']} of stage {stages[leg.stage].name}{branch}")
    sampler = _batch_sampler(config, data, method, fabric)
    _fit(Trainer(config, run, data, method, fabric, sampler), within, resume=True)
    return run


def _start(config: RunConfig, method: Method) -> str:
    """The network and its initial weights, as one line for the log."""
    size = sum(parameter.numel() for parameter in method.parameters()) / 1e6
    backbone = config.options.get("backbone")
    weights = "pretrained" if config.options.get("pretrained") else "random weights"
    parts = [f"{size:.1f} M parameters", backbone, weights, "frozen" if method.frozen else None]
    return ", ".join(part for part in parts if part)


def _check_frozen(config: RunConfig) -> None:
    if config.options.get("freeze_backbone") and not config.options.get("pretrained"):
        raise UsageError(
            "freeze-backbone: expected pretrained weights, got random ones; add --pretrained imagenet or a weights file"
        )


def is_finished(run: RunDirectory) -> bool:
    """Whether the last epoch of the last stage is finished."""
    if not (run.exists and run.checkpoint.is_file()):
        return False
    config = build_config(run.read_config())
    network = get_method(config.method)(config.classes or (), config.image_size, _without_pretrained(config))
    return _at_end(load_checkpoint(run.checkpoint), plan_legs(network.stages(config.epochs), config))


def _at_end(state: Mapping[str, Any], legs: Sequence[Leg]) -> bool:
    return (state["leg"], state["epoch"]) >= (len(legs) - 1, legs[-1].last)


def _batch_sampler(config: RunConfig, data: PreparedData, method: Method, fabric: Fabric) -> EpochBatches | None:
    # The first process of a machine goes first and writes a cache beside the data; the others read it, without logging
    with fabric.rank_zero_first(local=True), quiet(when=not fabric.is_global_zero):
        return method.batch_sampler(
            data.records["train"],
            config.data,
            batch_size=config.batch_size,
            seed=config.seed,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )


def _shared_folder(fabric: Fabric, out: Path | None, method: str, restart: bool) -> RunDirectory:
    """The folder of the new run, created by the first process and broadcast to the others."""
    path = new_run(out, method, restart=restart).path if fabric.is_global_zero else None
    return RunDirectory(cast(Path, fabric.broadcast(path)))


def _fit(trainer: Trainer, within: Path | None, *, resume: bool = False) -> None:
    try:
        trainer.fit(resume=resume)
    except KeyboardInterrupt:
        path = shlex.quote(str(within or trainer.run.path))
        logger.info(f"\ninterrupted; finished epochs are kept. Resume with: cxrfast train --resume {path}")
        raise


def _new_method(config: RunConfig, data: PreparedData) -> Method:
    torch.manual_seed(config.seed)
    method = get_method(config.method)(data.class_names, config.image_size, config.method_options())
    method.before_training(data.records["train"])
    return method


def _without_pretrained(config: RunConfig) -> MethodOptions:
    # The checkpoint replaces every weight, so that nothing has to be downloaded.
    options = config.method_options()
    return options.model_copy(update={"pretrained": False}) if hasattr(options, "pretrained") else options
