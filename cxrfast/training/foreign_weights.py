"""Checkpoints that other programs have written: read without running anything in them, and told apart by their keys."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.models import CLASSIFICATION_BACKBONES, classification_backbone, feature_channels

State = dict[str, torch.Tensor]

# Names under which training scripts keep the weights, the likeliest first.
_NESTS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
# torchvision 0.1 called the parts of a dense layer norm.1, conv.1, norm.2, conv.2.
_OLD_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.")
_COUNTER = "num_batches_tracked"  # of batch norms; checkpoints before torch 0.4.1 have none, and nothing depends on it


class _Family(NamedTuple):
    backbones: tuple[str, ...]
    prefix: str  # in timm's names
    anchors: tuple[str, str]  # two keys behind the prefix by which the family is known
    parts: re.Pattern  # first component of the keys of the feature extractor


_FAMILIES = (
    _Family(
        tuple(name for name in CLASSIFICATION_BACKBONES if name.startswith("densenet")),
        "features.",
        ("conv0.weight", "denseblock1.denselayer1.conv1.weight"),
        re.compile(r"(conv0|norm0|denseblock\d+|transition\d+|norm5)\."),
    ),
    _Family(
        tuple(name for name in CLASSIFICATION_BACKBONES if name.startswith("resnet")),
        "",
        ("conv1.weight", "layer1.0.conv1.weight"),
        re.compile(r"(conv1|bn1|layer\d)\."),
    ),
)


class ForeignClassifier(NamedTuple):
    """A classifier of N outputs on pooled features, with the names of `classification_backbone`."""

    backbone: str
    in_chans: int
    features: State
    weight: torch.Tensor  # [N, D]
    bias: torch.Tensor  # [N]
    midpoints: torch.Tensor | None  # [N], torchxrayvision's op_threshs


def read_foreign(path: Path) -> State:
    """The tensors of a checkpoint: `.safetensors`, or what `torch.save` has written.

    Raises CxrfastError, in one line, for a file that is missing or damaged, that holds no network's weights, or that
    would have to be unpickled.
    """
    if not path.is_file():
        raise CxrfastError(f"import: no file {path}")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                if "cxrfast" in (file.metadata() or {}):
                    raise UsageError(f"import: {path} is a weights file of cxrfast already; use it with --checkpoint")
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CxrfastError(f"import: {path} is not a safetensors file, or is damaged") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a TorchScript archive, which is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's, zip's and torch's errors of a file that holds something else
        raise CxrfastError(_why_not_read(path, error)) from error
    found = _find_state(content)
    if found is None:
        keys = f"its keys: {', '.join(map(str, content))}" if isinstance(content, Mapping) else type(content).__name__
        raise CxrfastError(f"import: {path} holds no weights of a convolutional network ({keys})")
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def _why_not_read(path: Path, error: Exception) -> str:
    message = str(error)
    pickled = re.search(r"GLOBAL ([\w.]+)", message) or re.search(r"TorchScript", message)
    if pickled is None:
        return f"import: {path} is not a checkpoint of torch, or is damaged"
    what = f"a pickled {pickled[1]}" if pickled.lastindex else "a TorchScript program"
    return (
        f"import: {path} holds {what}, not just tensors; opening it could run any code, so it is not opened. If you "
        "trust it, load it where it was made and save the weights alone: torch.save(model.state_dict(), 'weights.pt')"
    )


def _find_state(content: Any) -> Mapping[str, Any] | None:
    """The dictionary that holds convolutions, wherever a training script has put it."""
    if not isinstance(content, Mapping):
        return None
    if any(isinstance(name, str) and getattr(value, "ndim", 0) == 4 for name, value in content.items()):
        return content
    for name in _NESTS:
        found = _find_state(content.get(name))
        if found is not None:
            return found
    return None


def match_classifier(state: State, source: str, ignore: Sequence[str] = ()) -> ForeignClassifier:
    """Which network the tensors are of; CxrfastError that lists every key without a place, or a place without a key.

    Args:
        source: named in errors.
        ignore: shell patterns of keys that are left out.
    """
    state = {name: tensor for name, tensor in state.items() if not any(fnmatch(name, pattern) for pattern in ignore)}
    original = {_OLD_DENSE_LAYER.sub(r"\1\2.", name): name for name in state}
    family, prefix = _only_network(original, source)
    body, rest = {}, {}
    for name, old_name in original.items():
        behind = name.removeprefix(prefix)
        if name.startswith(prefix) and family.parts.match(behind):
            body[family.prefix + behind] = state[old_name]
        elif not name.endswith(_COUNTER):
            rest[old_name] = state[old_name]
    first = body[family.prefix + family.anchors[0]]
    in_chans = first.shape[1]
    backbone, channels, problems = _closest(family, body, in_chans)
    thresholds = [name for name in rest if name.rpartition(".")[2] == "op_threshs"]
    midpoints = rest.pop(thresholds[0]) if len(thresholds) == 1 else None
    layers = [name for name in rest if name.endswith("weight") and rest[name].shape[1:].numel() == channels]
    layers = [name for name in layers if rest[name].ndim in (2, 4) and name.removesuffix("weight") + "bias" in rest]
    weight = bias = torch.empty(0)
    if len(layers) == 1:
        weight = rest.pop(layers[0]).flatten(1)
        bias = rest.pop(layers[0].removesuffix("weight") + "bias")
    else:
        problems.append(f"{len(layers) or 'no'} classifiers of {channels} features, expected one")
    if rest:
        problems.append(f"{len(rest)} keys without a place: {', '.join(sorted(rest))}")
    if problems:
        raise CxrfastError(
            f"import: {source} does not match {backbone} with a linear classifier: {'; '.join(problems)}; leave out "
            "keys that scores do not depend on with --ignore PATTERN"
        )
    complete = {name: body[name].float() for name in body if not name.endswith(_COUNTER)}
    return ForeignClassifier(backbone, in_chans, complete, weight.float(), bias.float(), midpoints)


def _only_network(names: Mapping[str, str], source: str) -> tuple[_Family, str]:
    """The family, and what its keys begin with in this checkpoint."""
    found = [
        (family, name.removesuffix(family.anchors[0]))
        for family in _FAMILIES
        for name in names
        if (name == family.anchors[0] or name.endswith("." + family.anchors[0]))
        and name.removesuffix(family.anchors[0]) + family.anchors[1] in names
    ]
    if len(found) != 1:
        problem = f"{len(found)} networks" if found else "no DenseNet or ResNet"
        raise CxrfastError(f"import: {source} holds {problem}, expected one; its keys: {', '.join(names.values())}")
    return found[0]


def _closest(family: _Family, body: State, in_chans: int) -> tuple[str, int, list[str]]:
    """(name, channels, differences) of the backbone whose tensors differ least; none where one fits."""
    return min(_differences(family, body, in_chans), key=lambda found: (found[3], len(found[2])))[:3]


def _differences(family: _Family, body: State, in_chans: int) -> Iterator[tuple[str, int, list[str], int]]:
    given = {name: tuple(tensor.shape) for name, tensor in body.items() if not name.endswith(_COUNTER)}
    for backbone in family.backbones:
        own, channels = _shapes(backbone, in_chans)
        lists = {
            "keys without a place": sorted(given.keys() - own.keys()),
            "missing": sorted(own.keys() - given.keys()),
            "of another shape": sorted(name for name in own.keys() & given.keys() if own[name] != given[name]),
        }
        problems = [f"{len(names)} {what}: {', '.join(names)}" for what, names in lists.items() if names]
        yield backbone, channels, problems, sum(map(len, lists.values()))


@cache
def _shapes(backbone: str, in_chans: int) -> tuple[dict[str, tuple[int, ...]], int]:
    """Shapes of the backbone's tensors by name, and its channels; no memory is filled."""
    with torch.device("meta"):
        model = classification_backbone(backbone, in_chans=in_chans)
    shapes = {name: tuple(x.shape) for name, x in model.state_dict().items() if not name.endswith(_COUNTER)}
    return shapes, feature_channels(model)
