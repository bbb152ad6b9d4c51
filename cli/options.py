"""Options that several commands share."""

import csv
from pathlib import Path
from typing import Annotated, Any

import typer

from cxrfast.errors import UsageError

Data = Annotated[
    Path | None,
    typer.Option("--data", help="Data set: its folder, a manifest (.csv) or a COCO file. See docs/data.md."),
]
Dataset = Annotated[
    str | None,
    typer.Option("--dataset", help="Layout of the data set, for example vindr-cxr or manifest; default: recognised."),
]
Labels = Annotated[
    str | None, typer.Option("--labels", help="Label version of ChestX-ray14: auto, 2017 or 2020.", show_default=False)
]
UncertainLabels = Annotated[
    str | None,
    typer.Option("--uncertain", help="What uncertain labels (-1) become: ignore (unknown; default), zero or one."),
]
Readers = Annotated[
    str | None,
    typer.Option(
        "--readers",
        help="How the annotations of several readers become one: majority (default), union or fusion (weighted boxes).",
    ),
]
ImageViews = Annotated[
    str | None,
    typer.Option("--views", help="frontal (default) leaves out images that are known to be lateral; or all."),
]
ClassMap = Annotated[
    list[str] | None,
    typer.Option(
        "--map", help="Use another name for a class of the data set: 'Lung Opacity=Infiltration'. Repeatable."
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Weights (.safetensors) or a run's folder; default: the latest run in runs/."),
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")]
Workers = Annotated[int | None, typer.Option("--workers", min=0, help="Data-loader workers.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, help="Images per batch.")]
NoAugment = Annotated[bool, typer.Option("--no-augment", help="Train without data augmentation.")]
Seed = Annotated[
    int, typer.Option("--seed", min=0, help="Random seed. The same seed gives the same numbers on the same machine.")
]


def data_settings(
    dataset: str | None,
    labels: str | None,
    uncertain: str | None,
    readers: str | None,
    views: str | None,
    class_map: list[str] | None,
) -> dict[str, Any]:
    """The data-set options that the user gave, under their names in `RunConfig` and `DataOptions`."""
    names = {"dataset": dataset, "labels": labels, "uncertain": uncertain, "readers": readers, "views": views}
    given: dict[str, Any] = {name: value for name, value in names.items() if value is not None}
    if class_map:
        given["class_map"] = parse_class_map(class_map)
    return given


def class_list(text: str) -> list[str]:
    """The names of a comma-separated list. A name with commas is in double quotes, as in CSV."""
    return [name.strip() for name in next(csv.reader([text], skipinitialspace=True), []) or [""]]


def parse_class_map(pairs: list[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for pair in pairs:
        old, equals, new = (part.strip() for part in pair.partition("="))
        if not equals or not old or not new:
            raise UsageError(f"map: expected 'CLASS OF THE DATA=NAME TO USE', got {pair!r}")
        if names.setdefault(old, new) != new:
            raise UsageError(f"map: {old} is mapped to {names[old]} and to {new}; leave out one of the two")
    return names


def build_data_options(given: dict[str, Any]) -> Any:
    """Build `DataOptions` from the options that the user gave. UsageError for a value that is not among the choices."""
    from typing import get_args

    from cxrfast.data import DataOptions
    from cxrfast.data.datasets.interface import ReaderMerge, Uncertain, Views

    choices = {"uncertain": Uncertain, "readers": ReaderMerge, "views": Views}
    for name, kind in choices.items():
        if name in given and given[name] not in get_args(kind):
            raise UsageError(f"{name}: expected one of {', '.join(get_args(kind))}, got {given[name]!r}")
    return DataOptions(**given)
