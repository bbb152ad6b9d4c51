"""The commands `python -m cxrfast.experiments.transfer probe FOLDER --out FILE` and `… table NAME=FOLDER …`."""

from pathlib import Path
from typing import Annotated

import typer

from cxrfast._files import write_text
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.experiments.transfer import compare, linear_probe, runs_csv, to_markdown

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def probe(
    folder: Annotated[Path, typer.Argument(help="Folder of a cross-validation with pretrained weights.")],
    out: Annotated[Path, typer.Option("--out", help="predictions.csv to write.")],
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", help="Side of the images in pixels; default: as in the cross-validation."),
    ] = None,
) -> None:
    """Fit a logistic regression on the pooled features of the backbone, for each fold."""
    found = linear_probe(folder, image_size=image_size)
    out.parent.mkdir(parents=True, exist_ok=True)
    found.write_csv(out)
    typer.echo(f"{len(found.images)} images: {out}")


@app.command()
def table(
    folders: Annotated[list[str], typer.Argument(metavar="NAME=FOLDER...", help="Finished cross-validations.")],
    out: Annotated[Path, typer.Option("--out", help="Writes OUT.csv, one line per run, and OUT.md, the tables.")],
    probe: Annotated[Path | None, typer.Option("--probe", help="The predictions.csv of `probe`.")] = None,
    positives: Annotated[int, typer.Option("--positives", help="Minimum number of positive images of a class.")] = 10,
) -> None:
    """Compare the methods with each other and with the probe."""
    named = dict(_pair(text) for text in folders)
    text = to_markdown(compare(named, probe, positives=positives))
    write_text(out.with_suffix(".md"), text)
    write_text(out.with_suffix(".csv"), runs_csv(named))
    typer.echo(text)


def _pair(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals:
        raise UsageError(f"folders: expected NAME=FOLDER, got {text!r}")
    return name, Path(folder)


if __name__ == "__main__":
    try:
        app(standalone_mode=False)
    except (CxrfastError, typer.Exit) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from None
