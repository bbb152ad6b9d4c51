"""A library of images without a finding, the most similar of them for any image, and attention from the contrast of
the two (in the manner of Liu et al. 2019)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from cxrfast.models.backbones import Backbone
from cxrfast.models.input_scaling import InputScaling
from cxrfast.models.patch_network import PatchHead, resize_to_grid

HASH_SIDE = 16


def average_hash(images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> [B, 256] bool
    """256 bits: the image in 16×16 averages, each compared with the mean of all."""
    small = F.adaptive_avg_pool2d(images.float(), HASH_SIDE).flatten(1)
    return small > small.mean(dim=1, keepdim=True)


class NegativeLibrary(nn.Module):
    """Images without a finding, kept with the weights, so that these are all that a prediction needs.

    Args:
        count: N, fixed; fewer different images are repeated.
        size: S.

    Buffers: images uint8 `[N, 1, S, S]` (N·S² bytes) and the average hash of each, bool `[N, 256]`.
    """

    images: torch.Tensor
    hashes: torch.Tensor

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(count, 1, size, size, dtype=torch.uint8))
        self.register_buffer("hashes", torch.zeros(count, HASH_SIDE**2, dtype=torch.bool))

    def fill(self, images: torch.Tensor) -> None:  # [M, 1, S, S] in [-1, 1], M from 1 to N
        """Replace the library by these images, repeated until it is full."""
        places = torch.arange(len(self.images)) % len(images)
        self.images.copy_(((images[places] + 1) * 127.5).round().clamp(0, 255))
        self._hash()

    def replace(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:  # [1, 1, S, S] -> [1, 1, S, S]
        """Put `function` of every image in its place."""
        for image in self.images:
            changed = function(self._scaled(image[None]))[0]
            image.copy_(((changed + 1) * 127.5).round().clamp(0, 255))
        self._hash()

    def nearest(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> [B] int64
        """The place of the image with the smallest Hamming distance; of several, the first."""
        # +1 and −1 for bits: their inner product is 256 − 2 · distance, exactly
        own, others = (2.0 * bits.float() - 1 for bits in (average_hash(images), self.hashes))
        with torch.autocast(images.device.type, enabled=False):
            alike = (own @ others.T).round().long()
        places = torch.arange(len(self.hashes), device=alike.device)
        return (alike * len(self.hashes) - places).argmax(dim=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> the same
        """The most similar image of the library for each of these."""
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
    """How much more a place differs from the negative than others do: |f⁺ − f⁻|, averaged over the channels, divided by
    its average over the places, so that its mean is 1; 1 everywhere for a pair without a difference."""
    difference = (positive - negative).abs().mean(dim=1, keepdim=True) + 1e-6
    return difference / difference.mean(dim=(-2, -1), keepdim=True)


class ContrastNetwork(nn.Module):
    """Backbone features on a P×P grid, weighted by the contrast with a negative, and scored by Li's head.

    Images and negatives pass the backbone as one batch, so that both are normalised alike.

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
        """The head on a finer grid: what its 3×3 convolution gives is enlarged, bilinearly, and then scored.

        Enlarged before it, the features would be seen through a window of fewer cells than in training, which moves
        findings: strided convolutions centre a feature at the corner of its cell, and the window makes up for it.
        """
        first, *others = self.head
        x = F.interpolate(first(attended), size=(size, size), mode="bilinear", align_corners=False)
        for layer in others:
            x = layer(x)
        return x
