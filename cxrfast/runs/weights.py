"""Weights that can be used alone: safetensors with the metadata needed to use them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import cxrfast
from cxrfast._files import atomic_path
from cxrfast.errors import CxrfastError
from cxrfast.methods import METHODS, Method, get_method

_FORMAT = "cxrfast-1"


def save_weights(
    path: Path,
    method: Method,
    *,
    stage: str,
    label_version: str,
    operating_points: Sequence[float] | None = None,
    epoch: int | None = None,
    validated: bool = True,
) -> None:
    """Write the method's whole state with what is needed to use it: classes in order, image size, options, and the
    scores from which the classes are called present (0.5 where validation gave none).

    With `validated` false, no validation image was there: the epoch is the last one, which the file then says."""
    points = operating_points or [0.5] * len(method.class_names)
    metadata = {
        "format": _FORMAT,
        "cxrfast": cxrfast.__version__,
        "method": method.name,
        "stage": stage,
        "class_names": json.dumps(method.class_names),
        "image_size": str(method.image_size),
        "normalization": "grey, scaled from [0, 1] to [-1, 1]",
        "label_version": label_version,
        "operating_points": json.dumps([0.5 if math.isnan(point) else point for point in points]),
        "validated": json.dumps(validated),
        **({"epoch": str(epoch)} if epoch is not None else {}),
        "options": json.dumps(_without_pretrained(method.options.model_dump(mode="json"))),
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in method.state_dict().items()}
    with atomic_path(path) as temporary:
        try:
            save_file(state, str(temporary), metadata)
        except SafetensorError as error:  # what the library makes of a disk error
            reason = " ".join(str(error).split())
            raise CxrfastError(f"{path} cannot be written ({reason}); is the disk full?") from error


def _without_pretrained(options: dict[str, Any]) -> dict[str, Any]:
    """An architecture is rebuilt from its options; its first weights are of no use then. Some have none."""
    return {**options, "pretrained": False} if "pretrained" in options else options


def load_weights(path: Path, *, expected_method: str | None = None) -> tuple[Method, dict[str, str]]:
    """Rebuild a method from a file of :func:`save_weights`, in evaluation mode; returns it with the metadata.

    Raises CxrfastError, in one line, for a file that is missing, not safetensors, not ours, of another method than
    `expected_method`, or whose tensors do not match the network.
    """
    path = Path(path)
    metadata, state = read_weights(path)
    if metadata.get("format") != _FORMAT:
        raise CxrfastError(f"checkpoint: expected weights written by cxrfast train, got {path} without their metadata")
    name = metadata.get("method", "")
    if expected_method is not None and name != expected_method:
        raise CxrfastError(f"checkpoint: expected weights of method {expected_method!r}, got {name!r} in {path}")
    if name not in METHODS:
        raise CxrfastError(f"checkpoint: expected a method of {', '.join(METHODS)}, got {name!r} in {path}")
    cls = get_method(name)
    try:
        options = cls.Options(**json.loads(metadata["options"]))
        method = cls(json.loads(metadata["class_names"]), int(metadata["image_size"]), options)
    except (KeyError, TypeError, ValueError) as error:  # ValueError: JSON's and pydantic's too
        raise CxrfastError(
            f"checkpoint: the metadata of {path} do not describe a model of cxrfast {cxrfast.__version__} "
            f"(written by {metadata.get('cxrfast', 'an unknown version')}); train it again, or use that version"
        ) from error
    load_state(method, state, str(path))
    return method.eval(), metadata


def load_state(method: Method, state: dict[str, torch.Tensor], source: str) -> None:
    """Strict loading whose error names the difference in one line."""
    own = method.state_dict()
    missing = sorted(own.keys() - state.keys())
    unknown = sorted(state.keys() - own.keys())
    shapes = sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    parts = [
        f"{len(names)} {what} (first: {names[0]})"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
        if names
    ]
    if parts:
        raise CxrfastError(f"checkpoint: {source} does not fit method {method.name!r}: tensors {'; '.join(parts)}")
    method.load_state_dict(state)


def read_weights(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata and tensors of a safetensors file, whoever wrote it."""
    if path.suffix == ".ckpt":
        raise CxrfastError(
            f"checkpoint: expected weights, got {path}, which is for --resume; use weights/best.safetensors of the run"
        )
    if not path.is_file():
        raise CxrfastError(f"checkpoint: no file {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CxrfastError(f"checkpoint: {path} is not a safetensors file, or is damaged") from error
