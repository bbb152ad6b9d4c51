"""`cxrfast reproduce`."""

from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import BatchSize, Data, Device, NoAugment, Workers
from cxrfast.cli.train import method_options
from cxrfast.errors import UsageError


def reproduce(
    table: Annotated[
        str | None, typer.Argument(metavar="TABLE", help="For example rozenberg1; without it, all are listed.")
    ] = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of runs and comparisons; default: runs/reproduce.")
    ] = None,
    rows: Annotated[str | None, typer.Option("--rows", help="Comma-separated; default: all of the table.")] = None,
    scale: Annotated[
        str | None, typer.Option("--scale", help="small: tiny networks and 2 epochs, to try the whole way in minutes.")
    ] = None,
    folds: Annotated[int | None, typer.Option("--folds", min=2, help="Of cross-validated rows; default: 5.")] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Epochs of the stage that learns the classes.")
    ] = None,
    batch_size: BatchSize = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate at the start.")] = None,
    image_size: Annotated[int | None, typer.Option("--image-size", min=32, help="Images are resized to it.")] = None,
    device: Device = None,
    precision: Annotated[str | None, typer.Option("--precision", help="32, bf16 or 16.")] = None,
    workers: Workers = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of the split, the weights and the order.")] = None,
    labels: Annotated[str | None, typer.Option("--labels", help="Label version; default: 2017, the papers'.")] = None,
    no_augment: NoAugment = False,
    pretrained: Annotated[
        str | None,
        typer.Option(
            "--pretrained", help="'imagenet' (the papers' start, fetched by timm) or a file of weights of the backbone."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="An option, NAME=VALUE, of the methods that have it.")
    ] = None,
) -> None:
    """Run a table or a figure of a paper, and compare with what is published.

    Without TABLE: lists all, their rows, and what they cost. With one: does the runs that are not finished, and writes
    TABLE.md and TABLE.json. Interrupted, the same command goes on.

    Examples: cxrfast reproduce rozenberg1 --data ChestX-ray14 --pretrained imagenet --workers 16

    cxrfast reproduce seibold2 --data phantoms --scale small
    """
    from cxrfast.experiments import reproduction

    if table is None:
        typer.echo(reproduction.listing(), nl=False)
        return
    plan = reproduction.find_plan(table)
    if data is None:
        raise UsageError(f"data: required; give {plan.data}: cxrfast reproduce {table} --data DIR")
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
    typer.echo(result.text)
    typer.echo(f"written: {', '.join(map(str, result.written))}")
    if result.failed:
        raise typer.Exit(1)
