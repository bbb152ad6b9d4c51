"""Feature extractors from timm: pre-activation ResNets (He et al. 2016b) with anti-aliased downsampling (Zhang 2019),
and the networks that classifiers of X-rays are built on."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import timm
from torch import nn

from cxrfast.errors import UsageError
from cxrfast.models._pretrained import cannot_load, weights_file
from cxrfast.models.torchvision_backbones import TORCHVISION_BACKBONES, torchvision_backbone
from cxrfast.nn import antialias_

# Smaller members of a family, for tests and for training without a GPU: timm's name and what differs from it.
_SMALL_PREACTIVATION: dict[str, tuple[str, dict[str, Any]]] = {
    "resnetv2_micro": ("resnetv2_18", {"layers": [1, 1, 1, 1], "channels": (32, 64, 128, 256), "stem_chs": 32}),
    "resnetv2_nano": ("resnetv2_18", {"layers": [1, 1, 1, 1], "channels": (16, 32, 64, 128), "stem_chs": 16}),
}
_SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "densenet_micro": ("densenet121", {"growth_rate": 16, "block_config": (2, 4, 4, 3)}),
    "densenet_nano": ("densenet121", {"growth_rate": 8, "block_config": (1, 2, 2, 2)}),
    "resnet_micro": ("resnet18", {"layers": [1, 1, 1, 1], "channels": (32, 64, 128, 256)}),
    "resnet_nano": ("resnet18", {"layers": [1, 1, 1, 1], "channels": (16, 32, 64, 128)}),
}
_FIRST_CONVOLUTION = {
    "densenet": "features.conv0",
    "resnet": "conv1",
    "vgg": "features.0",
    "alexnet": "features.0",
    "googlenet": "conv1",
}
CLASSIFICATION_BACKBONES: tuple[str, ...] = (
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    *TORCHVISION_BACKBONES,
    *_SMALL,
)
"""The networks of :func:`classification_backbone`."""


def preactivation_resnet(
    name: str = "resnetv2_50",
    *,
    pretrained: bool | str = False,
    in_chans: int = 1,
    antialias: bool = True,
    antialias_stem: bool = False,
    filter_size: int = 3,
    output_stride: int = 32,
) -> nn.Module:
    """A feature extractor `forward_features([B, in_chans, S, S]) -> [B, num_features, S/output_stride, …]`.

    Args:
        name: `resnetv2_50` (the paper's), any other `resnetv2_*` of timm, `resnetv2_micro` or `resnetv2_nano`.
        pretrained: True loads timm's ImageNet weights (needs a network the first time); a path loads a safetensors file
            of the same network. Three-channel stems are summed for `in_chans=1`.
        antialias: put blur-pools with `filter_size` taps in front of every subsampling but the first convolution's,
            which Zhang's ResNets leave strided too. The keys of the weights stay.
        antialias_stem: with `antialias`, in front of the first convolution's subsampling too.
        output_stride: 32, 16 or 8; smaller ones dilate instead of subsampling.

    Raises:
        UsageError: unknown name, or weights asked for where there are none.
        CxrfastError: the weights cannot be fetched or read, or do not fit.
    """
    base, overrides = _SMALL_PREACTIVATION.get(name, (name, {}))
    known = timm.list_models("resnetv2_*")
    if base not in known:
        raise UsageError(f"backbone: expected one of {', '.join([*known, *_SMALL_PREACTIVATION])}, got {name!r}")
    if pretrained is True and name in _SMALL_PREACTIVATION:
        raise UsageError(f"pretrained: there are no weights for {name}; leave --pretrained out, or use resnetv2_50")
    model = _create(name, base, pretrained, {"in_chans": in_chans, "output_stride": output_stride, **overrides})
    if not antialias:
        return model
    return antialias_(model, filter_size=filter_size, skip=[] if antialias_stem else ["stem.conv"])


def classification_backbone(
    name: str = "densenet121",
    *,
    pretrained: bool | str = False,
    in_chans: int = 1,
    antialias: bool = False,
    filter_size: int = 3,
    output_stride: int = 32,
) -> nn.Module:
    """A feature extractor `forward_features([B, in_chans, S, S]) -> [B, num_features, S/output_stride, …]`.

    Names of tensors are those of torchvision's and timm's models of that name, the classifier left out.

    Args:
        name: one of `CLASSIFICATION_BACKBONES`.
        pretrained, antialias: as for :func:`preactivation_resnet`.
        output_stride: 32; for DenseNets and ResNets also 16 or 8, which dilate instead of subsampling. The weights are
            the same.

    Raises:
        UsageError: unknown name, weights asked for where there are none, or a stride that the network has not.
        CxrfastError: the weights cannot be fetched or read, or do not fit.
    """
    if name not in CLASSIFICATION_BACKBONES:
        raise UsageError(f"backbone: expected one of {', '.join(CLASSIFICATION_BACKBONES)}, got {name!r}")
    base, overrides = _SMALL.get(name, (name, {}))
    if pretrained is True and name in _SMALL:
        raise UsageError(f"pretrained: there are no weights for {name}; leave --pretrained out, or use {base}")
    strides = (8, 16, 32) if base.startswith(("densenet", "resnet")) else (32,)
    if output_stride not in strides:
        expected = "8, 16 or 32" if len(strides) > 1 else "32"
        raise UsageError(f"output_stride: expected {expected} for {name}, got {output_stride}")
    settings: dict[str, Any] = {"in_chans": in_chans, **overrides}
    if base.startswith("resnet"):
        settings["output_stride"] = output_stride
    if base in TORCHVISION_BACKBONES:
        model: nn.Module = torchvision_backbone(base, pretrained=pretrained, in_chans=in_chans)
    else:
        model = _create(name, base, pretrained, settings)
    if base.startswith("densenet"):
        _dilate_densenet(model, output_stride)
    if base.startswith("vgg"):  # the fully connected layers, which features do not pass
        model.pre_logits = nn.Identity()
    first = next(name for family, name in _FIRST_CONVOLUTION.items() if base.startswith(family))
    return antialias_(model, filter_size=filter_size, skip=[first]) if antialias else model


def _create(name: str, base: str, pretrained: bool | str, settings: dict[str, Any]) -> nn.Module:
    """timm's model `base` without its classifier; `name` is what the user called it."""
    settings = {"num_classes": 0, **settings}
    if isinstance(pretrained, str):
        settings["pretrained_cfg_overlay"] = {"file": str(weights_file(name, pretrained))}
    try:
        with _offline_if_unreachable() if pretrained is True else nullcontext():
            return timm.create_model(base, pretrained=bool(pretrained), **settings)
    except Exception as error:  # network, cache, file and key errors of four libraries
        if not pretrained:
            raise
        raise cannot_load(name, error) from error


def _dilate_densenet(model: nn.Module, output_stride: int) -> None:
    """Drop the pooling of the last transitions, and dilate what follows, so that filters reach as far as before."""
    features = cast(nn.Sequential, model.features)
    dilation = 1
    for stage, stride_behind in ((2, 16), (3, 32)):
        if stride_behind > output_stride:
            features.get_submodule(f"transition{stage}").pool = nn.Identity()
            dilation *= 2
        for module in features.get_submodule(f"denseblock{stage + 1}").modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.dilation = module.padding = (dilation, dilation)


@contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Without a network the hub's client retries for a minute, talking all the while; asked once, it reads its cache or
    fails at once."""
    from huggingface_hub import constants, get_session

    before = constants.HF_HUB_OFFLINE
    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # of whichever HTTP library this version of the client uses
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
