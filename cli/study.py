"""`cxrfast study`."""

from pathlib import Path
from typing import Annotated, TypeVar

import typer

from cxrfast.cli.options import Device
from cxrfast.cli.output import echo
from cxrfast.errors import UsageError

Number = TypeVar("Number", int, float)


def study(
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the results; default: runs/study.")] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            "--rows",
            help="Rows of the table, comma-separated; default: all except gamma-per-class, li-unary, first-pass and "
            "learnt-thresholds, which are variants of Rozenberg's method. An unknown name lists all rows.",
        ),
    ] = None,
    annotated: Annotated[
        str | None,
        typer.Option("--annotated", help="Shares of the training images with boxes, comma-separated. [0.01,0.05,0.2]"),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Random seeds, comma-separated; a run for each. [1001,1002,1003]")
    ] = None,
    images: Annotated[int | None, typer.Option("--images", min=100, help="Phantoms per seed. [2000]")] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", min=1, help="Epochs of every method; default: the method's."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs in parallel; they share the cores equally.")] = 1,
    device: Device = None,
) -> None:
    """Compare methods on phantoms with few boxes.

    Trains Rozenberg's method, its ablations and the other methods, with boxes on 1 %, 5 % and 20 % of the training
    images. Writes study.md, runs.csv and study.png. Takes 90 minutes on two cores. After an interruption, the same
    command resumes.

    Examples: cxrfast study --jobs 2 --device cpu

    cxrfast study --rows rozenberg,no-crf,li --annotated 0.05 --seeds 1,2,3,4,5
    """
    from cxrfast.experiments import study as room

    settings = {name: value for name, value in (("epochs", epochs), ("device", device)) if value is not None}
    plan = room.Study(
        rows=room.choose_rows(_words(rows)) if rows is not None else room.Study.rows,
        shares=_numbers("annotated", annotated, float) if annotated is not None else room.SHARES,
        seeds=_numbers("seeds", seeds, int) if seeds is not None else room.SEEDS,
        images=images or room.IMAGES,
        settings=settings,
    )
    files = room.run_study(plan, out, jobs=jobs)
    if files.result is not None:
        echo(f"\n{room.to_markdown(files.result)}\nwritten: {files.markdown}, {files.runs}, {files.figure}")
    if files.failed:
        raise typer.Exit(1)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _numbers(name: str, text: str, kind: type[Number]) -> tuple[Number, ...]:
    """The distinct numbers in comma-separated text. Raises UsageError if one is below 0."""
    try:
        values = [kind(word) for word in _words(text)]
    except ValueError:
        values = []
    if not values or min(values) < 0:
        raise UsageError(f"{name}: expected comma-separated numbers of at least 0, got {text!r}")
    return tuple(dict.fromkeys(values))
