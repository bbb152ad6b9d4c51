"""The state from which a run resumes."""

from pathlib import Path
from typing import Any

import torch

from cxrfast._files import atomic_path
from cxrfast.errors import CxrfastError

_KEYS = {"leg", "epoch", "best", "method", "state", "optimizer", "scheduler"}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Tensors, numbers, strings, lists and dictionaries only, so that it can be read without unpickling code."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What :func:`save_checkpoint` was given; CxrfastError, in one line, for any other file."""
    problem = f"resume: {path} cannot be read; it is damaged or not a checkpoint of cxrfast"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and runtime errors of a damaged file
        raise CxrfastError(problem) from error
    if isinstance(state, dict) and "stage" in state:  # earlier versions trained every stage in one go
        state["leg"] = state.pop("stage")
    if not isinstance(state, dict) or not state.keys() >= _KEYS:
        raise CxrfastError(problem)
    return state
