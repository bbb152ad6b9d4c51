"""Where to compute, and in which precision."""

import os
from typing import Any, Literal, get_args

import torch
from lightning_fabric import Fabric

from cxrfast import _library
from cxrfast.errors import UsageError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["32", "bf16", "16"]

_PRECISIONS: dict[Precision, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def resolve_device(name: str) -> Literal["cpu", "cuda"]:
    """ "cpu" or "cuda"; "auto" selects CUDA if both a GPU and this package's CUDA operators are available.

    Raises :class:`UsageError` for another name, and for "cuda" if CUDA cannot be used.
    """
    if name not in get_args(Device):
        raise UsageError(f"device: expected {', '.join(get_args(Device))}, got {name!r}")
    if name == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        obstacle: str | None = "torch finds no CUDA device"
    else:
        obstacle = _library.cuda_error()
    if name == "auto":
        return "cpu" if obstacle else "cuda"
    if obstacle:
        raise UsageError(f"device: cuda cannot be used: {obstacle}; use --device cpu")
    return "cuda"


def make_fabric(device: Device, precision: Precision) -> Fabric:
    """One process on one device; under `torchrun`, all of its processes and devices."""
    accelerator = resolve_device(device)
    if precision == "16" and accelerator == "cpu":
        raise UsageError("precision: expected bf16 or 32 on the CPU, got 16")
    if not torch.distributed.is_torchelastic_launched():
        return Fabric(accelerator=accelerator, devices=1, precision=_PRECISIONS[precision])
    here, all_ = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return Fabric(
        accelerator=accelerator,
        strategy="ddp",
        devices=here,
        num_nodes=all_ // here,
        precision=_PRECISIONS[precision],
    )
