"""`cxrfast data`."""

from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import (
    ClassMap,
    Dataset,
    Labels,
    Readers,
    UncertainLabels,
    build_data_options,
    data_settings,
)
from cxrfast.cli.output import echo
from cxrfast.errors import UsageError


def data(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Data set: its folder, a manifest (.csv) or a COCO file.")
    ],
    dataset: Dataset = None,
    labels: Labels = None,
    uncertain: UncertainLabels = None,
    readers: Readers = None,
    views: Annotated[
        str,
        typer.Option("--views", help="all, or frontal, which leaves out images that are known to be lateral."),
    ] = "all",
    class_map: ClassMap = None,
    splits: Annotated[
        Path | None, typer.Option("--splits", help="Also examine this splits.json for leakage between its parts.")
    ] = None,
    hashes: Annotated[
        bool, typer.Option("--hash/--no-hash", help="Look for files with the same bytes, by hash.")
    ] = True,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Decode every image: finds damaged files and images with the same pixels."),
    ] = False,
    json_file: Annotated[
        str | None, typer.Option("--json", help="Write the summary as JSON; - prints it instead of the text.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with the summary and a sample of images with boxes.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="Convert the data set: to a manifest (.csv) or to COCO (.json).")
    ] = None,
) -> None:
    """Show what a data set contains, check it, or convert it.

    Counts images, patients, labels and boxes, and looks for unreadable and duplicate images and for leakage between
    splits. Images of all views are counted, while train leaves lateral images out.

    Examples: cxrfast data chest-xrays --html chest-xrays.html

    cxrfast data chest-xrays --write manifest.csv
    """
    given = data_settings(dataset, labels, uncertain, readers, views, class_map)
    options = build_data_options(given)
    if write is not None:
        _check_target(write)
    from cxrfast.data.summary import summarize
    from cxrfast.report.terminal import data_to_text

    source, summary = summarize(path, options, splits=splits, hashes=hashes, verify=verify)
    echo(summary.to_json() if json_file == "-" else data_to_text(summary), nl=False)
    written: list[str | Path] = []
    if json_file not in (None, "-"):
        summary.save(json_file)
        written.append(json_file)
    if html is not None:
        from cxrfast.report.html.data import write_data_page

        write_data_page(source, summary, html)
        written.append(html)
    if write is not None:
        from cxrfast.data.datasets.writing import write_coco, write_manifest

        written += (write_coco if write.suffix.lower() == ".json" else write_manifest)(source, write)
    for target in written:
        echo(f"written: {target}", err=json_file == "-")


def _check_target(path: Path) -> None:
    """Refuse what cannot be written before the data are read."""
    if path.suffix.lower() not in (".csv", ".json"):
        raise UsageError(f"write: expected a file that ends in .csv (manifest) or .json (COCO), got {path}")
    if path.exists():
        raise UsageError(f"write: {path} exists already and is not overwritten; remove it or choose another name")
