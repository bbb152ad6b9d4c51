"""A run's folder: where everything about one training lies, and how the latest one is found."""

import json
import platform
import shlex
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

import cxrfast
from cxrfast import _library
from cxrfast._files import write_text
from cxrfast.errors import CxrfastError, UsageError

RUNS = Path("runs")


@dataclass(frozen=True)
class RunDirectory:
    """`config.yaml, splits.json, env.json, metrics.jsonl, last.ckpt, weights/{best,last}.safetensors`, and what
    `evaluate` adds."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def splits(self) -> Path:
        return self.path / "splits.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def forks(self) -> Path:
        """States that the branches of a search for the learning rate begin from; deleted when it is over."""
        return self.path / "forks"

    def fork(self, stage: int, epoch: int) -> Path:
        return self.forks / f"stage-{stage}-epoch-{epoch}.ckpt"

    @property
    def best(self) -> Path:
        return self.path / "weights" / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.path / "weights" / "last.safetensors"

    def read_metrics(self) -> list[dict[str, Any]]:
        if not self.metrics.exists():
            return []
        try:
            return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]
        except ValueError as error:
            raise CxrfastError(f"{self.metrics} is damaged; delete it: it only loses the numbers so far") from error

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        # Rewritten whole: a resumed run drops the rows after its checkpoint, and a crash never leaves half a line.
        write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))


def new_run(out: Path | None, method: str, *, restart: bool = False) -> RunDirectory:
    """An empty folder for a run: `out`, or `runs/<method>-<date>-<time>`. To `restart`, `out` need not be empty."""
    out = _new_folder_name(method) if out is None else out
    if not restart:
        refuse_full_folder(out)
    make_folder(out / "weights")
    return RunDirectory(out)


def _new_folder_name(method: str) -> Path:
    """`runs/<method>-<date>-<time>`, with a number behind it if that exists."""
    stem = f"{method}-{datetime.now():%Y%m%d-%H%M%S}"
    out = RUNS / stem
    number = 2
    while out.exists():
        out = RUNS / f"{stem}-{number}"
        number += 1
    return out


def refuse_full_folder(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        again = shlex.quote(str(out))
        raise UsageError(f"out: {out} exists and is not empty; choose another folder, or go on with --resume {again}")


def make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CxrfastError(f"out: {path} cannot be made ({error.strerror}); choose another folder") from error


def open_run(path: Path) -> RunDirectory:
    """The run in `path`; CxrfastError where there is none."""
    run = RunDirectory(Path(path))
    if not run.config.is_file():
        raise CxrfastError(f"{path} is not a run of cxrfast train (it has no config.yaml)")
    return run


def latest_weights() -> Path:
    """The weights of the latest run under `runs/`; CxrfastError that says how to make one otherwise."""
    found = [path for path in RUNS.glob("**/weights/best.safetensors") if path.is_file()]
    if not found:
        raise CxrfastError(
            "no trained model under runs/; train one (cxrfast train --method rozenberg --data DIR), try cxrfast demo, "
            "or give --checkpoint FILE"
        )
    return max(found, key=lambda path: path.stat().st_mtime)


def environment() -> dict[str, Any]:
    """What `env.json` and `cxrfast info` say of the machine and the installation."""
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
    write_text(run.path / "env.json", json.dumps({**environment(), "command": sys.argv}, indent=2) + "\n")
