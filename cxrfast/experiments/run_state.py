"""How far a run has come, for whatever does runs one after the other: cross-validation, published tables, the study."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from cxrfast.data import Splits
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation import PROTOCOLS, CrossValidationRecord, EvaluationRecord, Protocol
from cxrfast.experiments.folds_directory import take_section
from cxrfast.runs.directory import RunDirectory
from cxrfast.training import RunConfig, build_config, resume, train
from cxrfast.training.train import is_finished


class RunState(StrEnum):
    """How far a run has come."""

    NEW = "new"  # no epoch is done
    STARTED = "started"  # an epoch is done, but not the last one
    TRAINED = "trained"
    EVALUATED = "evaluated"  # by every protocol that was asked for


def run_state(run: RunDirectory, evaluations: Mapping[str, RunDirectory]) -> RunState:
    """How far the run in a folder has come.

    Args:
        evaluations: by the name of the protocol, the folder that the evaluation by it is written to.
    """
    if is_evaluated(run, evaluations):
        return RunState.EVALUATED
    if not (run.exists and run.splits.is_file() and run.checkpoint.is_file()):
        return RunState.NEW
    return RunState.TRAINED if is_finished(run) else RunState.STARTED


def is_evaluated(run: RunDirectory, evaluations: Mapping[str, RunDirectory]) -> bool:
    """Whether there are results by each of the protocols, of the weights after the last epoch."""
    return all(_is_evaluated(run, folder, PROTOCOLS[name]) for name, folder in evaluations.items())


def _is_evaluated(run: RunDirectory, folder: RunDirectory, protocol: Protocol) -> bool:
    results = folder.evaluation()
    if not (results.is_file() and folder.predictions().is_file() and _is_by(protocol, results)):
        return False
    if folder.path != run.path:  # written by this program, which waits for the last epoch
        return True
    # `cxrfast evaluate` writes into the run's own folder, also while training goes on.
    return is_finished(run) and results.stat().st_mtime >= run.checkpoint.stat().st_mtime


def _is_by(protocol: Protocol, results: Path) -> bool:
    """By this protocol, with its own T. A file that cannot be read is made again."""
    try:
        record = EvaluationRecord.load(results)
    except CxrfastError:
        return False
    found = record.localization
    expected = [list(criterion.thresholds) for _ in protocol.gates for criterion in protocol.criteria]
    return record.protocol == protocol.name and (
        found is None or [[row.T for row in table.rows] for table in found.tables] == expected
    )


def is_pooled(folder: RunDirectory, protocol: str, folds: int) -> bool:
    """Whether all runs of a cross-validation are done, and pooled by the protocol."""
    try:
        record = CrossValidationRecord.load(folder.pooled)
    except CxrfastError:
        return False
    return record.complete and record.protocol == protocol and record.folds == folds


def finish_training(
    run: RunDirectory,
    state: RunState,
    config: RunConfig,
    *,
    splits: Splits | None = None,
    within: Path | None = None,
) -> None:
    """Train what is not trained yet; arguments as for :func:`cxrfast.training.train`."""
    if state == RunState.NEW:
        train(config, run.path, splits=splits, restart=True, within=within)
    elif state == RunState.STARTED:
        resume(run.path, device=config.device, workers=config.workers, within=within)


def refuse_other_settings(run: RunDirectory, wanted: RunConfig, *, folds: int | None = None) -> None:
    """A folder of other settings is neither skipped nor gone on with.

    Args:
        wanted: the settings; where they may differ, see :meth:`~cxrfast.training.RunConfig.first_difference`.
        folds: of a cross-validation, whose folds take the place of `split` and `val_share`; None: of a single run.

    Raises UsageError that names the first difference.
    """
    if not run.exists:
        return
    settings: dict[str, Any] = run.read_config()
    section = take_section(settings)
    before = build_config(settings)
    if folds is not None:
        wanted = wanted.model_copy(update={"split": before.split, "val_share": before.val_share})
    different = before.first_difference(wanted)
    if different is None and section.get("folds") != folds:
        different = f"folds {section.get('folds')}, not {folds}"
    if different is not None:
        raise UsageError(f"out: {run.path} is a run with {different}; choose another folder with --out")
