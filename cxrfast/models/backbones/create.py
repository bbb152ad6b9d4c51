"""Backbones: networks of timm, and two of torchvision, up to their last spatial feature map."""

import difflib
import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any, cast

import timm
import torch
from torch import nn

from cxrfast.errors import UsageError
from cxrfast.models.backbones.feature_map import Findings, Layout, NoFeatureMap, explore, feature_map
from cxrfast.models.backbones.pretrained import cannot_fetch, load_file, offline_if_unreachable, one_line
from cxrfast.models.backbones.torchvision_networks import (
    TORCHVISION_BACKBONES,
    torchvision_backbone,
    torchvision_tensors,
)
from cxrfast.nn import antialias_

# Small networks for tests and for training without a GPU: name of the network in timm, and changed arguments.
SMALL_BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnetv2_micro": ("resnetv2_18", {"layers": [1, 1, 1, 1], "channels": (32, 64, 128, 256), "stem_chs": 32}),
    "resnetv2_nano": ("resnetv2_18", {"layers": [1, 1, 1, 1], "channels": (16, 32, 64, 128), "stem_chs": 16}),
    "densenet_micro": ("densenet121", {"growth_rate": 16, "block_config": (2, 4, 4, 3)}),
    "densenet_nano": ("densenet121", {"growth_rate": 8, "block_config": (1, 2, 2, 2)}),
    "resnet_micro": ("resnet18", {"layers": [1, 1, 1, 1], "channels": (32, 64, 128, 256)}),
    "resnet_nano": ("resnet18", {"layers": [1, 1, 1, 1], "channels": (16, 32, 64, 128)}),
}
_STRIDES = (8, 16, 32)
# Options of networks whose position embeddings or windows depend on the image size. Training images may be smaller
# (crops); they are padded to whole patches.
_OTHER_SIZES = {"dynamic_img_size": True, "dynamic_img_pad": True, "strict_img_size": False}


class Backbone(nn.Module):
    """A network up to its last spatial feature map.

    The keys of its state are those of `body`, without a prefix.

    Attributes:
        body: the module of timm or torchvision, without classifier.
        layout: how `body` returns the map; see :mod:`cxrfast.models.backbones.feature_map`.
        num_features: D, channels of the map.
        output_stride: image pixels per position of the map.
    """

    def __init__(self, body: nn.Module, layout: Layout, num_features: int, output_stride: int) -> None:
        super().__init__()
        self.body = body
        self.layout = layout
        self.num_features = num_features
        self.output_stride = output_stride
        self.register_state_dict_post_hook(_drop_body)
        self.register_load_state_dict_pre_hook(_add_body)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:  # [B, C, S, S] -> [B, D, h, w]
        return feature_map(self.body, images, self.layout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_features(images)


def _drop_body(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    inside = f"{prefix}body."
    for name in [name for name in state if name.startswith(inside)]:
        state[prefix + name.removeprefix(inside)] = state.pop(name)


def _add_body(module: nn.Module, state: dict[str, Any], prefix: str, *args: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}body.{name.removeprefix(prefix)}"] = state.pop(name)


def create_backbone(
    name: str,
    *,
    pretrained: bool | str = False,
    in_chans: int = 1,
    antialias: bool = False,
    antialias_stem: bool = False,
    filter_size: int = 3,
    output_stride: int | None = None,
    image_size: int | None = None,
    crop_size: int | None = None,
) -> Backbone:
    """A feature extractor `forward_features([B, in_chans, S, S]) -> [B, num_features, h, w]`.

    For a CNN the map is the result of timm's `forward_features`, with channels first. For a vision transformer it
    consists of the patch tokens after the last norm, arranged as in the image. Modules that the map does not depend on
    are removed.

    Args:
        name: a network of timm, with or without the tag of its weights (`resnet50.a1_in1k`); `alexnet` or `googlenet`
            of torchvision; or one of `SMALL_BACKBONES`.
        pretrained: True downloads weights through timm or torchvision, unless they are cached; a path loads a weights
            file (see :func:`cxrfast.models.backbones.pretrained.load_file`). For `in_chans=1`, the filters of a
            three-channel stem are summed.
        in_chans: C, channels of the input.
        antialias: insert blur pooling before every subsampling of a CNN except the first convolution, which stays
            strided in Zhang's ResNets too. The keys of the weights do not change.
        antialias_stem: with `antialias`, also before the subsampling of the first convolution.
        filter_size: taps of the blur pooling.
        output_stride: image pixels per position of the map; None: the network's own. 8, 16 and 32 are available for
            networks that timm can dilate, and for DenseNets.
        image_size: S, for the position embeddings and windows of transformers; None: that of the weights.
        crop_size: a smaller image size that the network must also accept, such as that of training crops.

    Raises:
        UsageError: the name is unknown; the network has no spatial map, does not accept images of this size, or has no
            such stride, no place for anti-aliasing or no pretrained weights.
        CxrfastError: the weights cannot be downloaded or read, or do not match the network.
    """
    base, overrides = SMALL_BACKBONES.get(name, (name, {}))
    check_backbone(name)
    if pretrained is True and name in SMALL_BACKBONES:
        raise UsageError(f"pretrained: there are no weights for {name}; leave --pretrained out, or use {base}")
    sizes = [image_size or _own_size(base)]
    if crop_size is not None and crop_size != sizes[0]:
        sizes.append(crop_size)
    settings = {"in_chans": in_chans, **overrides}
    if base not in TORCHVISION_BACKBONES:
        settings |= _size_settings(base, sizes)
        if output_stride is not None and "output_stride" in _accepted(base):
            settings["output_stride"] = output_stride
    body = _create(name, base, pretrained is True, settings, output_stride)
    if base.startswith("densenet") and output_stride is not None:
        _dilate_densenet(name, body, output_stride)
    findings = _findings(name, base, body, settings, output_stride, sizes)
    _leave_out(body, findings)
    if isinstance(pretrained, str):
        load_file(body, name, pretrained, _whole(base, settings))
    stride = _stride(base, body, findings, sizes[0], output_stride)
    if output_stride is not None and stride != output_stride:
        raise _wrong_stride(name, (stride,), output_stride)
    if image_size is not None and findings.layout == "tokens" and image_size % stride:
        low = image_size // stride * stride
        raise UsageError(
            f"image-size: expected a multiple of {stride}, the patch size of {name}, got {image_size}; choose "
            f"{low or stride}{f' or {low + stride}' if low else ''}"
        )
    if antialias:
        _antialias(name, body, findings.layout, filter_size, antialias_stem)
    return Backbone(body, findings.layout, findings.channels, stride)


def input_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, for grey values in [0, 1], of the input the pretrained weights expect.

    Values that are the same for all channels are returned once, because one channel with the summed filters of the stem
    gives the same features as three equal channels.
    """
    check_backbone(name)
    base, _ = SMALL_BACKBONES.get(name, (name, {}))
    known = None if base in TORCHVISION_BACKBONES else timm.get_pretrained_cfg(base)
    mean, std = (
        (timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD) if known is None else (known.mean, known.std)
    )
    if len({*zip(mean, std, strict=True)}) == 1:
        mean, std = mean[:1], std[:1]
    return tuple(mean), tuple(std)


def check_backbone(name: str) -> None:
    """Raises UsageError with similar names for an unknown network. Whether it has a spatial map is not checked."""
    if name in SMALL_BACKBONES or name in TORCHVISION_BACKBONES:
        return
    if not timm.is_model(name):
        known = [*timm.list_models(), *TORCHVISION_BACKBONES, *SMALL_BACKBONES]
        close = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else "expected the name of a network of timm, as resnet50"
        raise UsageError(f"backbone: unknown {name!r}; {hint}")
    arch, _, tag = name.partition(".")
    if tag and name not in timm.list_pretrained(f"{arch}.*"):
        known = [other.partition(".")[2] for other in timm.list_pretrained(f"{arch}.*")]
        raise UsageError(f"backbone: timm has no weights {tag!r} of {arch}; it has {', '.join(known) or 'none'}")


@cache
def _accepted(base: str) -> frozenset[str]:
    """Constructor arguments of the class of a timm network."""
    with torch.device("meta"):
        model = timm.create_model(base, num_classes=0)
    return frozenset(inspect.signature(type(model).__init__).parameters)


def _own_size(base: str) -> int:
    known = None if base in TORCHVISION_BACKBONES else timm.get_pretrained_cfg(base)
    return 224 if known is None else known.input_size[-1]


def _size_settings(base: str, sizes: Sequence[int]) -> dict[str, Any]:
    accepted = _accepted(base)
    if "img_size" not in accepted:
        return {}
    return {"img_size": sizes[0], **{key: value for key, value in _OTHER_SIZES.items() if key in accepted}}


def _create(name: str, base: str, fetch: bool, settings: dict[str, Any], output_stride: int | None) -> nn.Module:
    """The network without its classifier; `name` is the name given by the user."""
    if base in TORCHVISION_BACKBONES:
        body: nn.Module = torchvision_backbone(base, pretrained=fetch, in_chans=settings["in_chans"])
    else:
        try:
            with torch.device("meta") if fetch else nullcontext():  # check the arguments before downloading
                body = timm.create_model(base, num_classes=0, **settings)
        except Exception as error:  # AssertionError, KeyError, NotImplementedError and others
            if "output_stride" in settings:
                raise _wrong_stride(name, _possible_strides(base, settings), output_stride) from error
            raise UsageError(f"backbone: timm cannot build {name} ({one_line(error)})") from error
    if fetch and base not in TORCHVISION_BACKBONES:
        try:
            with offline_if_unreachable():
                body = timm.create_model(base, pretrained=True, num_classes=0, **settings)
        except Exception as error:  # network, cache, file and key errors of several libraries
            raise cannot_fetch(name, error) from error
    return body


def _whole(base: str, settings: dict[str, Any]) -> set[str]:
    """Names of all tensors of the network, including its classifier."""
    if base in TORCHVISION_BACKBONES:
        return torchvision_tensors(base)
    with torch.device("meta"):
        return set(timm.create_model(base, **settings).state_dict())


def _possible_strides(base: str, settings: dict[str, Any]) -> tuple[int, ...]:
    found = []
    for stride in _STRIDES:
        try:
            with torch.device("meta"):
                timm.create_model(base, num_classes=0, **{**settings, "output_stride": stride})
        except Exception:  # see _create
            continue
        found.append(stride)
    return tuple(found)


def _wrong_stride(name: str, possible: Sequence[int], asked: int | None) -> UsageError:
    *others, last = map(str, possible or ("none",))
    expected = f"{', '.join(others)} or {last}" if others else last
    return UsageError(f"output_stride: expected {expected} for {name}, got {asked}")


def _dilate_densenet(name: str, body: nn.Module, output_stride: int) -> None:
    """Remove the pooling of the last transitions and dilate the following filters to keep their receptive fields."""
    if output_stride not in _STRIDES:
        raise _wrong_stride(name, _STRIDES, output_stride)
    features = cast(nn.Sequential, body.features)
    dilation = 1
    for stage, stride_behind in ((2, 16), (3, 32)):
        if stride_behind > output_stride:
            features.get_submodule(f"transition{stage}").pool = nn.Identity()
            dilation *= 2
        for module in features.get_submodule(f"denseblock{stage + 1}").modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.dilation = module.padding = (dilation, dilation)


_FOUND: dict[str, Findings] = {}  # cached, because exploring takes as long as building the network


def _findings(
    name: str, base: str, body: nn.Module, settings: dict[str, Any], output_stride: int | None, sizes: Sequence[int]
) -> Findings:
    key = repr((base, sorted(settings.items()), output_stride, tuple(sizes)))
    if key not in _FOUND:
        try:
            _FOUND[key] = explore(body, settings["in_chans"], sizes)
        except NoFeatureMap as error:
            raise UsageError(
                f"backbone: {name} has no spatial map to localise with, but {error}; take a CNN or a vision "
                "transformer with one, as resnet50 or vit_small_patch16_224"
            ) from None
        except Exception as error:  # errors of any kind for images of an unsupported size
            taken = " and training crops of ".join(f"{size}×{size}" for size in sizes)
            raise UsageError(f"image-size: {name} cannot take images of {taken} ({one_line(error)})") from error
    return _FOUND[key]


def _leave_out(body: nn.Module, findings: Findings) -> None:
    """Remove modules and parameters that the map does not depend on: they get no gradient and enlarge weight files."""
    for module in findings.never_called:
        body.set_submodule(module, nn.Identity())
    for name in findings.without_gradient:
        owner, _, leaf = name.rpartition(".")
        parent = body.get_submodule(owner)
        tensor = parent._parameters.pop(leaf)
        parent.register_buffer(leaf, None if tensor is None else tensor.detach())


def _stride(base: str, body: nn.Module, findings: Findings, size: int, output_stride: int | None) -> int:
    info = getattr(body, "feature_info", None)
    stated = info[-1].get("reduction") if info else None
    if base.startswith("densenet") and output_stride is not None:
        stated = output_stride
    height = findings.sizes[0]
    # For odd image sizes the map size is rounded, or reduced where there is no padding.
    if stated is not None and abs(height - size / stated) <= 2:
        return int(stated)
    return round(size / height)


def _antialias(name: str, body: nn.Module, layout: Layout, filter_size: int, stem: bool) -> None:
    if layout != "channels_first":
        raise UsageError(
            f"antialias: expected false for {name}, which divides images into patches and has no subsampling, got "
            "true; set antialias=false"
        )
    first = next((module for module, layer in body.named_modules() if isinstance(layer, nn.Conv2d)), None)
    try:
        antialias_(body, filter_size=filter_size, skip=[] if stem or first is None else [first])
    except ValueError as error:
        raise UsageError(
            f"antialias: expected false for {name}, which has no strided convolution or pooling, got true; set "
            "antialias=false"
        ) from error
