"""`cxrfast report`."""

from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import Data
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
        typer.Option("--split", help="Evaluated part: train, val, test or all; default: the only one, else test."),
    ] = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write; default: in the run's folder.")] = None,
) -> None:
    """Write the HTML report of an evaluated run, or compare two runs by a paired test.

    Examples: cxrfast report

    cxrfast report runs/a runs/b --out comparison.html
    """
    if runs and len(runs) > 2:
        raise UsageError(f"report: {len(runs)} runs; expected one, or two to compare")
    from cxrfast.report import (
        compare,
        from_folder,
        is_folds,
        report_path,
        write_comparison,
        write_folds,
        write_report,
    )
    from cxrfast.runs.directory import latest_weights

    folders = runs or [latest_weights().parent.parent]
    if len(folders) == 1 and is_folds(folders[0]):
        typer.echo(f"written: {write_folds(folders[0], out)}")
        return
    split = split or _evaluated_part(folders)
    evaluated = [from_folder(folder, split=split, data=data) for folder in folders]
    if len(evaluated) == 1:
        path = out or report_path(folders[0], split)
        write_report(evaluated[0], path)
        for note in evaluated[0].notes:
            typer.echo(note)
    else:
        comparison = compare(*evaluated)
        typer.echo(comparison.to_text())
        path = out or folders[0] / f"comparison-{folders[1].resolve().name}.html"
        write_comparison(comparison, path)
    typer.echo(f"written: {path}")


def _evaluated_part(folders: list[Path]) -> str:
    """The one part that all folders have an evaluation of; test if there is none or more than one."""
    parts = [{path.stem.removeprefix("evaluation-") for path in folder.glob("evaluation-*.json")} for folder in folders]
    shared = set.intersection(*parts)
    return shared.pop() if len(shared) == 1 else "test"
