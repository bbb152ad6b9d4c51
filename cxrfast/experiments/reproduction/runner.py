"""Runs a table of a paper: lists its runs, does the unfinished ones, and compares the results."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrfast._files import write_text
from cxrfast._logging import get_logger, indented, printable
from cxrfast.data import DataOptions, read_data
from cxrfast.errors import CxrfastError
from cxrfast.evaluation import CrossValidationRecord, EvaluationRecord
from cxrfast.experiments.cross_validation import cross_validate
from cxrfast.experiments.evaluate_run import evaluate_run
from cxrfast.experiments.reproduction.comparison import ComparedRow, ComparedTable, State, compare_row
from cxrfast.experiments.reproduction.deviations import Deviations, deviations_of
from cxrfast.experiments.reproduction.numbers import Numbers, numbers_of
from cxrfast.experiments.reproduction.plans import PlannedRow, PlannedRun, TablePlan
from cxrfast.experiments.reproduction.settings import LABELS, Overrides, run_config
from cxrfast.experiments.reproduction.text import settings_lines, to_markdown, to_text
from cxrfast.experiments.run_state import finish_training, is_evaluated, is_pooled, refuse_other_settings, run_state
from cxrfast.runs.directory import RunDirectory
from cxrfast.training import RunConfig

logger = get_logger(__name__)

_FACTS = (
    "label_version", "n_images", "n_patients", "shared_patients", "split_hash", "splits_hash", "images_hash",
    "classes_left_out",
)  # fmt: skip


@dataclass(frozen=True)
class _Job:
    """A row, with everything needed for its run."""

    row: PlannedRow
    run: PlannedRun
    config: RunConfig
    folder: RunDirectory
    folds: int
    deviations: Deviations


@dataclass(frozen=True)
class Reproduction:
    """The comparison, and the files it was written to."""

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
) -> Reproduction:
    """Do the unfinished runs of a paper's table, and compare the results with the published numbers.

    The runs are in ``out/runs/NAME``, where tables share them. After an interruption, the same call resumes and skips
    finished runs. A row that fails does not stop the others. Writes ``out/TABLE.md`` and ``out/TABLE.json``.

    Raises UsageError for unknown names and settings, and for a folder with runs of other settings, before anything
    runs.
    """
    overrides = overrides or Overrides()
    chosen = plan.choose(rows)
    jobs = _prepare(plan, chosen, Path(data), out, overrides)
    _announce(plan, chosen, jobs)
    compared = []
    for row in chosen:
        job = jobs.get(row.name)
        if job is None:
            compared.append(
                ComparedRow(row.name, row.title, "published only", None, None, {}, (), None, compare_row(plan, row, ()))
            )
            continue
        compared.append(_compared(plan, job))
    result = ComparedTable(plan.name, plan.title, plan.protocol, plan.note, tuple(compared))
    return _write(result, out)


def _prepare(
    plan: TablePlan, chosen: Sequence[PlannedRow], data: Path, out: Path, overrides: Overrides
) -> dict[str, _Job]:
    runs = [row.run for row in chosen if row.run is not None]
    overrides.check(runs)
    source = read_data(data, DataOptions(labels=str(overrides.settings.get("labels", LABELS)))) if runs else None
    jobs = {}
    for row in chosen:
        if row.run is None:
            continue
        config, folds = run_config(row.run, plan, data, overrides), overrides.folds_of(plan)
        differs = deviations_of(row.run, config, plan, folds, source)
        job = _Job(row, row.run, config, RunDirectory(out / "runs" / row.run.name), folds, differs)
        refuse_other_settings(job.folder, config, folds=folds if row.run.cross_validated else None)
        jobs[row.name] = job
    return jobs


def _announce(plan: TablePlan, chosen: Sequence[PlannedRow], jobs: dict[str, _Job]) -> None:
    logger.info(f"{plan.title}\nprotocol {plan.protocol}" + (f"; {plan.note}" if plan.note else ""))
    for row in chosen:
        job = jobs.get(row.name)
        if job is None:
            logger.info(f"  {row.name}: {row.title}")
            continue
        how = "published lists"
        if job.run.unannotated is not None:
            how = f"{job.folds} folds by {plan.folds_by}, {job.run.unannotated:.0%} of the unannotated images"
        options = " ".join(f"{name}={value}" for name, value in job.run.options.items())
        logger.info(
            f"  {row.name}: {row.title}; method {job.run.method}{' ' + options if options else ''}, {how}, "
            f"{job.config.epochs} epochs at {job.config.image_size} pixels, in {job.folder.path} ({_state(plan, job)})"
        )
    texts, unchecked = dict[str, tuple[str, ...]](), dict[str, tuple[str, ...]]()
    for name, job in jobs.items():
        for text in job.deviations.texts:
            texts[text] = (*texts.get(text, ()), name)
        if job.deviations.unchecked is not None:
            unchecked[job.deviations.unchecked] = (*unchecked.get(job.deviations.unchecked, ()), name)
    for line in settings_lines(texts, unchecked, len(jobs)):
        logger.info(line)


def _state(plan: TablePlan, job: _Job) -> str:
    if _finished(plan, job):
        return "finished"
    return "unfinished" if job.folder.exists else "not started"


def _evaluation(plan: TablePlan, job: _Job) -> Path:
    return job.folder.pooled if job.run.cross_validated else job.folder.by_protocol(plan.protocol).evaluation()


def _read(plan: TablePlan, job: _Job) -> EvaluationRecord | CrossValidationRecord:
    kind = CrossValidationRecord if job.run.cross_validated else EvaluationRecord
    return kind.load(_evaluation(plan, job))


def _finished(plan: TablePlan, job: _Job) -> bool:
    if job.run.cross_validated:
        return is_pooled(job.folder, plan.protocol, job.folds)
    return is_evaluated(job.folder, {plan.protocol: job.folder.by_protocol(plan.protocol)})


def _compared(plan: TablePlan, job: _Job) -> ComparedRow:
    row = job.row
    state: State = "done"
    reason, facts, numbers, differs = None, {}, list[Numbers](), job.deviations.texts
    try:
        if _finished(plan, job):
            logger.info(f"{row.name}: already finished")
        else:
            logger.info(f"{row.name}: into {job.folder.path}")
            with indented("  "):
                _run(plan, job)
        record = _read(plan, job)
        facts = {name: value for name in _FACTS if (value := getattr(record, name, None)) is not None}
        evaluated = record.runs if isinstance(record, CrossValidationRecord) else (record,)
        facts["unreadable"] = sum(len(of.unreadable) for of in evaluated)
        if facts.get("classes_left_out"):
            differs = (*differs, f"without {', '.join(facts['classes_left_out'])}")
        numbers = list(numbers_of(record))
    except CxrfastError as error:
        state, reason = "failed", str(error)
        logger.warning(f"{row.name}: failed: {printable(reason)}")
    except KeyboardInterrupt:
        place = shlex.quote(str(job.folder.path))
        logger.info(f"interrupted in {place}; finished work is kept; resume with the same command")
        raise
    comparisons = compare_row(plan, row, numbers)
    folder, unchecked = str(job.folder.path), job.deviations.unchecked
    return ComparedRow(row.name, row.title, state, reason, folder, facts, differs, unchecked, comparisons)


def _run(plan: TablePlan, job: _Job) -> None:
    """Train or resume a run, and evaluate it."""
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
            out=folder.path,
        )
        return
    results = folder.by_protocol(plan.protocol)
    finish_training(folder, run_state(folder, {plan.protocol: results}), config)
    evaluate_run(
        folder.path,
        protocol=plan.protocol,
        batch_size=config.batch_size,
        workers=config.workers,
        device=config.device,
        out=results.path,
    )


def _write(result: ComparedTable, out: Path) -> Reproduction:
    markdown, report = out / f"{result.name}.md", out / f"{result.name}.json"
    write_text(markdown, to_markdown(result))
    write_text(report, json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n")
    return Reproduction(result, markdown, report)
