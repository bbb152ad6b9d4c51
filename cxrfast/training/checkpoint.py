"""Checkpoints: the state from which an interrupted run resumes."""

from pathlib import Path
from typing import Any

import torch

from cxrfast._files import atomic_path
from cxrfast._tensors import load_archive
from cxrfast.errors import CxrfastError

_KEYS = {"leg", "epoch", "best", "method", "state", "optimizer", "scheduler"}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, atomically.

    `state` may contain only tensors, numbers, strings, lists and dictionaries, so that reading it executes no code.
    """
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read the state written by :func:`save_checkpoint`. Raises CxrfastError for any other file."""
    problem = f"resume: {path} cannot be read; it is damaged or not a checkpoint of cxrfast"
    try:
        state = load_archive(path)
    except Exception as error:  # a damaged file raises zip, pickle or runtime errors
        raise CxrfastError(problem) from error
    if isinstance(state, dict) and "stage" in state:  # the name in earlier versions, where a leg was a whole stage
        state["leg"] = state.pop("stage")
    if not isinstance(state, dict) or not state.keys() >= _KEYS:
        raise CxrfastError(problem)
    return state
