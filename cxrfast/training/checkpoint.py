"""Checkpoints: the state from which an interrupted run resumes.

`last.ckpt` is the record of what a run has done. After every epoch it is written first, whole or not at all, and it has
all that the other files are made of: a run that is killed before it has written those writes them when it resumes.
`partial.ckpt` has the state within an epoch that a signal has stopped.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cxrfast._files import atomic_path
from cxrfast._tensors import load_archive
from cxrfast.errors import CxrfastError
from cxrfast.runs.weights import read_weights
from cxrfast.training.validation import Validation

_KEYS = {"leg", "epoch", "best", "method", "state", "optimizer", "scheduler"}


@dataclass(frozen=True)
class Progress:
    """How far an epoch is that a signal has stopped. Lists have an entry for each process.

    Attributes:
        batches: finished batches.
        totals, counts: sums of the loss, and numbers of images.
        random: states of torch's generators: the CPU's, and the GPU's or an empty tensor.
        seconds: time taken.
        workers: data-loader workers of a process.
    """

    batches: int
    totals: list[float]
    counts: list[int]
    random: list[list[torch.Tensor]]
    seconds: float
    workers: int


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, atomically.

    `state` may contain only tensors, numbers, strings, lists and dictionaries, so that reading it executes no code.
    Raises CxrfastError if it cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # of torch's own writer, for example on a full disk
            reason = " ".join(str(error).split())[:200]
            raise CxrfastError(f"{path} cannot be written ({reason}); is the disk full?") from error


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


def partial_state(path: Path, finished: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The state within the epoch that follows the last `finished` one; None if none was saved, or of another epoch."""
    if not path.exists():
        return None
    state = load_checkpoint(path)
    leg, epoch = (finished["leg"], finished["epoch"]) if finished is not None else (-1, 0)
    follows = (state["leg"] == leg and state["epoch"] == epoch) or state["leg"] == leg + 1
    return state if follows and "progress" in state else None


def validation_state(validation: Validation) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(validation).items()}


def validation_of(state: Mapping[str, Any]) -> Validation | None:
    """The last validation; None before the first one, and for a checkpoint of an earlier version."""
    values = state.get("validation")
    if values is None:
        return None
    fields: dict[str, Any] = {name: tuple(of) if isinstance(of, list) else of for name, of in values.items()}
    return Validation(**fields)


def rows_of(state: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of all finished epochs; None for a checkpoint of an earlier version, whose rows are in
    `metrics.jsonl` only."""
    return json.loads(state["rows"]) if "rows" in state else None


def best_is_last(state: Mapping[str, Any]) -> bool:
    """Whether the best weights are those of the checkpoint itself."""
    return "rows" in state and state["best_row"] == len(rows_of(state) or ()) - 1


def holds(weights: Path, state: Mapping[str, Any]) -> bool:
    """Whether a file of weights has exactly those of the checkpoint."""
    try:
        metadata, tensors = read_weights(weights)
    except CxrfastError:
        return False
    own = state["state"]
    if tensors.keys() != own.keys() or metadata.get("epoch") != str(state["epoch"]):
        return False
    return all(
        tensors[name].dtype == own[name].dtype
        and tensors[name].shape == own[name].shape
        and torch.equal(_bytes(tensors[name]), _bytes(own[name]))
        for name in own
    )


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """NaN is equal to itself as bytes."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
