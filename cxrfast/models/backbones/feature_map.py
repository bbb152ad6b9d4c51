"""Finds the last feature map of a timm model by a forward pass, usually on the meta device."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import nn
from torch.func import functional_call

Layout = Literal["channels_first", "channels_last", "tokens"]


class NoFeatureMap(Exception):
    """The features are not a spatial map; the message describes them."""


class Findings(NamedTuple):
    """The properties of a model, found by a forward and backward pass."""

    layout: Layout
    channels: int  # D
    sizes: tuple[int, ...]  # height of the map for each image size that was asked for
    never_called: tuple[str, ...]  # modules with parameters that have no part in the map: classifiers, their norms
    without_gradient: tuple[str, ...]  # parameters of other modules that the map does not depend on


class _MapOf(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: torch.Tensor, layout: Layout) -> torch.Tensor:
        return feature_map(self.body, images, layout)


def feature_map(
    body: nn.Module,
    images: torch.Tensor,  # [B, C, S, S]
    layout: Layout,
) -> torch.Tensor:  # [B, D, h, w]
    """The last feature map of timm's model `body`, after its last norm if it has one.

    For CNNs, and with channels last for some transformers, it is the output of `forward_features`. For models with
    tokens, timm's `forward_intermediates` selects the patch tokens and arranges them as in the image.
    """
    model = cast(Any, body)
    if layout == "channels_first":
        return model.forward_features(images)
    if layout == "channels_last":
        return model.forward_features(images).movedim(-1, 1)
    return _last_tokens(model, images)


def _last_tokens(model: Any, images: torch.Tensor) -> torch.Tensor:
    options = {"indices": 1, "intermediates_only": True, "output_fmt": "NCHW"}
    try:
        return model.forward_intermediates(images, norm=True, **options)[-1]
    except AssertionError as error:  # Hiera has no norm in front of its classifier
        if "normalization" not in str(error):
            raise
        return model.forward_intermediates(images, norm=False, **options)[-1]


def explore(body: nn.Module, in_chans: int, sizes: Sequence[int]) -> Findings:
    """Pass images of `sizes` through `body`: on the meta device, which computes only shapes, or on the CPU for models
    that need tensor values.

    Raises NoFeatureMap if the features are not a spatial map, and the model's own errors if it does not accept the
    images.
    """
    mode = body.training
    body.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():  # independently of the caller's mode
            try:
                return _explore(body, in_chans, sizes, torch.device("meta"))
            except NoFeatureMap:
                raise
            except Exception:  # models raise many types
                return _explore(body, in_chans, sizes, next(body.parameters()).device)
    finally:
        body.train(mode)


def _explore(body: nn.Module, in_chans: int, sizes: Sequence[int], device: torch.device) -> Findings:
    network = _MapOf(body)
    parameters = {name: p.detach().to(device, copy=True).requires_grad_() for name, p in network.named_parameters()}
    buffers = {name: b.to(device, copy=True) for name, b in network.named_buffers()}
    images = [torch.zeros(1, in_chans, size, size, device=device) for size in sizes]
    layout = _layout(network, {**parameters, **buffers}, images[0])

    called: set[str] = set()
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs, name=name: called.add(name))
        for name, module in body.named_modules()
    ]
    try:
        found = functional_call(network, {**parameters, **buffers}, (images[0], layout))
    finally:
        for hook in hooks:
            hook.remove()
    if found.ndim != 4:
        raise NoFeatureMap(f"features of shape {tuple(found.shape[1:])}")
    gradients = torch.autograd.grad(found.sum(), list(parameters.values()), allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    unused = {name.removeprefix("body.") for name, gradient in pairs if gradient is None}
    never_called = _topmost_unused(body, unused, called)
    with torch.no_grad():
        others = [functional_call(network, {**parameters, **buffers}, (image, layout)) for image in images[1:]]
    return Findings(
        layout,
        found.shape[1],
        tuple(x.shape[-1] for x in (found, *others)),
        never_called,
        tuple(sorted(name for name in unused if not name.startswith(tuple(f"{module}." for module in never_called)))),
    )


def _layout(network: _MapOf, state: dict[str, torch.Tensor], image: torch.Tensor) -> Layout:
    model = cast(Any, network.body)
    if not hasattr(model, "forward_features"):
        raise NoFeatureMap("no features without a classifier")
    with torch.no_grad():
        features = functional_call(_Features(model), state, (image,))
    if not isinstance(features, torch.Tensor):
        raise NoFeatureMap(f"{len(features)} sets of features of several scales")
    if features.ndim == 4:
        return "channels_last" if getattr(model, "output_fmt", "NCHW") == "NHWC" else "channels_first"
    if not hasattr(model, "forward_intermediates"):
        raise NoFeatureMap(f"features of shape {tuple(features.shape[1:])}")
    return "tokens"


class _Features(_MapOf):
    def forward(self, images: torch.Tensor) -> Any:  # type: ignore[override]
        return cast(Any, self.body).forward_features(images)


def _topmost_unused(body: nn.Module, unused: set[str], called: set[str]) -> tuple[str, ...]:
    """Modules that were not called, whose parameters are all unused, and whose parents are not such modules."""
    found: list[str] = []
    for name, module in body.named_modules():
        own = [f"{name}.{parameter}" for parameter, _ in module.named_parameters()]
        if not name or not own or name.startswith(tuple(f"{other}." for other in found)):
            continue
        if unused.issuperset(own) and not any(f"{inner}.".startswith(f"{name}.") for inner in called):
            found.append(name)
    return tuple(found)
