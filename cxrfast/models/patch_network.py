"""From an image to one logit per class and patch (Li et al. 2018 §3; Rozenberg et al. 2019 §3.2, Figures 2 and 3)."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from cxrfast.models.backbones import Backbone
from cxrfast.models.input_scaling import InputScaling
from cxrfast.nn import PacCRF


class PatchHead(nn.Sequential):
    """Li's two-layer recognition head: 3×3 convolution, batch norm, ReLU, 1×1 convolution to one map per class.

    The last bias starts at logit(prior), so that an untrained network finds almost every patch free of disease: with
    P² patches an image's noisy-OR would otherwise start at 1 − 2^(−P²).
    """

    def __init__(self, in_channels: int, num_classes: int, *, hidden: int = 512, prior: float = 0.02) -> None:
        last = nn.Conv2d(hidden, num_classes, 1)
        super().__init__(
            nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            last,
        )
        nn.init.normal_(last.weight, std=0.01)
        nn.init.constant_(cast(nn.Parameter, last.bias), math.log(prior / (1 - prior)))


class PatchNetwork(nn.Module):
    """Backbone features, resized to P×P, scored by the head: the unary term of the CRF.

    Args:
        backbone: for as many channels as `scaling` gives.
        num_classes, grid: K, P.
        hidden: channels between the head's two layers.
        scaling: default: images as they are.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        grid: int,
        *,
        hidden: int = 512,
        scaling: InputScaling | None = None,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.scaling = scaling or InputScaling((0.5,), (0.5,))
        self.backbone = backbone
        self.head = PatchHead(backbone.num_features, num_classes, hidden=hidden)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> logits [B, K, P, P]
        features = self.backbone.forward_features(self.scaling(images))
        return self.head(resize_to_grid(features, self.grid))


class GuideBranch(nn.Sequential):
    """Rozenberg's Figure 3: two convolutions with batch norm and ReLU, from the image to a P×P guide for the CRF.

    The paper says "to output a tensor with the same size": we read the size of the unary map, P×P.
    """

    def __init__(self, channels: int, grid: int, *, in_chans: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_chans, channels // 2, 5, stride=4, padding=2, bias=False),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(grid),
        )


class CRFNetwork(nn.Module):
    """Rozenberg's network: the unary patch network, and a PAC-CRF guided by the image on top of it."""

    def __init__(self, unary: PatchNetwork, guide: GuideBranch, crf: PacCRF) -> None:
        super().__init__()
        self.unary = unary
        self.guide = guide
        self.crf = crf

    def forward(self, images: torch.Tensor, *, with_crf: bool = True) -> torch.Tensor:  # -> logits [B, K, P, P]
        unary = self.unary(images)
        return self.crf(unary, self.guide(images)) if with_crf else unary


def resize_to_grid(features: torch.Tensor, grid: int) -> torch.Tensor:  # [B, C, h, w] -> [B, C, P, P]
    """Bilinear where the map grows, max-pooled where it shrinks (Li et al. 2018 §3.1)."""
    height, width = features.shape[-2:]
    if (height, width) == (grid, grid):
        return features
    if height >= grid and width >= grid:
        return F.adaptive_max_pool2d(features, grid)
    return F.interpolate(features, size=(grid, grid), mode="bilinear", align_corners=False)
