"""`train` starts a run, `resume` continues one."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric

from cxrfast._files import remove_stale
from cxrfast._logging import get_logger, quiet
from cxrfast.data import Splits
from cxrfast.devices import Device, make_fabric
from cxrfast.errors import CxrfastError, Interrupted, UsageError
from cxrfast.methods import Method, MethodOptions, get_method
from cxrfast.methods.base import EpochBatches
from cxrfast.runs.directory import RunDirectory, new_run, open_run, write_environment
from cxrfast.runs.lock import locked
from cxrfast.training.checkpoint import best_is_last, holds, load_checkpoint, partial_state
from cxrfast.training.config import RunConfig, build_config, save_config
from cxrfast.training.fingerprint import Fingerprint
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
    verify: bool = False,
) -> RunDirectory:
    """Train a new model in a new folder, and return the folder. The data are read before anything is written.

    Args:
        splits: replace the split that `config` describes.
        restart: accept a folder whose run has finished no epoch.
        within: folder of the cross-validation that the run belongs to. After an interruption, the user is told to
            resume it instead of the run.
        verify: keep hashes of the content of all images, not only of a sample, for the comparison on resume.
    """
    fabric = make_fabric(config.device, config.precision)
    fabric.launch()
    _check_frozen(config)
    data = prepare_data(config, splits)
    config = config.model_copy(update={"classes": list(data.class_names), "data": config.data.absolute()})
    method = _new_method(config, data)
    sampler = _batch_sampler(config, data, method, fabric)
    run = _shared_folder(fabric, out, config.method, restart)
    with _alone(run, fabric):
        if fabric.is_global_zero:
            for note in data.notes:
                logger.info(note)
            logger.info(f"{method.title}: {_start(config, method)}, into {run.path}")
            _begin(run, config, data, verify)
        _fit(Trainer(config, run, data, method, fabric, sampler), within)
    return run


def resume(
    path: Path,
    *,
    device: Device | None = None,
    workers: int | None = None,
    within: Path | None = None,
    verify: bool = False,
) -> RunDirectory:
    """Continue an interrupted run after its last finished epoch, or after the batch at which a signal stopped it.

    Settings are those in the folder of the run. A run without a finished epoch starts again and gives the same numbers.
    `within` is as for :func:`train`. With `verify`, all images whose content the run knows are compared.

    Raises:
        CxrfastError: data or settings are not those that the run began with, another process trains in the folder, or a
            file of the run cannot be read.
    """
    run = open_run(path)
    config = build_config(run.read_config())
    changes = {name: value for name, value in (("device", device), ("workers", workers)) if value is not None}
    config = config.model_copy(update=changes)
    fabric = make_fabric(config.device, config.precision)
    fabric.launch()
    with _alone(run, fabric):
        _go_on(run, config, fabric, within, verify)
    return run


def _go_on(run: RunDirectory, config: RunConfig, fabric: Fabric, within: Path | None, verify: bool) -> None:
    """Continue the run in a folder that no other process uses."""
    finished = load_checkpoint(run.checkpoint) if run.checkpoint.exists() else None
    state = _partial(run, config, fabric, finished) or finished
    if state is not None and state["method"] != config.method:
        raise CxrfastError(
            f"resume: expected a checkpoint of method {config.method!r}, as in config.yaml, got {state['method']!r} in "
            f"{run.checkpoint}"
        )
    # Without the file, an earlier version was killed before it wrote it: the split is made again.
    splits = Splits.load(run.splits) if state is not None or run.splits.exists() else None
    data = prepare_data(config, splits, config.classes)
    _compare(run, config, data, fabric, verify)
    if state is None:
        logger.info(f"{run.path}: no finished epoch; starting again")
        if splits is None and fabric.is_global_zero:
            data.splits.save(run.splits)
        method = _new_method(config, data)
        sampler = _batch_sampler(config, data, method, fabric)
        _fit(Trainer(config, run, data, method, fabric, sampler), within)
        return
    method = get_method(config.method)(data.class_names, config.image_size, _without_pretrained(config))
    stages = method.stages(config.epochs)
    legs = plan_legs(stages, config)
    if _at_end(state, legs):
        # The loop still completes the files of a run that was killed after its last checkpoint.
        logger.info(f"{run.path}: nothing to do; all {stages[-1].epochs} epochs of the last stage are finished")
    else:
        leg = legs[state["leg"]]
        branch = f", with the learning rate divided after epoch {leg.divided_after}" if leg.divided_after else ""
        batch = f" and batch {state['progress']['batches']} of the next" if "progress" in state else ""
        logger.info(
            f"{run.path}: resuming after epoch {state['epoch']}{batch} of stage {stages[leg.stage].name}{branch}"
        )
    sampler = _batch_sampler(config, data, method, fabric)
    trainer = Trainer(config, run, data, method, fabric, sampler)
    if finished is not None:
        trainer.complete_files(finished)
    _fit(trainer, within, state)


def _partial(
    run: RunDirectory, config: RunConfig, fabric: Fabric, finished: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The state within the epoch that a signal stopped; None if there is none from which the epoch can go on."""
    state = partial_state(run.partial, finished)
    if state is None:
        return None
    progress = state["progress"]
    processes, workers = len(progress["totals"]), progress["workers"]
    if processes != fabric.world_size:
        other = f"processes: {processes} before, {fabric.world_size} now"
    elif config.augment and config.workers != workers:
        other = f"workers: {workers} before, {config.workers} now"
    else:
        return state
    logger.info(f"{other}; the epoch that was stopped after batch {progress['batches']} starts again")
    return None


def _begin(run: RunDirectory, config: RunConfig, data: PreparedData, verify: bool) -> None:
    """Write what describes a new run. `config.yaml` comes last: with it the run exists, and can be resumed."""
    for path in (run.partial, run.checkpoint, run.metrics):  # of the run that this one replaces
        path.unlink(missing_ok=True)
    data.splits.save(run.splits)
    Fingerprint.of(config, data, verify=verify).save(run.fingerprint)
    write_environment(run)
    save_config(config, run.config)


def _compare(run: RunDirectory, config: RunConfig, data: PreparedData, fabric: Fabric, verify: bool) -> None:
    """Raise CxrfastError if data or settings are not those that the run began with."""
    if not run.fingerprint.exists():
        logger.info(
            f"{run.path} has no fingerprint.json, as runs of earlier versions: whether data or settings have changed "
            "since it began is not known"
        )
        return
    before = Fingerprint.load(run.fingerprint)
    before.check(config, data, verify=verify)
    if verify and not before.is_complete:
        logger.info(
            f"verify: the run knows the content of {len(before.contents)} images only; it began without --verify"
        )


@contextmanager
def _alone(run: RunDirectory, fabric: Fabric) -> Iterator[None]:
    """Let no other process train in the folder, and remove what killed ones have left there."""
    if not fabric.is_global_zero:
        yield
        return
    with locked(run.lock):
        remove_stale(run.path, run.weights, run.forks)
        yield


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
    """Whether the last epoch of the last stage is finished, and its weights are written."""
    if not (run.exists and run.checkpoint.is_file()):
        return False
    config = build_config(run.read_config())
    network = get_method(config.method)(config.classes or (), config.image_size, _without_pretrained(config))
    state = load_checkpoint(run.checkpoint)
    if not _at_end(state, plan_legs(network.stages(config.epochs), config)):
        return False
    return "rows" not in state or (holds(run.best, state) if best_is_last(state) else run.best.is_file())


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


def _fit(trainer: Trainer, within: Path | None, state: dict[str, Any] | None = None) -> None:
    try:
        trainer.fit(state)
    except KeyboardInterrupt as error:
        path = shlex.quote(str(within or trainer.run.path))
        kept = str(error) if isinstance(error, Interrupted) else "interrupted; finished epochs are kept"
        logger.info(f"\n{kept}. Resume with: cxrfast train --resume {path}")
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
