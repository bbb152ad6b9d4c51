"""`cxrfast train`."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from cxrfast.cli.options import (
    BatchSize,
    ClassMap,
    Data,
    Dataset,
    Device,
    ImageViews,
    Labels,
    NoAugment,
    Readers,
    UncertainLabels,
    Workers,
    class_list,
    data_settings,
)
from cxrfast.cli.output import echo
from cxrfast.errors import UsageError


def train(
    method: Annotated[str | None, typer.Option("--method", help="Method to train: {methods}.")] = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; default: runs/<method>-<time>.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file of options; command-line options take precedence.")
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
    dataset: Dataset = None,
    labels: Labels = None,
    uncertain: UncertainLabels = None,
    readers: Readers = None,
    views: ImageViews = None,
    map_: ClassMap = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="patient (a new random split, by patient where the data name them) or official (the published parts).",
        ),
    ] = None,
    val_share: Annotated[
        str | None,
        typer.Option(
            "--val-share",
            "--val",
            help="Share of the non-test images used for validation, which chooses the best epoch, or none; default: "
            "the paper's.",
        ),
    ] = None,
    lr_schedule: Annotated[
        str | None,
        typer.Option(
            "--lr-schedule",
            help="When the learning rate decreases: steps, milestones, plateau (once, when validation stops improving) "
            "or search (once, after the epoch that validation chooses).",
        ),
    ] = None,
    lr_milestones: Annotated[
        str | None,
        typer.Option(
            "--lr-milestones",
            help="Epochs after which the learning rate decreases, comma-separated; with search, the epochs to try.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            help="Classes to train, comma-separated, names with commas in double quotes; default: all that occur in "
            "the data.",
        ),
    ] = None,
    annotated: Annotated[
        float | None,
        typer.Option(
            "--annotated", help="Use the boxes of this share of the training images only; default: all boxes."
        ),
    ] = None,
    operating_point: Annotated[
        str | None,
        typer.Option(
            "--operating-point",
            help="How validation chooses the score from which a class counts as found: youden, f1, sensitivity=0.9 or "
            "specificity=0.9.",
        ),
    ] = None,
    no_augment: NoAugment = False,
    pretrained: Annotated[
        str | None,
        typer.Option(
            "--pretrained", help="Initial weights of the backbone: 'imagenet' (downloaded by timm) or a file."
        ),
    ] = None,
    freeze_backbone: Annotated[
        bool, typer.Option("--freeze-backbone", help="Keep the weights of the pretrained backbone fixed.")
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Set an option of the method, NAME=VALUE. Repeatable; cxrfast info METHOD lists them."
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Resume the run or cross-validation in this folder.")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Hash the content of all images, when a run starts and when it resumes, not only of a sample: a "
            "resumed run is refused if its data have changed.",
        ),
    ] = False,
    folds: Annotated[
        int | None,
        typer.Option("--folds", help="Cross-validate with this number of folds."),
    ] = None,
    folds_of: Annotated[
        str | None,
        typer.Option("--folds-of", help="Images that the folds divide: boxes (those with boxes; default) or all."),
    ] = None,
    fold: Annotated[
        int | None,
        typer.Option("--fold", help="Run only this fold (from 0), to share the work among machines."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", help="Runs per fold, with the seeds --seed, --seed + 1, …"),
    ] = None,
    unannotated: Annotated[
        float | None,
        typer.Option(
            "--unannotated", help="With --folds: share of the images without boxes that is used for training."
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", help="With --folds: evaluation protocol; default: strict."),
    ] = None,
    folds_by: Annotated[
        str | None,
        typer.Option("--folds-by", help="Units of the folds: patient or image; default: as in the protocol's paper."),
    ] = None,
) -> None:
    """Train a method on X-rays with image labels and few or no boxes.

    Examples: cxrfast train --method rozenberg --data ChestX-ray14

    cxrfast train --method li --data DIR --epochs 10 --image-size 256 --set grid=16 --set backbone=resnetv2_18

    cxrfast train --method rozenberg --data DIR --folds 5 --seeds 3 --unannotated 0.2
    """
    settings: dict[str, Any] = {
        "method": method,
        "data": data,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "image_size": image_size,
        "precision": precision,
        "seed": seed,
        "split": split,
        "annotated": annotated,
        "val_share": val_share,
        "lr_schedule": lr_schedule,
        "lr_milestones": [part.strip() for part in lr_milestones.split(",")] if lr_milestones is not None else None,
        "operating_point": operating_point,
        "augment": False if no_augment else None,
        "classes": class_list(classes) if classes is not None else None,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    given |= data_settings(dataset, labels, uncertain, readers, views, map_)
    given["options"] = method_options(set_ or [], pretrained)
    if freeze_backbone:
        given["options"]["freeze_backbone"] = True
    plan = {"folds": folds, "seeds": seeds, "unannotated": unannotated, "protocol": protocol}
    plan |= {"by": folds_by, "of": folds_of}
    plan = {name: value for name, value in plan.items() if value is not None}
    machine = {name: value for name, value in (("device", device), ("workers", workers)) if value is not None}
    if resume is not None:
        names = [*given, *given.pop("options"), *plan]
        names += [name for name, value in (("out", out), ("config", config)) if value is not None]
        flags = {"by": "folds-by", "of": "folds-of", "augment": "no-augment", "class_map": "map"}
        refuse_with_resume([flags.get(name, name) for name in names if name != "options"])
        _resume(resume, fold, machine, verify)
    else:
        _start(config, given, machine, plan, fold, out, verify)


def _start(
    file: Path | None,
    given: dict[str, Any],
    machine: dict[str, Any],
    plan: dict[str, Any],
    fold: int | None,
    out: Path | None,
    verify: bool,
) -> None:
    """Start a run, or a cross-validation if the options or the configuration file set folds."""
    from cxrfast import training
    from cxrfast.experiments.cross_validation import cross_validate
    from cxrfast.experiments.folds_directory import build_cross_validation, take_section
    from cxrfast.runs.settings import load_config

    base = load_config(file) if file is not None else {}
    plan = {**take_section(base), **plan}
    options = {**base.get("options", {}), **given["options"]}
    config = training.build_config({**base, **given, **machine, "options": options})
    if "folds" in plan:
        _refuse_verify(verify)
        complete = build_cross_validation(plan).model_dump()
        asked = config.val_share if "val_share" in {**base, **given} else None
        _say_next_of_folds(cross_validate(config, **complete, val_share=asked, fold=fold, out=out))
        return
    lonely = [*plan, *(["fold"] if fold is not None else [])]
    if lonely:
        name = {"by": "folds-by", "of": "folds-of"}.get(lonely[0], lonely[0])
        raise UsageError(f"{name}: expected only for a cross-validation; add --folds 5, or leave it out")
    _say_next(training.train(config, out, verify=verify))


def _refuse_verify(verify: bool) -> None:
    if verify:
        raise UsageError("verify: expected only for a single run, got it for a cross-validation; leave it out")


def _resume(path: Path, fold: int | None, machine: dict[str, Any], verify: bool) -> None:
    from cxrfast import training
    from cxrfast.experiments.cross_validation import resume_cross_validation
    from cxrfast.runs import RunDirectory

    if RunDirectory(path).is_cross_validation:
        _refuse_verify(verify)
        _say_next_of_folds(resume_cross_validation(path, **machine, fold=fold))
    elif fold is not None:
        raise UsageError(f"fold: expected the folder of a cross-validation, got {path}; leave out --fold")
    else:
        _say_next(training.resume(path, **machine, verify=verify))


def _say_next(run: Any) -> None:
    echo(f"\nweights  {run.best}")
    path = shlex.quote(str(run.path))
    echo(f"next     cxrfast evaluate {path}")
    echo(f"         cxrfast localize IMAGE --checkpoint {path}")


def _say_next_of_folds(folder: Path) -> None:
    from cxrfast.runs import RunDirectory

    echo(f"next     cxrfast evaluate {shlex.quote(str(folder))} --protocol NAME")
    for run in RunDirectory(folder).trained_folds()[:1]:  # with --fold, not necessarily fold 0
        echo(f"         cxrfast localize IMAGE --checkpoint {shlex.quote(str(run.path))}")


def method_options(pairs: list[str], pretrained: str | None) -> dict[str, Any]:
    """`NAME=VALUE` pairs as a dictionary. Values are parsed as YAML, so that numbers and booleans get their types."""
    from cxrfast._yaml import parse_yaml

    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"set: expected NAME=VALUE, got {pair!r}")
        try:
            options[name] = parse_yaml(value)
        except ValueError as error:
            raise UsageError(f"set: expected a YAML value, got {pair!r}") from error
    if pretrained is not None:
        options["pretrained"] = True if pretrained == "imagenet" else pretrained
    return options


def refuse_with_resume(names: list[str]) -> None:
    if names:
        listed = ", ".join("--" + name.replace("_", "-") for name in names)
        raise UsageError(f"resume: a resumed run uses the settings in its config.yaml; leave out {listed}")
