"""`cxrfast report`."""

from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import Data
from cxrfast.cli.output import echo
from cxrfast.errors import UsageError


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN] [OTHER]", help="Folder of a run or of a cross-validation; default: the latest run."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", help="Evaluated part: train, val, test or all; default: the only one evaluated, else test."
        ),
    ] = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write; default: in the run's folder.")] = None,
) -> None:
    """Write the HTML report of an evaluated run, or compare two runs by a paired test.

    Examples: cxrfast report

    cxrfast report runs/a runs/b --out comparison.html
    """
    if runs and len(runs) > 2:
        raise UsageError(f"run: expected one run, or two to compare, got {len(runs)}")
    from cxrfast.report import (
        compare,
        from_folder,
        is_folds,
        write_comparison,
        write_folds,
        write_report,
    )
    from cxrfast.runs.directory import RunDirectory, latest_run

    folders = runs or [latest_run().path]
    if len(folders) == 1 and is_folds(folders[0]):
        echo(f"written: {write_folds(folders[0], out)}")
        return
    split = split or _evaluated_part(folders)
    evaluated = [from_folder(folder, split=split, data=data) for folder in folders]
    if len(evaluated) == 1:
        path = out or RunDirectory(folders[0]).report(split)
        write_report(evaluated[0], path)
        for note in evaluated[0].notes:
            echo(note)
    else:
        comparison = compare(*evaluated)
        echo(comparison.to_text())
        path = out or RunDirectory(folders[0]).comparison(RunDirectory(folders[1]))
        write_comparison(comparison, path)
    echo(f"written: {path}")


def _evaluated_part(folders: list[Path]) -> str:
    """The only part that all folders have an evaluation of, such as "all" for predictions; else "test"."""
    from cxrfast.runs.directory import RunDirectory

    shared = set.intersection(*(RunDirectory(folder).evaluated_parts() for folder in folders))
    return shared.pop() if len(shared) == 1 else "test"
