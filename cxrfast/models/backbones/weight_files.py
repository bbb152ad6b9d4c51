"""Reads tensors from files of other programs without executing code in them."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from cxrfast.errors import CxrfastError

State = dict[str, torch.Tensor]

# Keys under which training scripts store the weights, most common first.
_NESTS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")


def read_tensors(path: Path, option: str) -> tuple[State, dict[str, str]]:
    """The tensors by name, and the metadata (safetensors only, else empty), of a `.safetensors` file or a file written
    by `torch.save`. The weights may be nested in a dictionary.

    Raises CxrfastError, in one line that starts with `option`, for a file that is missing or damaged, contains no
    network weights, or contains objects other than tensors.
    """
    if not path.is_file():
        raise CxrfastError(f"{option}: no file {path}")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CxrfastError(f"{option}: {path} is not a safetensors file, or is damaged") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript archives, which are rejected below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch raise many types for other files
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
    """The (possibly nested) dictionary that contains convolutions."""
    if not isinstance(content, Mapping):
        return None
    if any(isinstance(name, str) and getattr(value, "ndim", 0) == 4 for name, value in content.items()):
        return content
    for name in _NESTS:
        found = _find_state(content.get(name))
        if found is not None:
            return found
    return None
