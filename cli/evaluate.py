"""`cxrfast evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import BatchSize, Checkpoint, Data, Device, Workers
from cxrfast.errors import UsageError


def evaluate(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="Folder of a run; default: the latest.")] = None,
    checkpoint: Checkpoint = None,
    data: Data = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test of the run's splits.json.")] = "test",
    iou_threshold: Annotated[float, typer.Option("--iou-threshold", "-T", help="Overlap that counts as found.")] = 0.1,
    threshold_folds: Annotated[
        int | None,
        typer.Option(
            "--thresholds-from-scored-boxes",
            metavar="FOLDS",
            help="Choose map thresholds by cross-validation over the boxes that are scored (Zhang et al. 2020).",
        ),
    ] = None,
    labels: Annotated[str | None, typer.Option("--labels", help="Label version; default: the run's.")] = None,
    method: Annotated[str | None, typer.Option("--method", help="Refuse weights of any other method.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write; default: the run's folder.")] = None,
    batch_size: BatchSize = None,
    workers: Workers = None,
    device: Device = None,
) -> None:
    """Measure AUROC and localisation accuracy.

    Per class, IoU and IoR as Rozenberg et al. measure them, on the held-out part of a run's own data, or on all of
    another data set with --data.
    """
    if run is not None and checkpoint is not None:
        raise UsageError(f"checkpoint: {checkpoint} or the run {run}? Give one of them")
    from cxrfast.training import evaluate_run

    assessment = evaluate_run(
        checkpoint or run,
        data=data,
        split=split,
        labels=labels,
        iou_threshold=iou_threshold,
        threshold_folds=threshold_folds,
        batch_size=batch_size or 16,
        workers=workers or 0,
        device=device or "auto",
        out=out,
        method=method,
    )
    typer.echo(assessment.result.to_text())
    typer.echo(f"written: {assessment.report}, {assessment.predictions}")
    if assessment.result.predictions.unreadable:
        raise typer.Exit(1)
