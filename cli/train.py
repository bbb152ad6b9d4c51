"""`cxrfast train`."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from cxrfast.cli.options import BatchSize, Data, Device, Workers
from cxrfast.errors import UsageError


def train(
    method: Annotated[str | None, typer.Option("--method", help="{methods}.")] = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; default: runs/<method>-<time>.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file of options; those given here go first.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Epochs of the first stage.")] = None,
    batch_size: BatchSize = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate at the start.")] = None,
    image_size: Annotated[int | None, typer.Option("--image-size", min=32, help="Images are resized to it.")] = None,
    device: Device = None,
    precision: Annotated[str | None, typer.Option("--precision", help="32, bf16 or 16.")] = None,
    workers: Workers = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of the split, the weights and the order.")] = None,
    labels: Annotated[str | None, typer.Option("--labels", help="Label version: auto, 2017 or 2020.")] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="patient (own, by patient) or official (the published lists).")
    ] = None,
    classes: Annotated[str | None, typer.Option("--classes", help="Comma-separated; default: all that occur.")] = None,
    pretrained: Annotated[
        str | None, typer.Option("--pretrained", help="'imagenet' (fetched by timm) or a .safetensors backbone.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="An option of the method, NAME=VALUE; see: cxrfast info METHOD.")
    ] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Go on with this run's folder.")] = None,
) -> None:
    """Train a method on labelled X-rays, a few with boxes.

    Examples: cxrfast train --method rozenberg --data ChestX-ray14

    cxrfast train --method li --data DIR --epochs 10 --image-size 256 --set grid=16 --set backbone=resnetv2_18
    """
    settings = {
        "method": method,
        "data": data,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "image_size": image_size,
        "precision": precision,
        "seed": seed,
        "labels": labels,
        "split": split,
        "classes": [name.strip() for name in classes.split(",")] if classes is not None else None,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    options = method_options(set_ or [], pretrained)
    if resume is not None:
        refuse_with_resume([*given, *options, *(["out"] if out else []), *(["config"] if config else [])])
    from cxrfast import training

    if resume is not None:
        run = training.resume(resume, device=device, workers=workers, say=typer.echo)
    else:
        base = training.load_config(config) if config is not None else {}
        given |= {name: value for name, value in (("device", device), ("workers", workers)) if value is not None}
        merged = {**base, **given, "options": {**base.get("options", {}), **options}}
        run = training.train(training.build_config(merged), out, say=typer.echo)
    typer.echo(f"\nweights  {run.best}")
    path = shlex.quote(str(run.path))
    typer.echo(f"next     cxrfast evaluate {path}")
    typer.echo(f"         cxrfast localize IMAGE --checkpoint {path}")


def method_options(pairs: list[str], pretrained: str | None) -> dict[str, Any]:
    """`NAME=VALUE` pairs as a dictionary. Values are read as YAML: numbers and true/false are what they look like."""
    import yaml

    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"set: expected NAME=VALUE, got {pair!r}")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"set: cannot read the value of {pair!r}") from error
    if pretrained is not None:
        options["pretrained"] = True if pretrained == "imagenet" else pretrained
    return options


def refuse_with_resume(names: list[str]) -> None:
    if names:
        listed = ", ".join("--" + name.replace("_", "-") for name in names)
        raise UsageError(f"resume: takes its settings from the run's config.yaml; leave out {listed}")
