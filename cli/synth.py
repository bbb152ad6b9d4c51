"""`cxrfast synth`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import Seed
from cxrfast.cli.output import echo


def synth(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder to write to.")],
    images: Annotated[int, typer.Option("--images", min=20, help="Number of images.")] = 800,
    image_size: Annotated[int, typer.Option("--image-size", min=64, help="Side of an image in pixels.")] = 256,
    boxed_fraction: Annotated[
        float, typer.Option("--boxed-fraction", min=0, max=1, help="Share of the training lesions that get a box.")
    ] = 0.3,
    seed: Seed = 0,
) -> None:
    """Draw phantom chest X-rays to train on.

    Phantoms are synthetic images with lesions and boxes, in the layout of ChestX-ray14. They are only meant for trying
    the software.
    """
    from cxrfast.data import write_phantoms

    write_phantoms(folder, images=images, image_size=image_size, boxed_fraction=boxed_fraction, seed=seed)
    command = f"cxrfast train --method rozenberg --data {shlex.quote(str(folder))}"
    echo(f"{images} phantoms in {folder}; train on them with: {command}")
