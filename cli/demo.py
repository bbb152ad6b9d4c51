"""`cxrfast demo`."""

from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import Seed


def demo(
    out: Annotated[
        Path | None,
        typer.Option("--out", help="New folder to write to; default: runs/demo-<time>."),
    ] = None,
    method: Annotated[str, typer.Option("--method", help="Method to train: {demos}.")] = "rozenberg",
    seed: Seed = 0,
) -> None:
    """Train, evaluate and localise on phantoms, to try the software.

    Draws phantom X-rays, trains a small network on them, evaluates it, and localises diseases on one held-out image.
    Takes less than ten minutes on two CPU cores.
    """
    from cxrfast.experiments.demo import run_demo

    run_demo(out, method=method, seed=seed)
