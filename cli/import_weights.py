"""`cxrfast import-weights`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import class_list
from cxrfast.cli.output import echo


def import_weights(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="File written by torch.save, or .safetensors."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Weights file to write.")] = Path("imported.safetensors"),
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="Origin: chexnet, chexnet-alphabetical, chexpert or torchxrayvision."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes", help="Class of each output, in order, comma-separated. An empty name drops its output."
        ),
    ] = None,
    preprocessing: Annotated[
        str | None,
        typer.Option("--preprocessing", help="imagenet, grey ([-1, 1]), unit ([0, 1]) or torchxrayvision."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", min=32, help="Side of the input images in pixels; default: the preset's, or 224."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", help="Ignore weights whose names match this pattern. Repeatable.")
    ] = None,
) -> None:
    """Import a classifier trained by another program.

    Converts checkpoints of DenseNets and ResNets with a linear classifier (CheXNet reimplementations, torchvision,
    timm, torchxrayvision) to weights of method chexnet with the same outputs. Pickled models are rejected; save their
    state_dict instead.

    Example: cxrfast import-weights model.pth.tar --preset chexnet --out chexnet.safetensors
    """
    from cxrfast.runs import import_weights as run

    names = class_list(classes) if classes is not None else None
    imported = run(
        checkpoint,
        out,
        preset=preset,
        classes=names,
        preprocessing=preprocessing,
        image_size=image_size,
        ignore=ignore or [],
    )
    method = imported.method
    for note in imported.notes:
        echo(note)
    echo(
        f"{method.options.backbone}, {len(method.class_names)} classes: {', '.join(method.class_names)}; "
        f"{method.image_size}×{method.image_size} pixels"
    )
    path = shlex.quote(str(imported.path))
    echo(f"\nweights  {imported.path}")
    echo(f"next     cxrfast evaluate --checkpoint {path} --data DIR --out DIR")
    echo(f"         cxrfast localize IMAGE --checkpoint {path}")
