"""A table of a paper: names its runs, does those that are not finished, and compares."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrfast._files import write_text
from cxrfast.data import read_chestxray14
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation import CrossValidationRecord, EvaluationRecord
from cxrfast.experiments.cross_validation import cross_validate
from cxrfast.experiments.evaluate_run import evaluate_run
from cxrfast.experiments.reproduction.comparison import ComparedRow, ComparedTable, State, compare_row
from cxrfast.experiments.reproduction.deviations import Deviations, deviations_of
from cxrfast.experiments.reproduction.interface import Say
from cxrfast.experiments.reproduction.numbers import Numbers, numbers_of
from cxrfast.experiments.reproduction.plans import PlannedRun, TablePlan, TableRow
from cxrfast.experiments.reproduction.settings import LABELS, Overrides, run_config
from cxrfast.experiments.reproduction.text import settings_lines, to_markdown, to_text
from cxrfast.runs.settings import load_config
from cxrfast.training import RunConfig, build_config, resume, train

_FACTS = (
    "label_version", "n_images", "n_patients", "shared_patients", "split_hash", "splits_hash", "images_hash",
    "classes_left_out",
)  # fmt: skip


@dataclass(frozen=True)
class _Job:
    """A row with everything that its run needs."""

    row: TableRow
    run: PlannedRun
    config: RunConfig
    folder: Path
    folds: int
    deviations: Deviations


@dataclass(frozen=True)
class Reproduction:
    """The comparison, and where it was written."""

    table: ComparedTable
    markdown: Path
    report: Path

    @property
    def text(self) -> str:
        return to_text(self.table)

    @property
    def written(self) -> tuple[Path, ...]:
        return self.markdown, self.report

    @property
    def failed(self) -> bool:
        return any(row.state == "failed" for row in self.table.rows)


def run_table(
    plan: TablePlan,
    data: Path,
    out: Path,
    *,
    rows: Sequence[str] | None = None,
    overrides: Overrides | None = None,
    say: Say = print,
) -> Reproduction:
    """Run the rows of a paper's table that are not finished, and compare them with what is published.

    Runs lie in ``out/runs/NAME``, so that tables share them; the same call again goes on where it was interrupted, and
    skips what is finished. A row that fails does not keep the others from running. Writes ``out/TABLE.md`` and
    ``out/TABLE.json``.

    Raises UsageError for unknown names and settings, and for a folder with runs of other settings, before anything
    runs.
    """
    overrides = overrides or Overrides()
    chosen = plan.choose(rows)
    jobs = _prepare(plan, chosen, Path(data), out, overrides)
    _announce(plan, chosen, jobs, say)
    compared = []
    for row in chosen:
        job = jobs.get(row.name)
        if job is None:
            compared.append(
                ComparedRow(row.name, row.title, "published only", None, None, {}, (), None, compare_row(plan, row, ()))
            )
            continue
        compared.append(_compared(plan, job, say))
    result = ComparedTable(plan.name, plan.title, plan.protocol, plan.note, tuple(compared))
    return _write(result, out)


def _prepare(
    plan: TablePlan, chosen: Sequence[TableRow], data: Path, out: Path, overrides: Overrides
) -> dict[str, _Job]:
    runs = [row.run for row in chosen if row.run is not None]
    overrides.check(runs)
    source = read_chestxray14(data, labels=str(overrides.settings.get("labels", LABELS))) if runs else None
    jobs = {}
    for row in chosen:
        if row.run is None:
            continue
        config, folds = run_config(row.run, plan, data, overrides), overrides.folds_of(plan)
        differs = deviations_of(row.run, config, plan, folds, source)
        job = _Job(row, row.run, config, out / "runs" / row.run.name, folds, differs)
        _check_folder(job)
        jobs[row.name] = job
    return jobs


def _check_folder(job: _Job) -> None:
    """A folder of other settings is neither skipped nor gone on with."""
    saved = job.folder / "config.yaml"
    if not saved.is_file():
        return
    content = load_config(saved)
    folds = content.pop("cross_validation", {}).get("folds")
    before = build_config(content)
    own: dict[str, Any] = {"split": before.split}
    if job.run.cross_validated:  # the folds have theirs, and the protocol says what validates in them
        own["val_share"] = before.val_share
    different = before.first_difference(job.config.model_copy(update=own))
    if different is None and folds != (wanted := job.folds if job.run.cross_validated else None):
        different = f"folds {folds}, not {wanted}"
    if different is not None:
        raise UsageError(f"out: {job.folder} is a run with {different}; choose another folder with --out")


def _announce(plan: TablePlan, chosen: Sequence[TableRow], jobs: dict[str, _Job], say: Say) -> None:
    say(f"{plan.title}\nprotocol {plan.protocol}" + (f"; {plan.note}" if plan.note else ""))
    for row in chosen:
        job = jobs.get(row.name)
        if job is None:
            say(f"  {row.name}: {row.title}")
            continue
        how = "published lists"
        if job.run.unannotated is not None:
            how = f"{job.folds} folds by {plan.folds_by}, {job.run.unannotated:.0%} of the unannotated images"
        options = " ".join(f"{name}={value}" for name, value in job.run.options.items())
        say(
            f"  {row.name}: {row.title}; method {job.run.method}{' ' + options if options else ''}, {how}, "
            f"{job.config.epochs} epochs at {job.config.image_size} pixels, in {job.folder} ({_state(plan, job)})"
        )
    texts, unchecked = dict[str, tuple[str, ...]](), dict[str, tuple[str, ...]]()
    for name, job in jobs.items():
        for text in job.deviations.texts:
            texts[text] = (*texts.get(text, ()), name)
        if job.deviations.unchecked is not None:
            unchecked[job.deviations.unchecked] = (*unchecked.get(job.deviations.unchecked, ()), name)
    for line in settings_lines(texts, unchecked, len(jobs)):
        say(line)


def _state(plan: TablePlan, job: _Job) -> str:
    if _finished(plan, job):
        return "finished"
    return "to go on" if (job.folder / "config.yaml").is_file() else "to do"


def _evaluation(plan: TablePlan, job: _Job) -> Path:
    if job.run.cross_validated:
        return job.folder / "cross-validation.json"
    return job.folder / "evaluations" / plan.protocol / "evaluation-test.json"


def _read(plan: TablePlan, job: _Job) -> EvaluationRecord | CrossValidationRecord:
    kind = CrossValidationRecord if job.run.cross_validated else EvaluationRecord
    return kind.load(_evaluation(plan, job))


def _finished(plan: TablePlan, job: _Job) -> bool:
    path = _evaluation(plan, job)
    if not path.is_file():
        return False
    try:
        record = _read(plan, job)
    except CxrfastError:
        return False  # damaged, or of an earlier version: the trained run is evaluated again
    if isinstance(record, EvaluationRecord):
        return True
    return record.complete and record.protocol == plan.protocol and record.folds == job.folds


def _compared(plan: TablePlan, job: _Job, say: Say) -> ComparedRow:
    row = job.row
    state: State = "done"
    reason, facts, numbers, differs = None, {}, list[Numbers](), job.deviations.texts
    try:
        if _finished(plan, job):
            say(f"{row.name}: finished before")
        else:
            say(f"{row.name}: into {job.folder}")
            _run(plan, job, lambda line: say(f"  {line}"))
        record = _read(plan, job)
        facts = {name: value for name in _FACTS if (value := getattr(record, name, None)) is not None}
        evaluated = record.runs if isinstance(record, CrossValidationRecord) else (record,)
        facts["unreadable"] = sum(len(of.unreadable) for of in evaluated)
        if facts.get("classes_left_out"):
            differs = (*differs, f"without {', '.join(facts['classes_left_out'])}")
        numbers = list(numbers_of(record))
    except CxrfastError as error:
        state, reason = "failed", str(error)
        say(f"{row.name}: failed: {reason}")
    except KeyboardInterrupt:
        say(f"interrupted in {shlex.quote(str(job.folder))}; what is finished is kept: the same command goes on")
        raise
    comparisons = compare_row(plan, row, numbers)
    folder, unchecked = str(job.folder), job.deviations.unchecked
    return ComparedRow(row.name, row.title, state, reason, folder, facts, differs, unchecked, comparisons)


def _run(plan: TablePlan, job: _Job, say: Say) -> None:
    """Train, or go on, and evaluate."""
    config, folder = job.config, job.folder
    if job.run.cross_validated:
        assert job.run.unannotated is not None
        cross_validate(
            config,
            folds=job.folds,
            unannotated=job.run.unannotated,
            protocol=plan.protocol,
            by=plan.folds_by,
            val_share=config.val_share,
            out=folder,
            say=say,
        )
        return
    if (folder / "config.yaml").is_file():
        resume(folder, device=config.device, workers=config.workers, say=say)
    else:
        train(config, folder, say=say)
    evaluate_run(
        folder,
        protocol=plan.protocol,
        batch_size=config.batch_size,
        workers=config.workers,
        device=config.device,
        out=_evaluation(plan, job).parent,
    )


def _write(result: ComparedTable, out: Path) -> Reproduction:
    markdown, report = out / f"{result.name}.md", out / f"{result.name}.json"
    write_text(markdown, to_markdown(result))
    write_text(report, json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n")
    return Reproduction(result, markdown, report)
