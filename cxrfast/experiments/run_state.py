"""The state of a run: new, started, trained or evaluated. Experiments with several runs use it to resume."""

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
    """The state of a run."""

    NEW = "new"  # no epoch is finished
    STARTED = "started"  # some epochs are finished, or a signal stopped the first one
    TRAINED = "trained"
    EVALUATED = "evaluated"  # by every requested protocol


def run_state(run: RunDirectory, evaluations: Mapping[str, RunDirectory]) -> RunState:
    """The state of the run in a folder.

    Args:
        evaluations: for each protocol, by name, the folder of its evaluation.
    """
    if is_evaluated(run, evaluations):
        return RunState.EVALUATED
    if run.exists and run.partial.is_file() and not run.checkpoint.is_file():
        return RunState.STARTED
    if not (run.exists and run.splits.is_file() and run.checkpoint.is_file()):
        return RunState.NEW
    return RunState.TRAINED if is_finished(run) else RunState.STARTED


def is_evaluated(run: RunDirectory, evaluations: Mapping[str, RunDirectory]) -> bool:
    """Whether there are results by each of the protocols, computed after the last epoch."""
    return all(_is_evaluated(run, folder, PROTOCOLS[name]) for name, folder in evaluations.items())


def _is_evaluated(run: RunDirectory, folder: RunDirectory, protocol: Protocol) -> bool:
    results = folder.evaluation()
    if not (results.is_file() and folder.predictions().is_file() and _is_by(protocol, results)):
        return False
    if folder.path != run.path:  # only written after the last epoch
        return True
    # `cxrfast evaluate` writes to the folder of the run, also during training.
    return is_finished(run) and results.stat().st_mtime >= run.checkpoint.stat().st_mtime


def _is_by(protocol: Protocol, results: Path) -> bool:
    """Whether the results are by this protocol with its default T; False for a file that cannot be read."""
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
    """Whether all runs of a cross-validation are finished, and pooled by the protocol."""
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
    """Train or resume a run that is not trained yet; arguments as for :func:`cxrfast.training.train`."""
    if state == RunState.NEW:
        train(config, run.path, splits=splits, restart=True, within=within)
    elif state == RunState.STARTED:
        resume(run.path, device=config.device, workers=config.workers, within=within)


def refuse_other_settings(run: RunDirectory, wanted: RunConfig, *, folds: int | None = None) -> None:
    """Raise UsageError, with the first difference, if the folder has a run of other settings.

    Args:
        wanted: the settings; :meth:`~cxrfast.training.RunConfig.first_difference` states which may differ.
        folds: number of folds of a cross-validation, for which `split` and `val_share` are ignored; None: a single run.
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
        raise UsageError(f"out: {run.path} has a run with {different}; choose another folder with --out")
