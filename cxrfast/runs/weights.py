"""Weights that can be used alone: safetensors with the metadata needed to use them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

import cxrfast
from cxrfast._files import is_file, write_bytes
from cxrfast._tensors import read_safetensors
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.methods import METHODS, Method, get_method
from cxrfast.runs.provenance import KEY, Provenance
from cxrfast.runs.weights_metadata import check_metadata

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
    learnt_from: Provenance | None = None,
) -> None:
    """Write the method's whole state with what is needed to use it: classes in order, image size, options, and the
    scores from which the classes are called present (0.5 where validation gave none).

    With `validated` false, no validation image was there: the epoch is the last one, which the file then says.
    `learnt_from` is None where nothing is known of the training."""
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
        **({KEY: learnt_from.model_dump_json()} if learnt_from is not None else {}),
        "options": json.dumps(_without_pretrained(method.options.model_dump(mode="json"))),
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in method.state_dict().items()}
    write_bytes(path, save(state, metadata))  # not save_file, whose files no one else can read, whatever the umask


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
        given = check_metadata(metadata, path)
        method = cls(given.class_names, given.image_size, cls.Options(**given.options))
        if metadata["stage"] not in {stage.name for stage in method.stages(1)}:
            raise ValueError(f"stage {metadata['stage']!r}")
    except (KeyError, TypeError, ValueError, UsageError) as error:  # ValueError: JSON's and pydantic's too
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


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file, without its tensors."""
    try:
        return read_safetensors(path, tensors=False)[0]
    except (OSError, ValueError) as error:
        raise CxrfastError(f"checkpoint: {path} is not a safetensors file, or is damaged") from error


def read_weights(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata and tensors of a safetensors file, whoever wrote it."""
    if path.suffix == ".ckpt":
        raise CxrfastError(
            f"checkpoint: expected weights, got {path}, which is for --resume; use weights/best.safetensors of the run"
        )
    if not is_file(path):
        raise CxrfastError(f"checkpoint: no file {path}")
    try:
        return read_safetensors(path)
    except (OSError, ValueError) as error:
        raise CxrfastError(f"checkpoint: {path} is not a safetensors file, or is damaged") from error
