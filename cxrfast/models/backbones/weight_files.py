"""Reads tensors from files of other programs, without executing code that a file may contain."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cxrfast._files import is_file
from cxrfast._tensors import load_archive, read_safetensors
from cxrfast.errors import CxrfastError

State = dict[str, torch.Tensor]

# Keys under which training scripts save the weights, the most common first.
_NESTS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")


def read_tensors(path: Path, option: str) -> tuple[State, dict[str, str]]:
    """The tensors of a file by name, and its metadata (only safetensors files have any).

    The file is a `.safetensors` file, or a dictionary saved by `torch.save`, possibly nested in another one.

    Raises CxrfastError, in one line that begins with `option`, if the file is missing or damaged, contains no weights
    of a network, or contains other pickled objects.
    """
    if not is_file(path):
        raise CxrfastError(f"{option}: no file {path}")
    if path.suffix == ".safetensors":
        try:
            metadata, state = read_safetensors(path)
            return state, metadata
        except (OSError, ValueError) as error:
            raise CxrfastError(f"{option}: {path} is not a safetensors file, or is damaged") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for TorchScript archives, which are refused below
            content = load_archive(path)
    except Exception as error:  # errors of pickle, zip and torch for other contents
        raise CxrfastError(f"{option}: {path} {_why_not_read(error)}") from error
    found = _find_state(content)
    if found is None:
        keys = f"its keys: {', '.join(map(str, content))}" if isinstance(content, Mapping) else type(content).__name__
        raise CxrfastError(f"{option}: {path} holds no weights of a convolutional network ({keys})")
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}, {}


def _why_not_read(error: Exception) -> str:
    message = str(error)
    pickled = re.search(r"GLOBAL ([\w.]+)", message) or re.search(r"TorchScript", message)
    if pickled is None:
        return "is not a checkpoint of torch, or is damaged"
    what = f"a pickled {pickled[1]}" if pickled.lastindex else "a TorchScript program"
    return (
        f"holds {what}, not just tensors; opening it could run any code, so it is not opened. If you trust it, load it "
        "where it was made and save the weights alone: torch.save(model.state_dict(), 'weights.pt')"
    )


def _find_state(content: Any) -> Mapping[str, Any] | None:
    """The dictionary that contains convolution weights, at any level of nesting."""
    if not isinstance(content, Mapping):
        return None
    if any(isinstance(name, str) and getattr(value, "ndim", 0) == 4 for name, value in content.items()):
        return content
    for name in _NESTS:
        found = _find_state(content.get(name))
        if found is not None:
            return found
    return None
