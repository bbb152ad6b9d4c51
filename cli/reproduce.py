"""`cxrfast reproduce`."""

from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import BatchSize, Data, Device, NoAugment, Workers
from cxrfast.cli.output import echo
from cxrfast.cli.train import method_options
from cxrfast.errors import UsageError


def reproduce(
    table: Annotated[
        str | None,
        typer.Argument(metavar="TABLE", help="Table or figure, for example rozenberg1; without it, all are listed."),
    ] = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option("--out", help="Output folder; default: runs/reproduce.")] = None,
    rows: Annotated[
        str | None,
        typer.Option("--rows", help="Rows of the table, comma-separated; default: all."),
    ] = None,
    scale: Annotated[
        str | None, typer.Option("--scale", help="small: tiny networks and 2 epochs, a trial that takes minutes.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option("--folds", min=2, help="Folds of cross-validated rows; default: 5."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Epochs of the stage that trains the classifier.")
    ] = None,
    batch_size: BatchSize = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Initial learning rate.")] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", min=32, help="Side of the input images in pixels."),
    ] = None,
    device: Device = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="Floating-point precision: 32, bf16 or 16."),
    ] = None,
    workers: Workers = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Random seed of the split, the weights and the order of images."),
    ] = None,
    labels: Annotated[str | None, typer.Option("--labels", help="Label version; default: 2017, the papers'.")] = None,
    no_augment: NoAugment = False,
    pretrained: Annotated[
        str | None,
        typer.Option(
            "--pretrained",
            help="Initial weights of the backbone: 'imagenet' (as in the papers, downloaded by timm) or a file.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Set an option, NAME=VALUE, of the methods that have it. Repeatable."),
    ] = None,
) -> None:
    """Reproduce a table or a figure of a paper, and compare with the published numbers.

    Without TABLE: lists all tables and figures, their rows and their cost. With TABLE: trains and evaluates the
    unfinished runs, and writes TABLE.md and TABLE.json. After an interruption, the same command resumes.

    Examples: cxrfast reproduce rozenberg1 --data ChestX-ray14 --pretrained imagenet --workers 16

    cxrfast reproduce seibold2 --data phantoms --scale small
    """
    from cxrfast.experiments import reproduction

    if table is None:
        echo(reproduction.listing(), nl=False)
        return
    plan = reproduction.find_plan(table)
    if data is None:
        raise UsageError(f"data: expected {plan.data}, got none; add --data DIR")
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "image_size": image_size,
        "device": device,
        "precision": precision,
        "workers": workers,
        "seed": seed,
        "labels": labels,
        "augment": False if no_augment else None,
    }
    overrides = reproduction.Overrides(
        {name: value for name, value in settings.items() if value is not None},
        method_options(set_ or [], pretrained),
        scale,
        folds,
    )
    names = [name.strip() for name in rows.split(",")] if rows is not None else None
    result = reproduction.reproduce(table, data, out, rows=names, overrides=overrides)
    echo(result.text)
    echo(f"written: {', '.join(map(str, result.written))}")
    if result.failed:
        raise typer.Exit(1)
