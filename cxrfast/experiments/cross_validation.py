"""Cross-validation: trains and evaluates a run for every fold and seed, in one folder, and pools the results."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

from lightning_fabric import Fabric

from cxrfast._logging import get_logger, once, printable, quiet
from cxrfast.data import FoldsBy, FoldsOf, FoldSplits, Record, Splits
from cxrfast.devices import Device, make_fabric
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation import CrossValidationHead, FoldEvaluation, PooledResult, find_protocol, pool
from cxrfast.evaluation.cross_validation.fold_evaluation import one_of_each_fold
from cxrfast.experiments.evaluate_run import evaluate_run
from cxrfast.experiments.folds_directory import (
    CrossValidation,
    FoldRun,
    FoldsDirectory,
    all_runs,
    build_cross_validation,
    check_fold,
    open_folder,
    read_splits,
    with_val_share,
)
from cxrfast.experiments.run_state import RunState, finish_training, is_evaluated, run_state
from cxrfast.report import write_folds
from cxrfast.report.terminal import cross_validation_to_text
from cxrfast.runs.directory import RunDirectory
from cxrfast.training.config import RunConfig
from cxrfast.training.train import is_finished

logger = get_logger(__name__)


class PooledAssessment(NamedTuple):
    """Pooled results, and the file they were written to."""

    result: PooledResult
    report: Path


def cross_validate(
    config: RunConfig,
    *,
    folds: int = 5,
    seeds: int = 1,
    unannotated: float = 1.0,
    protocol: str = "strict",
    by: FoldsBy | None = None,
    of: FoldsOf = "boxes",
    val_share: float | None = None,
    fold: int | None = None,
    out: Path | None = None,
) -> Path:
    """Train and evaluate every fold with every seed, pool the results, and return the folder.

    If `out` already contains the same cross-validation, finished runs are skipped and interrupted ones are resumed. A
    run that fails does not stop the others.

    Args:
        folds: number of folds, see :func:`cxrfast.data.make_folds`; `config.seed` is the seed of the division.
        of: "boxes" divides the images with boxes among the folds; "all" divides all images, so that each is tested
            once.
        unannotated: with `of="boxes"`, the share of the images without boxes that every fold uses for training.
        seeds: number of runs per fold, with the seeds `config.seed`, `config.seed` + 1, … It may be increased later.
        by: units of the folds, "patient" or "image". None: as in the protocol's paper, else by patient.
        val_share: validation share of the images that are not tested. None: as in the protocol's paper (no validation
            for rozenberg2019 and li2018), else `config.val_share`.
        fold: train only this fold.
        out: default: a folder under `runs/` whose name depends only on the settings. If it contains a `splits.json`,
            this file defines the folds.

    Raises:
        UsageError: settings that contradict each other or those of the folder.
        CxrfastError: splits that contradict the data or themselves; or, at the end, a run that failed.
    """
    given = {"folds": folds, "seeds": seeds, "unannotated": unannotated, "protocol": protocol, "by": by, "of": of}
    plan = build_cross_validation(given)
    check_fold(fold, plan)
    config = with_val_share(config, plan, val_share)
    fabric = make_fabric(config.device, config.precision)
    fabric.launch()
    path = open_folder(config, plan, out) if fabric.is_global_zero else None
    folder = FoldsDirectory(cast(Path, fabric.broadcast(path)))
    return _go_on(folder, fabric, fold, config.device, config.workers)


def resume_cross_validation(
    path: Path,
    *,
    fold: int | None = None,
    device: Device | None = None,
    workers: int | None = None,
) -> Path:
    """Resume the cross-validation in a folder, with the settings of the folder: all folds, or only `fold`."""
    folder = FoldsDirectory(path)
    config, plan = folder.load()
    check_fold(fold, plan)
    device = device or config.device
    fabric = make_fabric(device, config.precision)
    fabric.launch()
    return _go_on(folder, fabric, fold, device, config.workers if workers is None else workers)


def evaluate_folds(
    path: Path,
    *,
    protocol: str | None = None,
    thresholds: Sequence[float] = (),
    batch_size: int = 16,
    workers: int = 0,
    device: Device = "auto",
    out: Path | None = None,
    method: str | None = None,
    page: bool = True,
) -> PooledAssessment:
    """Evaluate every finished run of a cross-validation on its test images, and pool the results.

    The default protocol is that of the folder; `thresholds` replace its values of T. Results are written to the folder,
    or to `out`; with `page`, each with a `report.html`.
    """
    folder = FoldsDirectory(path)
    config, plan = folder.load()
    plan = plan.model_copy(update={"protocol": find_protocol(protocol or plan.protocol).name})
    finished = [run for run in all_runs(config, plan) if is_finished(folder.run(run.name))]
    if not finished:
        raise CxrfastError(
            f"{path}: expected finished runs, got none; resume training with: cxrfast train --resume {_quoted(path)}"
        )
    for run in finished:
        evaluate_run(
            folder.run(run.name).best,
            protocol=plan.protocol,
            thresholds=thresholds,
            batch_size=batch_size,
            workers=workers,
            device=device,
            out=None if out is None else out / run.name,
            method=method,
            page=page,
        )
    pooled = _pool(FoldsDirectory(out or path), config, plan, finished, *read_splits(folder, config))
    if page:
        write_folds(out or path)
    return pooled


def _go_on(folder: FoldsDirectory, fabric: Fabric, fold: int | None, device: Device, workers: int) -> Path:
    """Do all unfinished runs, then pool the results."""
    with quiet(when=not fabric.is_global_zero), once():  # notes on the data are the same for every run
        return _do_runs(folder, fabric, fold, device, workers)


def _do_runs(folder: FoldsDirectory, fabric: Fabric, fold: int | None, device: Device, workers: int) -> Path:
    """As :func:`_go_on`, with all log lines."""
    config, plan = folder.load()
    config = config.model_copy(update={"device": device, "workers": workers})
    splits, records = read_splits(folder, config)
    planned = all_runs(config, plan)
    runs = [run for run in planned if fold is None or run.fold == fold]
    done = set(_evaluated(folder, planned, plan)) if fabric.is_global_zero else set()
    failures: dict[str, CxrfastError] = {}
    for number, run in enumerate(runs, start=1):
        logger.info(f"\n{run.name} ({number} of {len(runs)})")
        try:
            _train_and_evaluate(folder, run, config, plan, splits, records, fabric)
        except UsageError:
            raise
        except CxrfastError as error:
            if fabric.world_size > 1:  # the other processes would wait for this one
                raise
            logger.warning(f"{run.name} failed: {printable(str(error))}")
            failures[run.name] = error
            continue
        if fabric.is_global_zero:  # after every run, so that an interruption leaves results
            done.add(run)
            _pool(folder, config, plan, [run for run in planned if run in done], splits, records)
    if fabric.is_global_zero:
        evaluated = _evaluated(folder, planned, plan)  # other machines may have finished runs too
        if evaluated:
            result, report = _pool(folder, config, plan, evaluated, splits, records)
            logger.info(f"\n{cross_validation_to_text(result)}\nwritten: {report}, {write_folds(folder.path)}")
    if failures:
        name, reason = next(iter(failures.items()))
        raise CxrfastError(
            f"{len(failures)} of {len(runs)} runs failed ({', '.join(failures)}); {name}: {reason}. The others are "
            f"kept; retry with: cxrfast train --resume {_quoted(folder.path)}"
        )
    return folder.path


def _train_and_evaluate(
    folder: FoldsDirectory,
    run: FoldRun,
    config: RunConfig,
    plan: CrossValidation,
    splits: FoldSplits,
    records: Sequence[Record],
    fabric: Fabric,
) -> None:
    directory = folder.run(run.name)
    parts = splits.splits(run.fold, records)
    # One process reads the state and broadcasts it, because it may change the folder before the others have read it
    state = _state(directory, plan, parts.hash) if fabric.is_global_zero else None
    state = cast(RunState, fabric.broadcast(state))
    settings = config.model_copy(update={"seed": run.seed})
    finish_training(directory, state, settings, splits=parts, within=folder.path)
    if state == RunState.EVALUATED:
        logger.info(f"{run.name}: already finished")
    elif fabric.is_global_zero:
        assessment = evaluate_run(directory.best, protocol=plan.protocol, workers=config.workers, device=config.device)
        logger.info(f"evaluated: mean AUROC {assessment.result.mean_auroc.value:.3f}, {assessment.report}")
    fabric.barrier()


def _state(run: RunDirectory, plan: CrossValidation, split_hash: str) -> RunState:
    state = run_state(run, {plan.protocol: run})
    if state != RunState.NEW and run.splits.is_file() and Splits.load(run.splits).hash != split_hash:
        raise UsageError(
            f"splits: expected the splits.json that {run.path} was trained with, got another one; restore the file, or "
            f"delete {run.path} to train it again"
        )
    return state


def _evaluated(folder: FoldsDirectory, runs: Sequence[FoldRun], plan: CrossValidation) -> list[FoldRun]:
    return [run for run in runs if is_evaluated(folder.run(run.name), {plan.protocol: folder.run(run.name)})]


def _pool(
    folder: FoldsDirectory,
    config: RunConfig,
    plan: CrossValidation,
    evaluated: Sequence[FoldRun],
    splits: FoldSplits,
    records: Sequence[Record],
) -> PooledAssessment:
    runs = []
    for run in evaluated:
        place = folder.run(run.name)
        runs.append(FoldEvaluation.load(run.name, run.fold, run.seed, place.evaluation(), place.predictions()))
    planned = all_runs(config, plan)
    missing = [run.name for run in planned if run not in evaluated]
    tested, shared = _patients(runs, splits, records)
    head = CrossValidationHead(
        protocol=plan.protocol,
        method=config.method,
        label_version=runs[0].record.label_version,
        folds=plan.folds,
        by=plan.by,
        of=plan.of,
        seeds=tuple(sorted({run.seed for run in planned})),
        unannotated=plan.unannotated,
        validation_images=tuple(len(fold.val) for fold in splits.folds),
        classes_left_out=_left_out(config, runs, records),
        splits_hash=splits.hash,
        complete=not missing,
        missing=tuple(missing),
        n_patients=len(tested),
        shared_patients=len(shared),
    )
    result = pool(runs, head)
    result.save(folder.pooled)
    return PooledAssessment(result, folder.pooled)


def _patients(
    runs: Sequence[FoldEvaluation], splits: FoldSplits, records: Sequence[Record]
) -> tuple[set[str], set[str]]:
    """Patients with test images, and those of them who also have training or validation images in the same fold."""
    patient = {record.image: record.patient for record in records}
    tested, shared = set[str](), set[str]()
    for run in one_of_each_fold(runs):
        parts, own = splits.splits(run.fold, records), set(run.predictions.patients)
        tested |= own
        shared |= own & {patient[image] for image in (*parts.train, *parts.val)}
    return tested, shared


def _left_out(config: RunConfig, runs: Sequence[FoldEvaluation], records: Sequence[Record]) -> dict[str, int]:
    """Classes of the data that the runs do not predict, with the number of their boxes in the test images.

    A class is left out by choice, or because a fold has no training images of it.
    """
    tested = {image for run in runs for image in run.predictions.images}
    boxes: dict[str, int] = {}
    for record in records:
        for name in {*record.labels, *record.boxes} - set(config.classes or ()):
            found = len(record.boxes.get(name, ())) if record.image in tested else 0
            boxes[name] = boxes.get(name, 0) + found
    return dict(sorted(boxes.items()))


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
