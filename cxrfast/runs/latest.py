"""What the weights of a run learnt from, and the latest run that may read given images."""

import glob
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from cxrfast.data.phantoms.marker import is_phantoms
from cxrfast.errors import CxrfastError
from cxrfast.runs.directory import RunDirectory, run_of, trained_runs
from cxrfast.runs.provenance import Provenance
from cxrfast.runs.weights import read_metadata


def learnt_from(weights: Path, metadata: dict[str, str] | None = None) -> Provenance:
    """What the weights say; for those of earlier versions, what the data folder of their run says today."""
    found = Provenance.read(read_metadata(weights) if metadata is None else metadata, str(weights))
    folder = _data_folder(weights)
    if found.synthetic is not None or folder is None or not folder.exists():
        return found
    return found.model_copy(update={"synthetic": is_phantoms(folder), "data": folder.name})


def latest_run_for(images: Sequence[str | os.PathLike]) -> tuple[RunDirectory, tuple[Path, ...]]:
    """The latest run under `runs/` that may read `images` unasked, and the later ones that may not.

    Weights that learnt from phantoms, or that do not say from what, are for the images of their own run's data folder
    only: somebody who tried `cxrfast demo` must not get its weights for a patient. `images` are files, folders and glob
    patterns.

    Raises CxrfastError where there is none; it says how to choose one all the same.
    """
    refused: list[Path] = []
    for run in trained_runs():
        if learnt_from(run.best).synthetic is False or _within(images, _data_folder(run.best)):
            return run, tuple(refused)
        refused.append(run.path)
    latest = refused[0]
    of = "phantoms, which are drawings" if learnt_from(RunDirectory(latest).best).synthetic else "unknown images"
    raise CxrfastError(
        f"no model under runs/ that learnt from X-rays; the latest, {latest}, learnt from {of}, and the images are not "
        f"of its data folder; train one (cxrfast train --method rozenberg --data DIR), or insist: --checkpoint "
        f"{shlex.quote(str(latest))}"
    )


def _data_folder(weights: Path) -> Path | None:
    """The data of the run that the weights lie in."""
    run = run_of(weights)
    data = None if run is None else run.read_config().get("data")
    return Path(data) if isinstance(data, str) else None


def _within(images: Sequence[str | os.PathLike], folder: Path | None) -> bool:
    """Whether all images, and at least one, lie in the folder."""
    if folder is None:
        return False
    paths: list[str] = []
    for image in images:
        given = os.fspath(image)
        paths += glob.glob(given, recursive=True) if glob.has_magic(given) and not os.path.exists(given) else [given]
    return bool(paths) and all(Path(path).resolve().is_relative_to(folder.resolve()) for path in paths)
