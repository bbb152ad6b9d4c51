"""Runs the study: draws the phantoms, does the unfinished runs, and writes the tables and the figure."""

import multiprocessing
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from cxrfast._files import write_text
from cxrfast._logging import add_console, get_logger, has_console, printable, quiet
from cxrfast.data import write_phantoms
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.experiments.evaluate_run import evaluate_run
from cxrfast.experiments.run_state import finish_training, is_evaluated, refuse_other_settings, run_state
from cxrfast.experiments.study.plan import IMAGE_SIZE, ROWS, Study, StudyRun
from cxrfast.experiments.study.plots import plot_study
from cxrfast.experiments.study.results import (
    PROTOCOLS,
    StudyOutcome,
    StudyResult,
    evaluations_of,
    read_outcome,
    summarize,
)
from cxrfast.experiments.study.text import to_markdown, write_runs
from cxrfast.runs.directory import RUNS, RunDirectory
from cxrfast.training import RunConfig, save_config
from cxrfast.training.fingerprint import Fingerprint
from cxrfast.training.train import is_finished

FOLDER = RUNS / "study"
logger = get_logger(__name__)


@dataclass(frozen=True)
class StudyFiles:
    """The results and files of a study, and the runs that failed."""

    result: StudyResult | None  # None: no run is finished
    markdown: Path
    runs: Path  # .csv
    figure: Path
    failed: Sequence[str]


def run_study(study: Study, out: Path | None = None, *, jobs: int = 1) -> StudyFiles:
    """Do the unfinished runs of `study` in `out` (default: runs/study), `jobs` in parallel.

    After an interruption, the same call resumes. A run that fails does not stop the others. Writes ``study.md``,
    ``runs.csv`` and ``study.png`` to `out`, from the finished runs.

    Raises UsageError for a folder with runs of other settings, before anything runs.
    """
    out = FOLDER if out is None else Path(out)
    cells = study.cells
    for cell in cells:
        refuse_other_settings(RunDirectory(out / cell.folder), cell.config(out, study.settings))
    _draw_phantoms(study, out)
    waiting = [cell for cell in cells if not _is_done(cell, out)]
    logger.info(f"{len(cells)} runs, {len(cells) - len(waiting)} already finished")
    try:
        failed = _run_all(waiting, study, out, max(1, min(jobs, len(waiting))))
    except KeyboardInterrupt:
        logger.info(f"interrupted in {shlex.quote(str(out))}; finished work is kept; resume with the same command")
        raise
    outcomes = [read_outcome(cell, out) for cell in cells if _is_done(cell, out)]
    files = out / "study.md", out / "runs.csv", out / "study.png"
    if not outcomes:
        return StudyFiles(None, *files, failed)
    result = summarize(study, outcomes)
    _write(result, outcomes, *files)
    return StudyFiles(result, *files, failed)


def _write(result: StudyResult, outcomes: Sequence[StudyOutcome], markdown: Path, runs: Path, figure: Path) -> None:
    write_text(markdown, to_markdown(result))
    write_runs(runs, outcomes)
    plot_study(result, figure)


def _draw_phantoms(study: Study, out: Path) -> None:
    """Draw one data set per seed, with all boxes. Each run uses its share of them."""
    for seed in study.seeds:
        folder = out / "phantoms" / f"seed-{seed}"
        if folder.is_dir():
            _check_phantoms(folder, study.images)
            continue
        logger.info(f"drawing {study.images} phantoms of seed {seed} into {folder}")
        write_phantoms(folder, images=study.images, image_size=2 * IMAGE_SIZE, boxed_fraction=1, seed=seed)


def _check_phantoms(folder: Path, images: int) -> None:
    found = sum(1 for _ in (folder / "images").glob("*.png"))
    if found != images:
        raise UsageError(f"images: expected {images}, got {found} in {folder}; choose another folder with --out")


def _is_done(cell: StudyRun, out: Path) -> bool:
    return is_evaluated(RunDirectory(out / cell.folder), evaluations_of(cell, out))


def _run_all(cells: Sequence[StudyRun], study: Study, out: Path, jobs: int) -> list[str]:
    """Do all runs, first those that others start from. Returns the titles of those that failed."""
    first = {row.begins_with for row in study.rows}
    waves = [cell for cell in cells if cell.row.name in first], [cell for cell in cells if cell.row.name not in first]
    failed = []
    done = 0
    for wave in waves:
        for cell, error in _run_wave(wave, study, out, jobs):
            done += 1
            if error:
                logger.warning(f"{done}/{len(cells)} {cell.title}: failed: {printable(str(error))}")
                failed.append(cell.title)
            else:
                logger.info(f"{done}/{len(cells)} {cell.title}")
    return failed


def _run_wave(
    cells: Sequence[StudyRun], study: Study, out: Path, jobs: int
) -> Iterator[tuple[StudyRun, str | None]]:  # with the error of a failed run
    if jobs == 1:
        for cell in cells:
            yield cell, run_cell(cell, study, out)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_begin_process, initargs=(threads, has_console())) as pool:
        futures: dict[Future, StudyRun] = {pool.submit(run_cell, cell, study, out): cell for cell in cells}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin_process(threads: int, console: bool) -> None:
    import torch

    torch.set_num_threads(threads)
    if console:
        add_console()


def run_cell(cell: StudyRun, study: Study, out: Path) -> str | None:
    """Train or resume a run, and evaluate it by each of the protocols. Returns the error, in one line, if it failed."""
    run, evaluations = RunDirectory(out / cell.folder), evaluations_of(cell, out)
    config = cell.config(out, study.settings)
    try:
        if not run.exists:
            _begin_with_another(cell, config, out)
        with quiet():
            finish_training(run, run_state(run, evaluations), config)
        for protocol, place in evaluations.items():
            evaluate_run(run.path, protocol=protocol, page=False, device=config.device, out=place.path)
    except CxrfastError as error:
        return str(error)
    return None


def _begin_with_another(cell: StudyRun, config: RunConfig, out: Path) -> None:
    """If a finished run is the first stage of this one, copy it, so that this run resumes after that stage."""
    if cell.row.begins_with is None:
        return
    other = StudyRun(ROWS[cell.row.begins_with], cell.share, cell.seed)
    source, folder = RunDirectory(out / other.folder), out / cell.folder
    if not is_finished(source):
        return
    temporary = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source.path, temporary, ignore=shutil.ignore_patterns(*PROTOCOLS))
    settings = {"classes": source.read_config()["classes"], "data": config.data.absolute()}
    config, run = config.model_copy(update=settings), RunDirectory(temporary)
    save_config(config, run.config)
    if run.fingerprint.exists():  # runs of earlier versions have none
        Fingerprint.load(run.fingerprint).with_settings(config).save(run.fingerprint)
    temporary.rename(folder)
