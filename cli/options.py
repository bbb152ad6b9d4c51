"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    Path | None, typer.Option("--data", help="Folder in the layout of ChestX-ray14: images/, Data_Entry_2017.csv, …")
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
