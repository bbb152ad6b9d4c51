"""Contrast-induced attention, in the manner of Liu et al. 2019.

A library of images without a finding provides the most similar negative for an image. The difference between the
features of the two gives the attention.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from cxrfast.models.backbones import Backbone
from cxrfast.models.input_scaling import InputScaling
from cxrfast.models.patch_network import PatchHead, resize_to_grid

HASH_SIDE = 16


def average_hash(images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> [B, 256] bool
    """A hash of 256 bits: the image averaged to 16×16 cells, each compared with the mean of all cells."""
    small = F.adaptive_avg_pool2d(images.float(), HASH_SIDE).flatten(1)
    return small > small.mean(dim=1, keepdim=True)


class NegativeLibrary(nn.Module):
    """Images without a finding, stored in the state of the network, so that prediction needs no other data.

    Args:
        count: N, the fixed number of images; if fewer are given, they are repeated.
        size: S, the image side in pixels.

    Buffers: images, uint8 `[N, 1, S, S]` (N·S² bytes), and their average hashes, bool `[N, 256]`.
    """

    images: torch.Tensor
    hashes: torch.Tensor

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(count, 1, size, size, dtype=torch.uint8))
        self.register_buffer("hashes", torch.zeros(count, HASH_SIDE**2, dtype=torch.bool))

    def fill(self, images: torch.Tensor) -> None:  # [M, 1, S, S] in [-1, 1], M from 1 to N
        """Replace the content of the library by these images, repeated until it is full."""
        places = torch.arange(len(self.images)) % len(images)
        self.images.copy_(((images[places] + 1) * 127.5).round().clamp(0, 255))
        self._hash()

    def replace(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:  # [1, 1, S, S] -> [1, 1, S, S]
        """Replace every image by `function` of it."""
        for image in self.images:
            changed = function(self._scaled(image[None]))[0]
            image.copy_(((changed + 1) * 127.5).round().clamp(0, 255))
        self._hash()

    def nearest(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> [B] int64
        """The index of the library image with the smallest Hamming distance; the lowest index if there are several."""
        # With bits as ±1, the inner product is exactly 256 − 2 · distance.
        own, others = (2.0 * bits.float() - 1 for bits in (average_hash(images), self.hashes))
        with torch.autocast(images.device.type, enabled=False):
            alike = (own @ others.T).round().long()
        places = torch.arange(len(self.hashes), device=alike.device)
        return (alike * len(self.hashes) - places).argmax(dim=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> the same
        """The most similar library image for each image."""
        return self._scaled(self.images[self.nearest(images)]).to(images.dtype)

    def _hash(self) -> None:
        self.hashes.copy_(torch.cat([average_hash(self._scaled(image[None])) for image in self.images]))

    @staticmethod
    def _scaled(images: torch.Tensor) -> torch.Tensor:  # uint8 -> float in [-1, 1]
        return images.float() / 127.5 - 1


def contrast_attention(
    positive: torch.Tensor,  # [B, C, P, P] features of the images
    negative: torch.Tensor,  # [B, C, P, P] features of their negatives
) -> torch.Tensor:  # [B, 1, P, P]
    """|f⁺ − f⁻|, averaged over the channels and divided by its mean over the cells.

    The mean of the attention is thus 1. For a pair of equal features it is 1 everywhere.
    """
    difference = (positive - negative).abs().mean(dim=1, keepdim=True) + 1e-6
    return difference / difference.mean(dim=(-2, -1), keepdim=True)


class ContrastNetwork(nn.Module):
    """Backbone features on a P×P grid, weighted by the contrast with a negative, and classified by Li's head.

    Images and negatives pass the backbone as one batch, so that batch normalization treats both in the same way.

    Args:
        backbone: a backbone with as many input channels as `scaling` has output channels.
        num_classes, grid: K, P.
        hidden: channels between the two layers of the head.
        scaling: the scaling of the input. Default: unchanged images.
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

    def attended(
        self,
        images: torch.Tensor,  # [B, 1, S, S]
        negatives: torch.Tensor | None,  # [B, 1, S, S]; None: no attention
    ) -> torch.Tensor:  # [B, C, P, P]
        together = images if negatives is None else torch.cat([images, negatives])
        features = resize_to_grid(self.backbone.forward_features(self.scaling(together)), self.grid)
        if negatives is None:
            return features
        positive, negative = features.chunk(2)
        return positive * contrast_attention(positive, negative)

    def forward(self, images: torch.Tensor, negatives: torch.Tensor | None) -> torch.Tensor:  # logits [B, K, P, P]
        return self.head(self.attended(images, negatives))

    def fine_logits(self, attended: torch.Tensor, size: int) -> torch.Tensor:  # [B, C, P, P] -> [B, K, size, size]
        """The head on a finer grid: the output of its 3×3 convolution is upsampled bilinearly and then scored.

        Upsampling before this convolution would shrink its window relative to training, which shifts findings: strided
        convolutions centre a feature at the corner of its cell, and the trained window compensates for this.
        """
        first, *others = self.head
        x = F.interpolate(first(attended), size=(size, size), mode="bilinear", align_corners=False)
        for layer in others:
            x = layer(x)
        return x
