"""A run's folder: names and readers of its files, creation of a new folder, and search for the latest one."""

import json
import platform
import shlex
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

import cxrfast
from cxrfast import _library
from cxrfast._files import read_text, remove_stale, write_text
from cxrfast._json import parse_json, read_json
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.runs.settings import CROSS_VALIDATION, load_config

RUNS = Path("runs")


@dataclass(frozen=True)
class RunDirectory:
    """The files in the folder of a run or of a cross-validation. File names are defined only here.

    - Training writes `config.yaml`, `splits.json`, `fingerprint.json`, `env.json`, `metrics.jsonl`, `last.ckpt` and
      `weights/{best,last}.safetensors`; during a search for the learning rate also `forks/`, `partial.ckpt` when a
      signal stops it within an epoch, and `run.lock` while it runs.
    - An evaluation of the test part writes `evaluation-test.json`, `predictions.csv`, `maps.npz` and `report.html`; of
      another part, the same with its name: `evaluation-val.json`, `predictions-val.csv`, …
    - `cxrfast reproduce` writes its evaluations to `evaluations/<protocol>/`.
    - `cxrfast report` of two runs writes `comparison-<other>.html`.
    - A cross-validation has `config.yaml`, `splits.json`, `cross-validation.json`, `report.html` and its runs,
      `fold-<k>/seed-<s>/`.
    """

    path: Path

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def exists(self) -> bool:
        """Whether a run, or a cross-validation, has begun here."""
        return self.config.is_file()

    # What training writes

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def splits(self) -> Path:
        return self.path / "splits.json"

    @property
    def fingerprint(self) -> Path:
        """What the data and settings were when training began."""
        return self.path / "fingerprint.json"

    @property
    def environment(self) -> Path:
        return self.path / "env.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def partial(self) -> Path:
        """The state within an epoch that a signal has stopped; deleted when the epoch is finished."""
        return self.path / "partial.ckpt"

    @property
    def lock(self) -> Path:
        """Held by the process that trains."""
        return self.path / "run.lock"

    @property
    def forks(self) -> Path:
        """Checkpoints from which the branches of a learning-rate search start; deleted after the search."""
        return self.path / "forks"

    def fork(self, stage: int, epoch: int) -> Path:
        return self.forks / f"stage-{stage}-epoch-{epoch}.ckpt"

    @property
    def weights(self) -> Path:
        """The folder of :attr:`best` and :attr:`last`."""
        return self.path / "weights"

    @property
    def best(self) -> Path:
        return self.weights / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.weights / "last.safetensors"

    # What an evaluation of one part of the data ("train", "val", "test", "all") writes

    def evaluation(self, part: str = "test") -> Path:
        return self.path / f"evaluation-{part}.json"

    def predictions(self, part: str = "test") -> Path:
        return self.path / f"predictions{_suffix(part)}.csv"

    def maps(self, part: str = "test") -> Path:
        return self.path / f"maps{_suffix(part)}.npz"

    def report(self, part: str = "test") -> Path:
        return self.path / f"report{_suffix(part)}.html"

    def evaluated_parts(self) -> set[str]:
        """The parts of the data that have an evaluation file."""
        return {path.stem.removeprefix("evaluation-") for path in self.path.glob("evaluation-*.json")}

    def by_protocol(self, protocol: str) -> "RunDirectory":
        """The folder of the evaluation by this protocol."""
        return RunDirectory(self.path / "evaluations" / protocol)

    def comparison(self, other: "RunDirectory") -> Path:
        return self.path / f"comparison-{other.name}.html"

    # What a cross-validation writes

    @property
    def pooled(self) -> Path:
        return self.path / "cross-validation.json"

    @property
    def is_cross_validation(self) -> bool:
        return self.exists and CROSS_VALIDATION in load_config(self.config)

    def run(self, name: str) -> "RunDirectory":
        """One run of the cross-validation, by its :func:`fold_name`."""
        return RunDirectory(self.path / name)

    def trained_folds(self) -> "list[RunDirectory]":
        """The runs of the cross-validation that have weights."""
        found = self.path.glob(fold_name("*", "*"))
        return [run for run in map(RunDirectory, sorted(found)) if run.best.is_file()]

    # Readers

    def read_config(self) -> dict[str, Any]:
        """The settings, not yet validated. UsageError if the file is missing, CxrfastError if it has no settings."""
        return load_config(self.config)

    def read_splits(self) -> dict[str, Any]:
        """The content of `splits.json`; empty if it is missing. (:class:`cxrfast.data.Splits` validates it.)"""
        return _read_object(self.splits)

    def read_environment(self) -> dict[str, Any]:
        """The result of :func:`environment` at the start of training, and the command; empty if the file is missing."""
        return _read_object(self.environment)

    def read_metrics(self) -> list[dict[str, Any]]:
        """One row per finished epoch, in the order of training; empty if the file is missing.

        :class:`CxrfastError` for rows that are missing, doubled or moved: a row's place is the number of its epoch.
        """
        if not self.metrics.exists():
            return []
        try:
            rows = [parse_json(line) for line in read_text(self.metrics).split("\n") if line]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("a line is no object")
            _check_order(rows)
        except (OSError, ValueError) as error:
            raise CxrfastError(
                f"{self.metrics} is damaged ({error}); delete it: it only loses the numbers of the epochs so far"
            ) from error
        return rows

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        # Rewritten whole: a resumed run drops the rows after its checkpoint, and a crash never leaves half a line.
        write_text(self.metrics, _as_lines(rows))

    def has_metrics(self, rows: list[dict[str, Any]]) -> bool:
        """Whether `metrics.jsonl` has exactly these rows."""
        try:
            return self.metrics.read_text(encoding="utf-8") == _as_lines(rows)
        except (OSError, UnicodeDecodeError):
            return False


def _as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def fold_name(fold: int | str, seed: int | str) -> str:
    """The folder of a run, relative to that of its cross-validation; also the name of the run."""
    return f"fold-{fold}/seed-{seed}"


def run_of(weights: Path) -> RunDirectory | None:
    """The run whose folder contains a weights file; None if there is none."""
    run = RunDirectory(weights.parent.parent)
    return run if run.exists else None


def _check_order(rows: Sequence[Mapping[str, Any]]) -> None:
    """ValueError unless the epochs of each stage, and of each branch of a search, stand together and count up."""
    before: dict[Any, int] = {}
    last = None
    for number, row in enumerate(rows, start=1):
        leg, epoch = (row.get("stage"), row.get("divided_after")), row.get("epoch")
        if not isinstance(epoch, int) or not all(isinstance(name, Hashable) for name in leg):
            continue
        first = (leg[1] or 0) + 1 if isinstance(leg[1] or 0, int) else 1
        expected = before.get(leg, first - 1) + 1
        if epoch != expected or (leg in before and leg != last):
            raise ValueError(f"line {number} is epoch {epoch} of stage {leg[0]}, expected epoch {expected} in order")
        before[leg], last = epoch, leg


def _suffix(part: str) -> str:
    """Files of the test part have the plain name."""
    return "" if part == "test" else f"-{part}"


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty without the file."""
    if not path.exists():
        return {}
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise CxrfastError(f"{path} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise CxrfastError(f"{path}: expected an object, got {type(content).__name__}")
    return content


def new_run(out: Path | None, method: str, *, restart: bool = False) -> RunDirectory:
    """Create the folder of a run: `out`, which must be empty unless `restart`, or `runs/<method>-<date>-<time>`."""
    out = _new_folder_name(method) if out is None else out
    _clean(RunDirectory(out))
    if not restart:
        refuse_full_folder(out)
    run = RunDirectory(out)
    make_folder(run.weights)
    return run


def _clean(run: RunDirectory) -> None:
    """Delete what killed processes have left in the folder; files that a running process writes stay."""
    remove_stale(run.path, run.weights, run.forks)


def _new_folder_name(method: str) -> Path:
    """`runs/<method>-<date>-<time>`, with a number appended if that exists."""
    stem = f"{method}-{datetime.now():%Y%m%d-%H%M%S}"
    out = RUNS / stem
    number = 2
    while out.exists():
        out = RUNS / f"{stem}-{number}"
        number += 1
    return out


def refuse_full_folder(out: Path) -> None:
    if out.is_dir() and not _only_begun(RunDirectory(out)):
        again = shlex.quote(str(out))
        raise UsageError(f"out: {out} exists and is not empty; choose another folder, or add --resume {again}")


def _only_begun(run: RunDirectory) -> bool:
    """Whether the folder is empty, or has only what a training leaves that was killed before it wrote `config.yaml`."""
    found = {path for path in run.path.iterdir() if path.suffix != ".tmp"}
    if run.weights in found and not any(run.weights.iterdir()):
        found.remove(run.weights)
    if run.lock in found:  # the files beside it were written by us
        found -= {run.lock, run.splits, run.fingerprint, run.environment}
    return not found


def make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CxrfastError(f"out: {path} cannot be created ({error.strerror}); choose another folder") from error


def open_run(path: Path) -> RunDirectory:
    """The run in the folder `path`; CxrfastError if it contains none."""
    run = RunDirectory(Path(path))
    _clean(run)
    if not run.exists:
        raise CxrfastError(f"{path} is not a run of cxrfast train (it has no config.yaml)")
    return run


def trained_runs() -> list[RunDirectory]:
    """The runs under `runs/`, that with the latest weights first; CxrfastError that says how to make one otherwise."""
    found = [path for path in RUNS.glob(f"**/{RunDirectory(Path()).best}") if path.is_file()]
    if not found:
        raise CxrfastError(
            "no trained model under runs/; train one (cxrfast train --method rozenberg --data DIR), try cxrfast demo, "
            "or give --checkpoint FILE"
        )
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [RunDirectory(path.parent.parent) for path in found]


def latest_run() -> RunDirectory:
    """The run under `runs/` whose best weights are the latest; CxrfastError as for :func:`trained_runs`."""
    return trained_runs()[0]


def environment() -> dict[str, Any]:
    """The facts about the machine and the installation, for `env.json` and `cxrfast info`."""
    from cxrfast import _build_info  # type: ignore[attr-defined]  # compiled

    return {
        "cxrfast": cxrfast.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "cuda_devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda_operators": _library.cuda_error() or f"loaded, for compute capability {_build_info.cuda_archs}",
        "built_against_torch": _build_info.torch_version,
        "loads_into_torch_from": _build_info.torch_target,
        "compiler": _build_info.compiler,
        "compiler_flags": _build_info.compiler_flags,
    }


def write_environment(run: RunDirectory) -> None:
    write_text(run.environment, json.dumps({**environment(), "command": sys.argv}, indent=2) + "\n")
