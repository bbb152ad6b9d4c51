"""Classification from pooled features, and class activation maps of all classes in the same forward pass.

CAM (Zhou et al. 2016): with feature maps g_d(x, y), pooled features f_d and the classifier's weights w_kd,

    logit_k     = Σ_d w_kd f_d + b_k
    M_k(x, y)   = Σ_d w_kd g_d(x, y)

With average pooling, the logit is thus the mean of the map plus the bias. M is computed as a 1×1 convolution with the
weights of the classifier, for all classes at once; no gradient has to be computed.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from cxrfast.models.backbones import Backbone
from cxrfast.models.input_scaling import InputScaling


class CAMOutput(NamedTuple):
    """The output of :class:`CAMNetwork` for B images, K classes and D feature maps."""

    logits: torch.Tensor  # [B, K]
    maps: torch.Tensor  # [B, K, h, w]: class activation maps, unbounded
    features: torch.Tensor  # [B, D, h, w]: g
    pooled: torch.Tensor  # [B, D]: f


def class_activation_maps(
    features: torch.Tensor,  # [B, D, h, w]
    weight: torch.Tensor,  # [K, D] of the classifier
) -> torch.Tensor:  # [B, K, h, w]
    """M_k = Σ_d w_kd g_d, for all classes."""
    return F.conv2d(features, weight[:, :, None, None])


def normalize_maps(maps: torch.Tensor) -> torch.Tensor:  # [B, K, h, w] -> the same
    """Each map min-max normalised to [0, 1]; a constant map becomes 0."""
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    span = high - low
    return (maps - low) / torch.where(span > 0, span, torch.ones_like(span))


class AveragePool(nn.Module):
    """Global average pooling."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:  # [B, D, h, w] -> [B, D]
        return features.mean(dim=(-2, -1))


class LogSumExpPool(nn.Module):
    """Wang et al. 2017, Eq. 2 and 3: global log-sum-exp pooling of activations, between mean (r → 0) and max (r → ∞).

    With S positions and any x*::

        x_p = 1/r · log [1/S · Σ exp(r · x)]  =  x* + 1/r · log [1/S · Σ exp(r · (x − x*))]

    The second form is used, because it does not overflow. x* is the largest x, so that one summand is 1 and the
    argument of the logarithm is never 0. (In contrast, :func:`cxrfast.ops.mil_pool` in mode "lse" pools probabilities,
    given as logits.)

    Args:
        sharpness: r, above 0.
    """

    def __init__(self, sharpness: float = 10.0) -> None:
        super().__init__()
        if not 0 < sharpness < math.inf:
            raise ValueError(f"sharpness: expected a finite number above 0, got {sharpness}")
        self.sharpness = sharpness

    def forward(self, features: torch.Tensor) -> torch.Tensor:  # [B, D, h, w] -> [B, D]
        x = features.float() if features.dtype.itemsize < 4 else features
        largest = x.detach().amax(dim=(-2, -1), keepdim=True)  # x*, which cancels out
        total = torch.logsumexp(self.sharpness * (x - largest), dim=(-2, -1))
        pooled = largest[..., 0, 0] + (total - math.log(x.shape[-2] * x.shape[-1])) / self.sharpness
        return pooled.to(features.dtype)

    def extra_repr(self) -> str:
        return f"sharpness={self.sharpness}"


class TransitionLayer(nn.Sequential):
    """Wang et al. 2017, §3.2: maps the activations of the backbone to D maps by convolution, batch norm and ReLU.

    The kernel size is 2 · stride − 1: 1×1 without a stride, and with overlapping windows otherwise.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        kernel_size, padding = 2 * stride - 1, stride - 1
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class CAMNetwork(nn.Module):
    """Image → backbone → (transition) → g → pooling → f → linear classifier, with the maps of all classes.

    Args:
        backbone: a backbone with as many input channels as `scaling` has output channels.
        num_classes: K.
        channels: D, the number of channels after `transition`. Default: the features of the backbone.
        transition: a module between backbone and pooling. Default: none.
        pooling: maps `[B, D, h, w]` to `[B, D]`. Default: average pooling.
        scaling: the scaling of the input. Default: unchanged images.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        channels: int | None = None,
        transition: nn.Module | None = None,
        pooling: nn.Module | None = None,
        scaling: InputScaling | None = None,
    ) -> None:
        super().__init__()
        self.scaling = scaling or InputScaling((0.5,), (0.5,))
        self.backbone = backbone
        self.transition = transition or nn.Identity()
        self.pooling = pooling or AveragePool()
        self.classifier = nn.Linear(channels or backbone.num_features, num_classes)

    def forward(self, images: torch.Tensor) -> CAMOutput:  # [B, 1, S, S]
        features = self.transition(self.backbone.forward_features(self.scaling(images)))
        pooled = self.pooling(features)
        maps = class_activation_maps(features, self.classifier.weight)
        return CAMOutput(self.classifier(pooled), maps, features, pooled)
