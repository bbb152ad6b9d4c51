"""`cxrfast localize`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrfast.cli.options import Checkpoint, Device

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
    device: Device = None,
) -> None:
    """Find diseases on X-rays and show where they are.

    Writes a picture and a JSON file for each image. Boxes are in pixels of the original image. Research use only; not
    for diagnosis.
    """
    from cxrfast.devices import resolve_device
    from cxrfast.inference import load_predictor, localize_many

    predictor = load_predictor(checkpoint, device=resolve_device(device or "auto"), images=images)
    typer.echo(f"weights {predictor.weights}, learnt from: {predictor.provenance}")
    for warning in predictor.provenance.warnings:
        typer.echo(f"warning: {warning}")
    for note in predictor.notes:
        typer.echo(f"note: {note}")
    batch = localize_many(predictor, images, out, score_threshold=threshold, top=top)
    for output in batch.outputs:
        found = "; ".join(map(_words, output.findings))
        typer.echo(f"{output.source}: {found or 'nothing found'}\n  {output.overlay}\n  {output.json}")
        for note in output.notes:
            typer.echo(f"  note: {note}")
    for warning, number in batch.warnings.items():
        if warning not in predictor.provenance.warnings:  # those of the weights were printed before the work
            typer.echo(f"warning: {warning} ({number} of {len(batch.outputs)} images)")
    typer.echo("Research use only; not for diagnosis.")
    if batch.failures:
        typer.echo(f"\ninputs that failed: {len(batch.failures)}", err=True)
        for reason in batch.failures.values():
            typer.echo(f"  {reason}", err=True)
        raise typer.Exit(1)


def _words(finding: "ClassFinding") -> str:
    """Score, threshold and boxes of one class."""
    score, threshold = finding.numbers
    relation = "threshold" if finding.detected else "below the threshold"
    boxes = "1 box" if len(finding.boxes) == 1 else f"{len(finding.boxes)} boxes"
    return f"{finding.name} {score} ({relation} {threshold}), {boxes}"
