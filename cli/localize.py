"""`cxrfast localize`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrfast._logging import printable
from cxrfast.cli.options import Checkpoint, Device
from cxrfast.cli.output import echo

if TYPE_CHECKING:
    from cxrfast.inference import ClassFinding


def localize(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE", help="PNG, JPEG or DICOM files, folders or glob patterns."),
    ],
    checkpoint: Checkpoint = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the pictures and JSON files.")] = Path("localized"),
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            help="Report classes with at least this score; default: chosen per class on validation images.",
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="Report the N classes with the highest scores instead.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are in the folder already.")
    ] = False,
    max_pixels: Annotated[
        int | None,
        typer.Option("--max-pixels", min=1, help="Largest image that is read, in pixels; default: 100000000."),
    ] = None,
    device: Device = None,
) -> None:
    """Find diseases on X-rays and show where they are.

    Writes a picture and a JSON file for each image; the folders of the inputs are mirrored below --out. Boxes are in
    pixels of the original image. Research use only; not for diagnosis.
    """
    from cxrfast.devices import resolve_device
    from cxrfast.inference import load_predictor, localize_many

    predictor = load_predictor(checkpoint, device=resolve_device(device or "auto"), images=images)
    echo(printable(f"weights {predictor.weights}, learnt from: {predictor.provenance}"))
    for warning in predictor.provenance.warnings:
        echo(f"warning: {printable(warning)}")
    for note in predictor.notes:
        echo(f"note: {printable(note)}")
    batch = localize_many(
        predictor, images, out, score_threshold=threshold, top=top, overwrite=overwrite, max_pixels=max_pixels
    )
    for output in batch.outputs:
        found = "; ".join(map(_words, output.findings))
        source, picture, file = (printable(str(path)) for path in (output.source, output.overlay, output.json))
        echo(f"{source}: {found or 'nothing found'}\n  {picture}\n  {file}")
        for note in output.notes:
            echo(f"  note: {printable(note)}")
    for warning, number in batch.warnings.items():
        if warning not in predictor.provenance.warnings:  # those of the weights were printed before the work
            echo(f"warning: {printable(warning)} ({number} of {len(batch.outputs)} images)")
    echo("Research use only; not for diagnosis.")
    if batch.failures:
        echo(f"\ninputs that failed: {len(batch.failures)}", err=True)
        for reason in batch.failures.values():
            echo(f"  {printable(reason)}", err=True)
        raise typer.Exit(1)


def _words(finding: "ClassFinding") -> str:
    """Score, threshold and boxes of one class."""
    score, threshold = finding.numbers
    relation = "threshold" if finding.detected else "below the threshold"
    boxes = "1 box" if len(finding.boxes) == 1 else f"{len(finding.boxes)} boxes"
    return f"{finding.name} {score} ({relation} {threshold}), {boxes}"
