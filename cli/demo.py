"""`cxrfast demo`."""

from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import Seed


def demo(
    out: Annotated[Path | None, typer.Option("--out", help="New folder; default: runs/demo-<time>.")] = None,
    method: Annotated[str, typer.Option("--method", help="What to train: {demos}.")] = "rozenberg",
    seed: Seed = 0,
) -> None:
    """Try everything on phantoms: train, evaluate, localise.

    Makes phantom X-rays, trains a small network on them by one of the methods, evaluates it and localises one held-out
    image, in under ten minutes on two CPU cores.
    """
    from cxrfast.experiments.demo import run_demo

    run_demo(out, method=method, seed=seed)
