"""A library of images without a finding, retrieval of the most similar one, and attention from the contrast between an
image and that one (similar to Liu et al. 2019)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from cxrfast.models.backbones import Backbone
from cxrfast.models.input_scaling import InputScaling
from cxrfast.models.patch_network import PatchHead, resize_to_grid

HASH_SIDE = 16


def average_hash(images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> [B, 256] bool
    """256 bits: 16×16 block averages of the image, compared with their mean."""
    small = F.adaptive_avg_pool2d(images.float(), HASH_SIDE).flatten(1)
    return small > small.mean(dim=1, keepdim=True)


class NegativeLibrary(nn.Module):
    """Images without a finding, stored with the weights, so that predictions need no other files.

    Args:
        count: N, fixed. If there are fewer images, they are repeated.
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
        """Fill the library with these images, repeated if there are fewer than N."""
        places = torch.arange(len(self.images)) % len(images)
        self.images.copy_(((images[places] + 1) * 127.5).round().clamp(0, 255))
        self._hash()

    def replace(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:  # [1, 1, S, S] -> [1, 1, S, S]
        """Replace every image by `function(image)`."""
        for image in self.images:
            changed = function(self._scaled(image[None]))[0]
            image.copy_(((changed + 1) * 127.5).round().clamp(0, 255))
        self._hash()

    def nearest(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> [B] int64
        """The index of the image with the smallest Hamming distance; the first if several are equal."""
        # With bits as +1 and −1, the inner product is exactly 256 − 2 · distance.
        own, others = (2.0 * bits.float() - 1 for bits in (average_hash(images), self.hashes))
        with torch.autocast(images.device.type, enabled=False):
            alike = (own @ others.T).round().long()
        places = torch.arange(len(self.hashes), device=alike.device)
        return (alike * len(self.hashes) - places).argmax(dim=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> the same
        """The most similar image of the library for each image."""
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
    """|f⁺ − f⁻| averaged over channels and divided by its mean over positions, so that the mean is 1. A pair without
    any difference gives 1 everywhere."""
    difference = (positive - negative).abs().mean(dim=1, keepdim=True) + 1e-6
    return difference / difference.mean(dim=(-2, -1), keepdim=True)


class ContrastNetwork(nn.Module):
    """Backbone features on a P×P grid, weighted by the contrast with a negative, and classified by Li's head.

    Images and negatives go through the backbone in one batch, so that batch norm treats them equally.

    Args:
        backbone: with as many input channels as `scaling` has output channels.
        num_classes, grid: K, P.
        hidden: channels between the two layers of the head.
        scaling: default: no normalisation of the images.
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
        """The head on a finer grid: the output of its 3×3 convolution is upsampled bilinearly and then classified.

        Upsampling before the 3×3 convolution would reduce its window, in units of cells, and shift the findings:
        strided convolutions centre a feature at the corner of its cell, which the window compensates.
        """
        first, *others = self.head
        x = F.interpolate(first(attended), size=(size, size), mode="bilinear", align_corners=False)
        for layer in others:
            x = layer(x)
        return x
