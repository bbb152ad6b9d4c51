"""The two networks of Wang et al. 2017 that timm does not have, from torchvision."""

from collections import OrderedDict
from typing import cast

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import nn

from cxrfast.errors import CxrfastError
from cxrfast.models._pretrained import cannot_load, weights_file

_LAST = {"alexnet": "features", "googlenet": "inception5b"}  # behind it stand pooling and the classifier
_STEM = {"alexnet": "features.0", "googlenet": "conv1.conv"}
_CHANNELS = {"alexnet": 256, "googlenet": 1024}

TORCHVISION_BACKBONES = tuple(_LAST)


class TorchvisionFeatures(nn.Sequential):
    """Everything in front of a torchvision network's pooling, by the names that it has there."""

    def __init__(self, layers: OrderedDict[str, nn.Module], channels: int) -> None:
        super().__init__(layers)
        self.feature_info = [{"num_chs": channels}]

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:  # [B, C, S, S] -> [B, D, S/32, S/32]
        return self(images)


def torchvision_backbone(name: str, *, pretrained: bool | str = False, in_chans: int = 1) -> TorchvisionFeatures:
    """`alexnet` or `googlenet` up to its pooling; arguments and errors as of `classification_backbone`.

    `pretrained`: a file holds torchvision's names, with or without those of the classifier.
    """
    options = {"aux_logits": False, "transform_input": False, "init_weights": False} if name == "googlenet" else {}
    network = torchvision.models.get_model(name, weights=None, **options)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for child, module in network.named_children():
        layers[child] = module
        if child == _LAST[name]:
            break
    model = TorchvisionFeatures(layers, _CHANNELS[name])
    if pretrained:
        _load(model, name, _weights(name, pretrained))
    if in_chans != 3:
        _adapt_stem(model, _STEM[name], in_chans)
    return model


def _weights(name: str, pretrained: bool | str) -> dict[str, torch.Tensor]:
    try:
        if isinstance(pretrained, str):
            return load_file(weights_file(name, pretrained))
        return dict(torchvision.models.get_model_weights(name)["DEFAULT"].get_state_dict(check_hash=True))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise cannot_load(name, error) from error


def _load(model: nn.Module, name: str, weights: dict[str, torch.Tensor]) -> None:
    wanted = model.state_dict()
    lacking = [key for key, value in wanted.items() if key not in weights or weights[key].shape != value.shape]
    if lacking:
        raise CxrfastError(
            f"pretrained: these are not weights of {name}: {len(lacking)} of {len(wanted)} tensors are missing or have "
            f"another shape, {lacking[0]} among them; give a .safetensors file of torchvision's {name}"
        )
    model.load_state_dict({key: weights[key] for key in wanted})


def _adapt_stem(model: nn.Module, name: str, in_chans: int) -> None:
    """Let the first convolution take `in_chans` channels, as timm does: for one, its filters are summed."""
    stem = cast(nn.Conv2d, model.get_submodule(name))
    stem.weight = nn.Parameter(adapt_input_conv(in_chans, stem.weight.detach()))
    stem.in_channels = in_chans
