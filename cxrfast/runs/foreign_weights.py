"""Reads checkpoints of other programs without executing code in them, and identifies the network by the keys."""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.models import SMALL_BACKBONES, create_backbone
from cxrfast.models.backbones.foreign_names import current_name
from cxrfast.models.backbones.weight_files import State, read_tensors

_COUNTER = "num_batches_tracked"  # of batch norms; checkpoints before torch 0.4.1 have none, and nothing depends on it


class _Family(NamedTuple):
    backbones: tuple[str, ...]
    prefix: str  # in timm's names
    anchors: tuple[str, str]  # two keys behind the prefix by which the family is known
    parts: re.Pattern  # first component of the keys of the feature extractor


def _small(family: str) -> tuple[str, ...]:
    return tuple(name for name in SMALL_BACKBONES if name.startswith(f"{family}_"))


_FAMILIES = (
    _Family(
        ("densenet121", "densenet161", "densenet169", "densenet201", *_small("densenet")),
        "features.",
        ("conv0.weight", "denseblock1.denselayer1.conv1.weight"),
        re.compile(r"(conv0|norm0|denseblock\d+|transition\d+|norm5)\."),
    ),
    _Family(
        ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", *_small("resnet")),
        "",
        ("conv1.weight", "layer1.0.conv1.weight"),
        re.compile(r"(conv1|bn1|layer\d)\."),
    ),
)


class ForeignClassifier(NamedTuple):
    """A classifier of N outputs on pooled features, with timm's names."""

    backbone: str
    in_chans: int
    features: State
    weight: torch.Tensor  # [N, D]
    bias: torch.Tensor  # [N]
    midpoints: torch.Tensor | None  # [N], torchxrayvision's op_threshs


def read_foreign(path: Path) -> State:
    """As :func:`cxrfast.models.backbones.weight_files.read_tensors`; UsageError for a weights file of cxrfast."""
    state, metadata = read_tensors(path, "import")
    if "cxrfast" in metadata:
        raise UsageError(f"import: {path} is a weights file of cxrfast already; use it with --checkpoint")
    return state


def match_classifier(state: State, source: str, ignore: Sequence[str] = ()) -> ForeignClassifier:
    """Identify the network of the tensors. CxrfastError lists the keys that are unexpected or missing.

    Args:
        source: named in errors.
        ignore: shell patterns of keys that are left out.
    """
    state = {name: tensor for name, tensor in state.items() if not any(fnmatch(name, pattern) for pattern in ignore)}
    original = {current_name(name): name for name in state}
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
        model = create_backbone(backbone, in_chans=in_chans)
    shapes = {name: tuple(x.shape) for name, x in model.state_dict().items() if not name.endswith(_COUNTER)}
    return shapes, model.num_features
