"""The two networks of Wang et al. 2017 that timm does not have, from torchvision."""

from collections import OrderedDict
from typing import Any, cast

import torch
import torchvision
from timm.models import adapt_input_conv
from torch import nn

from cxrfast.models.backbones.pretrained import cannot_fetch

_LAST = {"alexnet": "features", "googlenet": "inception5b"}  # last module before pooling and classifier
_STEM = {"alexnet": "features.0", "googlenet": "conv1.conv"}
_CHANNELS = {"alexnet": 256, "googlenet": 1024}

TORCHVISION_BACKBONES = tuple(_LAST)


class TorchvisionFeatures(nn.Sequential):
    """The part of a torchvision network before its pooling, with the original tensor names and the attributes of a timm
    model."""

    def __init__(self, layers: "OrderedDict[str, nn.Module]", name: str) -> None:
        super().__init__(layers)
        self.feature_info = [{"num_chs": _CHANNELS[name], "reduction": 32}]
        self.pretrained_cfg = {"first_conv": _STEM[name]}

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:  # [B, C, S, S] -> [B, D, S/32, S/32]
        return self(images)


def torchvision_backbone(name: str, *, pretrained: bool = False, in_chans: int = 1) -> TorchvisionFeatures:
    """`alexnet` or `googlenet` up to its pooling. Raises CxrfastError if weights cannot be downloaded."""
    network = _whole(name)
    if pretrained:
        try:
            weights = torchvision.models.get_model_weights(name)["DEFAULT"].get_state_dict(check_hash=True)
        except (OSError, RuntimeError) as error:
            raise cannot_fetch(name, error) from error
        network.load_state_dict({key: weights[key] for key in network.state_dict()})
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for child, module in network.named_children():
        layers[child] = module
        if child == _LAST[name]:
            break
    model = TorchvisionFeatures(layers, name)
    if in_chans != 3:
        _adapt_stem(model, _STEM[name], in_chans)
    return model


def torchvision_tensors(name: str) -> set[str]:
    """Names of all tensors of the network, including its classifiers."""
    with torch.device("meta"):
        return set(_whole(name, aux_logits=True).state_dict())


def _whole(name: str, *, aux_logits: bool = False) -> nn.Module:
    options: dict[str, Any] = {}
    if name == "googlenet":
        options = {"aux_logits": aux_logits, "transform_input": False, "init_weights": False}
    return torchvision.models.get_model(name, weights=None, **options)


def _adapt_stem(model: nn.Module, name: str, in_chans: int) -> None:
    """Convert the first convolution to `in_chans` channels as in timm: for one channel, sum its filters."""
    stem = cast(nn.Conv2d, model.get_submodule(name))
    stem.weight = nn.Parameter(adapt_input_conv(in_chans, stem.weight.detach()))
    stem.in_channels = in_chans
