"""An encoder–decoder that classifies every position of an image at a high resolution (similar to Yao et al. 2018).

The components are known from second-hand descriptions of the paper: residual blocks reduce the resolution, dense blocks
keep it, and a decoder repeatedly upsamples coarse features by nearest neighbours, concatenates them with finer ones and
refines them. Their number, width and depth are our own design.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn


class ResidualDown(nn.Module):
    """A residual block (He et al. 2016) that halves the resolution: two 3×3 convolutions, and a shortcut
    with 2×2 average pooling and a projection."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True),  # same size as the strided convolution, also for odd sizes
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, C, h, w] -> [B, D, ⌈h/2⌉, ⌈w/2⌉]
        return F.relu(self.residual(x) + self.shortcut(x))


class DenseBlock(nn.Module):
    """A dense block (Huang et al. 2017): the input of each layer is all previous maps; it adds `growth` channels."""

    def __init__(self, in_channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.Conv2d(channels, growth, 3, padding=1, bias=False),
            )
            for channels in range(in_channels, in_channels + layers * growth, growth)
        )
        self.channels = in_channels + layers * growth

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, C, h, w] -> [B, C + layers · growth, h, w]
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


class Refinement(nn.Sequential):
    """Two 3×3 convolutions with batch norm and ReLU, on the concatenated coarse and fine maps."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class MultiResolutionNetwork(nn.Module):
    """Image → encoder with `levels` resolutions → decoder to the finest resolution → one logit map per class.

    A cell of level i has `map_stride · 2^i` image pixels, and the level has `width · 2^i` channels before its dense
    block. The last bias is initialised to logit(0.02), so that an untrained network predicts low probabilities.

    Args:
        num_classes: K.
        map_stride: image pixels per cell of the output, 2 or 4.
        levels: number of resolutions, 2 or more.
        width: channels of the finest resolution.
        growth, dense_layers: of the dense blocks.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        map_stride: int = 4,
        levels: int = 4,
        width: int = 64,
        growth: int = 32,
        dense_layers: int = 4,
    ) -> None:
        super().__init__()
        if map_stride not in (2, 4):
            raise ValueError(f"map_stride: expected 2 or 4, got {map_stride}")
        if levels < 2:
            raise ValueError(f"levels: expected at least 2, got {levels}")
        widths = [width * 2**i for i in range(levels)]
        self.stem = nn.Sequential(
            nn.Conv2d(1, width // 2, 7, stride=map_stride // 2, padding=3, bias=False),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(inplace=True),
        )
        self.down, self.dense = nn.ModuleList(), nn.ModuleList()
        channels = width // 2
        given = []  # channels of every level
        for wide in widths:
            self.down.append(ResidualDown(channels, wide))
            block = DenseBlock(wide, growth, dense_layers)
            self.dense.append(block)
            channels = block.channels
            given.append(channels)
        self.refine = nn.ModuleList()  # from the second coarsest level to the finest
        for fine, wide in zip(given[-2::-1], widths[-2::-1], strict=True):
            self.refine.append(Refinement(channels + fine, wide))
            channels = wide
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.constant_(cast(nn.Parameter, self.classifier.bias), math.log(0.02 / 0.98))

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> [B, K, S/map_stride, S/map_stride]
        x = self.stem(images)
        features = []
        for down, dense in zip(self.down, self.dense, strict=True):
            x = dense(down(x))
            features.append(x)
        for finer, refine in zip(features[-2::-1], self.refine, strict=True):
            x = F.interpolate(x, size=finer.shape[-2:], mode="nearest")
            x = refine(torch.cat([x, finer], dim=1))
        return self.classifier(x)
