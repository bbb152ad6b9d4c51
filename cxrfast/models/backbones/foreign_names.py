"""Converts other programs' tensor names of a backbone to timm's."""

import re
from collections.abc import Iterable

import torch

from cxrfast.models.backbones.weight_files import State

# torchvision 0.1 called the parts of a dense layer norm.1, conv.1, norm.2, conv.2.
_OLD_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.")


def current_name(name: str) -> str:
    """The current name in torchvision and timm of a tensor that had the name `name` in earlier versions."""
    return _OLD_DENSE_LAYER.sub(r"\1\2.", name)


def to_timm_names(state: State, own: Iterable[str]) -> State:
    """The tensors with timm's names if their names have a known format, else unchanged.

    Args:
        own: names of the tensors of timm's network, which tell how blocks are grouped into stages.
    """
    state = {current_name(name): tensor for name, tensor in state.items()}
    for anchor, convert in ((_EFFICIENTNET_STEM, _efficientnet), (_HF_PATCHES, _huggingface_dinov2)):
        found = next((name for name in state if name.endswith(anchor)), None)
        if found is not None:
            prefix = found.removesuffix(anchor)  # prefix of the backbone in a model with a head
            return convert({name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}, own)
    return state


# --- EfficientNet, EfficientNet-Lite: the port of the TensorFlow checkpoints whose modules begin with an underscore

_EFFICIENTNET_STEM = "_conv_stem.weight"
_STEM_AND_HEAD = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_EXPANDING = {  # an inverted residual
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+?)\.(\w+)$")


def _efficientnet(state: State, own: Iterable[str]) -> State:
    """The port numbers blocks consecutively, timm per stage. The first block has no expansion."""
    places = sorted({tuple(map(int, name.split(".")[1:3])) for name in own if name.startswith("blocks.")})
    expanding = {match[1] for name in state if (match := _BLOCK.match(name)) and match[2] == "_expand_conv"}
    renamed: State = {}
    for name, tensor in state.items():
        block = _BLOCK.match(name)
        if block is None:
            layer, _, leaf = name.rpartition(".")
            renamed[f"{_STEM_AND_HEAD.get(layer, layer)}.{leaf}"] = tensor
            continue
        number, layer, leaf = block.groups()
        layers = (_EXPANDING if number in expanding else _SEPARABLE) | _SQUEEZE
        place = ".".join(map(str, places[int(number)])) if int(number) < len(places) else f"beyond.{number}"
        renamed[f"blocks.{place}.{layers.get(layer, layer)}.{leaf}"] = tensor
    return renamed


# --- DINOv2 and its relatives (RAD-DINO) under the names of Hugging Face's transformers

_HF_PATCHES = "embeddings.patch_embeddings.projection.weight"
_HF_OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.position_embeddings": "pos_embed",
}
_HF_MODULES: tuple[tuple[str, str], ...] = (
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("layernorm.", "norm."),
)
_HF_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)$")
_HF_LAYER_MODULES = {
    "attention.output.dense.weight": "attn.proj.weight",
    "attention.output.dense.bias": "attn.proj.bias",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
_HF_QUERY = re.compile(r"(encoder\.layer\.\d+\.attention\.attention\.)query(\.\w+)$")
# SwiGLU, of the giant network
_HF_LAYER_PARTS = (("mlp.weights_in.", "mlp.w12."), ("mlp.weights_out.", "mlp.w3."))


def _huggingface_dinov2(state: State, own: Iterable[str]) -> State:
    """Convert to the names of the original DINOv2 code. timm converts these to its own, including registers and resized
    position embeddings. Queries, keys and values are concatenated to one matrix, in this order."""
    renamed: State = {"mask_token": torch.zeros(0)}  # timm recognises the format by this key, and drops it
    for name, tensor in state.items():
        query = _HF_QUERY.match(name)
        if query is not None:
            parts = [state.get(f"{query[1]}{part}{query[2]}") for part in ("query", "key", "value")]
            found = [part for part in parts if part is not None]
            layer = name.split(".")[2]
            renamed[f"blocks.{layer}.attn.qkv{query[2]}"] = torch.cat(found)
        elif ".attention.attention." not in name:
            renamed[_dinov2_name(name)] = tensor
    return renamed


def _dinov2_name(name: str) -> str:
    layer = _HF_LAYER.match(name)
    if layer is None:
        return _HF_OUTSIDE.get(name) or _replaced(name, _HF_MODULES)
    inside = _HF_LAYER_MODULES.get(layer[2]) or _replaced(layer[2], _HF_LAYER_PARTS)
    return f"blocks.{layer[1]}.{inside}"


def _replaced(name: str, table: Iterable[tuple[str, str]]) -> str:
    for theirs, ours in table:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
