"""Draws the phantoms, does the runs that are not finished, and writes the tables and the figure."""

import multiprocessing
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from cxrfast._files import write_text
from cxrfast.data import write_phantoms
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.experiments.evaluate_run import evaluate_run
from cxrfast.experiments.study.plan import IMAGE_SIZE, ROWS, Cell, Study
from cxrfast.experiments.study.plots import plot_study
from cxrfast.experiments.study.results import PROTOCOLS, Outcome, StudyResult, read_evaluations, read_outcome, summarize
from cxrfast.experiments.study.text import to_markdown, write_runs
from cxrfast.runs import open_run
from cxrfast.runs.directory import RUNS
from cxrfast.runs.settings import load_config
from cxrfast.training import RunConfig, build_config, resume, save_config, train
from cxrfast.training.train import is_finished

FOLDER = RUNS / "study"
Say = Callable[[str], None]


@dataclass(frozen=True)
class StudyFiles:
    """Where a study was written, and what failed."""

    result: StudyResult | None  # None: no run is finished
    markdown: Path
    runs: Path  # .csv
    figure: Path
    failed: Sequence[str]


def run_study(study: Study, out: Path | None = None, *, jobs: int = 1, say: Say = print) -> StudyFiles:
    """Do the runs of `study` that are not finished in `out` (default: runs/study), `jobs` at a time.

    The same call again goes on where it was interrupted. A run that fails does not keep the others from running.
    Writes ``study.md``, ``runs.csv`` and ``study.png`` into `out`, of the runs that are finished.

    Raises UsageError for a folder with runs of other settings, before anything runs.
    """
    out = FOLDER if out is None else Path(out)
    cells = study.cells
    for cell in cells:
        _check_folder(cell, out, cell.config(out, study.settings))
    _draw_phantoms(study, out, say)
    waiting = [cell for cell in cells if not _is_done(cell, out)]
    say(f"{len(cells)} runs, {len(cells) - len(waiting)} finished before")
    try:
        failed = _run_all(waiting, study, out, max(1, min(jobs, len(waiting))), say)
    except KeyboardInterrupt:
        say(f"interrupted in {shlex.quote(str(out))}; what is finished is kept: the same command goes on")
        raise
    outcomes = [read_outcome(cell, out) for cell in cells if _is_done(cell, out)]
    files = out / "study.md", out / "runs.csv", out / "study.png"
    if not outcomes:
        return StudyFiles(None, *files, failed)
    result = summarize(study, outcomes)
    _write(result, outcomes, *files)
    return StudyFiles(result, *files, failed)


def _write(result: StudyResult, outcomes: Sequence[Outcome], markdown: Path, runs: Path, figure: Path) -> None:
    write_text(markdown, to_markdown(result))
    write_runs(runs, outcomes)
    plot_study(result, figure)


def _draw_phantoms(study: Study, out: Path, say: Say) -> None:
    """One data set a seed, with all boxes: a run's share of annotated images is its own."""
    for seed in study.seeds:
        folder = out / "phantoms" / f"seed-{seed}"
        if folder.is_dir():
            _check_phantoms(folder, study.images)
            continue
        say(f"drawing {study.images} phantoms of seed {seed} into {folder}")
        write_phantoms(folder, images=study.images, image_size=2 * IMAGE_SIZE, boxed_fraction=1, seed=seed)


def _check_phantoms(folder: Path, images: int) -> None:
    found = sum(1 for _ in (folder / "images").glob("*.png"))
    if found != images:
        raise UsageError(f"images: {folder} has {found}, not {images}; choose another folder with --out")


def _check_folder(cell: Cell, out: Path, wanted: RunConfig) -> None:
    """A run of other settings is neither skipped nor gone on with."""
    saved = out / cell.folder / "config.yaml"
    if not saved.is_file():
        return
    different = build_config(load_config(saved)).first_difference(wanted)
    if different is not None:
        raise UsageError(f"out: {saved.parent} is a run with {different}; choose another folder with --out")


def _is_done(cell: Cell, out: Path) -> bool:
    try:
        read_evaluations(out / cell.folder)
    except CxrfastError:
        return False  # missing, damaged, or of an earlier version: the run is evaluated again
    return True


def _run_all(cells: Sequence[Cell], study: Study, out: Path, jobs: int, say: Say) -> list[str]:
    """Those that others begin with go first. Returns what failed."""
    first = {row.begins_with for row in study.rows}
    waves = [cell for cell in cells if cell.row.name in first], [cell for cell in cells if cell.row.name not in first]
    failed = []
    done = 0
    for wave in waves:
        for cell, error in _run_wave(wave, study, out, jobs):
            done += 1
            say(f"{done}/{len(cells)} {cell.title}" + (f": failed: {error}" if error else ""))
            if error:
                failed.append(cell.title)
    return failed


def _run_wave(
    cells: Sequence[Cell], study: Study, out: Path, jobs: int
) -> Iterator[tuple[Cell, str | None]]:  # with what went wrong
    if jobs == 1:
        for cell in cells:
            yield cell, run_cell(cell, study, out)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_set_threads, initargs=(threads,)) as pool:
        futures: dict[Future, Cell] = {pool.submit(run_cell, cell, study, out): cell for cell in cells}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def run_cell(cell: Cell, study: Study, out: Path) -> str | None:
    """Train, or go on, and evaluate by each of the protocols; what went wrong, in one line."""
    folder = out / cell.folder
    config = cell.config(out, study.settings)
    try:
        if not (folder / "config.yaml").is_file() and not _begin_with_another(cell, config, study, out):
            train(config, folder, restart=True, say=_silently)
        elif not is_finished(open_run(folder)):
            resume(folder, device=config.device, workers=config.workers, say=_silently)
        for protocol in PROTOCOLS:
            evaluate_run(folder, protocol=protocol, page=False, device=config.device, out=folder / protocol)
    except CxrfastError as error:
        return str(error)
    return None


def _begin_with_another(cell: Cell, config: RunConfig, study: Study, out: Path) -> bool:
    """Start from the finished run that is this one's first stage, as if this one had been interrupted after it."""
    if cell.row.begins_with is None:
        return False
    other = Cell(ROWS[cell.row.begins_with], cell.share, cell.seed)
    source, folder = out / other.folder, out / cell.folder
    if not ((source / "config.yaml").is_file() and is_finished(open_run(source))):
        return False
    temporary = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(*PROTOCOLS))
    classes = load_config(source / "config.yaml")["classes"]
    save_config(
        config.model_copy(update={"classes": classes, "data": config.data.absolute()}), temporary / "config.yaml"
    )
    temporary.rename(folder)
    resume(folder, device=config.device, workers=config.workers, say=_silently)
    return True


def _silently(line: str) -> None:
    pass
