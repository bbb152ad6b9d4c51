"""`cxrfast demo`."""

from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import Seed


def demo(
    out: Annotated[Path | None, typer.Option("--out", help="New folder; default: runs/demo-<time>.")] = None,
    seed: Seed = 0,
) -> None:
    """Make phantoms, train on them, evaluate, localise one image: the whole path in under ten minutes."""
    from cxrfast.demo import run_demo

    run_demo(out, seed=seed, say=typer.echo)
