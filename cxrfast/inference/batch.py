"""Localises many images, and writes a JSON file and a picture for each."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.inference._inputs import expand_inputs, output_stems
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
) -> Batch:
    """Localise every image of ``inputs`` and write ``<stem>.json`` and ``<stem>.png`` to ``out_dir``.

    ``inputs`` are files, folders (searched recursively) and glob patterns; duplicates are processed once. Further
    images with the same stem become ``<stem>-2``, ``<stem>-3``, …; each JSON file contains the path of its image. An
    input that fails is listed in ``failures``; the others are still processed.

    Raises :class:`UsageError` if an image is in ``out_dir``, where its picture could overwrite it.
    """
    from tqdm import tqdm

    out_dir = Path(out_dir)
    files, failures = expand_inputs(inputs, skip=out_dir)
    for file in files:
        if file.resolve().parent == out_dir.resolve():
            raise UsageError(
                f"out: expected a folder without input images, got {out_dir} with {file}, which could be overwritten; "
                "choose another folder"
            )
    outputs = []
    for file, stem in zip(tqdm(files, desc="localizing", unit="image", disable=None), output_stems(files), strict=True):
        written = out_dir / f"{stem}.json", out_dir / f"{stem}.png"
        try:
            result = localize(predictor, file, score_threshold=score_threshold, top=top)
            save_overlay(result, written[1])
            result.save_json(written[0])
        except UsageError:
            raise  # applies to every image
        except CxrfastError as error:
            failures[str(file)] = str(error)
        else:
            outputs.append(Output(file, *written, result.findings, result.notes, result.warnings))
    return Batch(outputs, failures)
