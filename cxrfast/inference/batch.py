"""Localises many images, and writes a JSON file and a picture for each."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cxrfast._files import atomic_path, remove_stale
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.inference._inputs import expand_inputs
from cxrfast.inference._outputs import input_roots, output_places, refuse_existing, result_paths
from cxrfast.inference.findings import ClassFinding
from cxrfast.inference.localize import localize
from cxrfast.inference.rendering import save_overlay
from cxrfast.regions.prediction import Predictor


class Output(NamedTuple):
    """The files written for one image."""

    source: Path
    json: Path
    overlay: Path
    findings: tuple[ClassFinding, ...]
    notes: tuple[str, ...] = ()  # assumptions made to read the image
    warnings: tuple[str, ...] = ()  # why the findings are not to be trusted


class Batch(NamedTuple):
    """Result of :func:`localize_many`."""

    outputs: list[Output]
    failures: dict[str, str]  # input -> reason, one line

    @property
    def warnings(self) -> dict[str, int]:
        """The warnings of all images, each with the number of images that it is for."""
        return dict(Counter(warning for output in self.outputs for warning in output.warnings))


def localize_many(
    predictor: Predictor,
    inputs: Sequence[str | os.PathLike],
    out_dir: str | os.PathLike,
    *,
    score_threshold: float | None = None,
    top: int | None = None,
    overwrite: bool = False,
    max_pixels: int | None = None,
) -> Batch:
    """Localise every image of ``inputs`` and write a JSON file and a picture of each to ``out_dir``.

    ``inputs`` are files, folders (searched recursively) and glob patterns; duplicates are processed once. The results
    of ``scans/p1/a.dcm`` are ``p1/a.json`` and ``p1/a.png`` if ``scans`` was given, or the folders ``scans/p1`` and
    ``scans/p2``: the folders of the inputs are mirrored, beginning below the deepest one that holds all of them. Images
    that differ in their suffix alone become ``a``, ``a-2``, …; each JSON file contains the path of its image. An input
    that fails is listed in ``failures``; the others are still processed.

    Args:
        overwrite: replace results that are there already. Without it they are refused before any work.
        max_pixels: the largest image that is read; see :func:`cxrfast.data.images.read_image`.

    Raises :class:`UsageError` for results that are there already, or if an image is in a folder where its picture, or
    that of another, could overwrite it.
    """
    from tqdm import tqdm

    out_dir = Path(out_dir)
    files, failures = expand_inputs(inputs, skip=out_dir)
    there = [file for file in files if os.path.lexists(file)]  # what is missing does not change where results go
    places = dict(zip(there, output_places(there, input_roots(inputs, there)), strict=True))
    _protect_inputs(there, out_dir, list(places.values()))
    if not overwrite:
        refuse_existing(out_dir, list(places.values()))
    remove_stale(*{(out_dir / place).parent for place in places.values()})
    outputs = []
    for file in tqdm(files, desc="localizing", unit="image", disable=None):
        if file not in places:
            failures[str(file)] = f"no image file {file}; check the path"
            continue
        written = result_paths(out_dir, places[file])
        try:
            result = localize(predictor, file, score_threshold=score_threshold, top=top, max_pixels=max_pixels)
            with atomic_path(written[0]) as temporary:  # gets its name after the picture: never one without the other
                temporary.write_text(result.to_json(), encoding="utf-8", errors="backslashreplace", newline="\n")
                save_overlay(result, written[1])
        except UsageError:
            raise  # applies to every image
        except CxrfastError as error:
            failures[str(file)] = str(error)
        else:
            outputs.append(Output(file, *written, result.findings, result.notes, result.warnings))
    return Batch(outputs, failures)


def _protect_inputs(files: Sequence[Path], out_dir: Path, places: Sequence[Path]) -> None:
    folders = {os.path.realpath((out_dir / place).parent) for place in places} | {os.path.realpath(out_dir)}
    file = next((file for file in files if os.path.dirname(os.path.realpath(file)) in folders), None)
    if file is not None:
        raise UsageError(
            f"out: expected a folder without input images, got {out_dir} with {file}, which could be overwritten; "
            "choose another folder"
        )
