"""Alignment of chest X-rays to a common frame by one affine transformation per image, trained with a feature loss.

Coordinates are those of `torch.nn.functional.grid_sample` with `align_corners=False`: −1 and 1 are the edges of the
image. A transformation θ = [A | t] maps a point u of the aligned image to the point x = A·u + t of the original image,
so that `aligned(u) = original(A·u + t)`.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
_BLACK = -1.0  # value outside an image in [-1, 1], as outside the collimator


class AlignmentNetwork(nn.Module):
    """Regresses five parameters from a downscaled image: an angle, two scales and two shifts; no shear.

    A tanh bounds each parameter, which rules out extreme rotations and zooms. The last layer is initialised to zero, so
    that every transformation starts as the identity. The downscaled image is standardised to mean 0 and standard
    deviation 1, which makes the result independent of exposure.

    Args:
        size: side of the downscaled image in pixels, a multiple of 16.
        angle: maximum rotation in degrees, in either direction.
        scale: maximum scale factor; the minimum is 1/scale.
        shift: maximum shift, as a fraction of the image side.
    """

    bounds: torch.Tensor

    def __init__(self, size: int = 64, *, angle: float = 15.0, scale: float = 1.3, shift: float = 0.15) -> None:
        super().__init__()
        if size < 16 or size % 16:
            raise ValueError(f"size: expected a multiple of 16, got {size}")
        self.size = size
        widths = (1, 16, 32, 32, 32)
        self.features = nn.Sequential()
        for given, wide in itertools.pairwise(widths):
            self.features.extend(
                [nn.Conv2d(given, wide, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
            )
        self.hidden = nn.Linear(widths[-1] * (size // 16) ** 2, 64)
        self.last = nn.Linear(64, 5)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        limits = [math.radians(angle), math.log(scale), math.log(scale), 2 * shift, 2 * shift]  # the side length is 2
        self.register_buffer("bounds", torch.tensor(limits), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> θ [B, 2, 3]
        x = standardized(shrunk(images, self.size))
        x = F.relu(self.hidden(self.features(x).flatten(1)))
        angle, wide, high, right, down = (torch.tanh(single(self.last(x))) * self.bounds).unbind(1)
        c, s, wide, high = angle.cos(), angle.sin(), wide.exp(), high.exp()
        rows = torch.stack([c * wide, -s * high, right, s * wide, c * high, down], dim=1)
        return rows.unflatten(1, (2, 3))


class FeatureDistance(nn.Module):
    """The distance of two images in the feature space of a fixed network with random filters.

    The network applies a 3×3 convolution with zero-sum filters, ReLU and 2×2 average pooling `levels` times. The
    distance at each resolution is 1 − the cosine similarity of the two feature maps, over all channels and positions.
    The result is the mean of these distances, between 0 and 1. It is 0 for images that are equal up to brightness and
    contrast, and decreases smoothly as edges are brought into alignment. The filters are not trained and are
    determined by the seed, so they are not part of the state.

    Args:
        channels: filters per resolution.
        levels: number of resolutions.
        seed: of the random filters.
    """

    def __init__(self, channels: int = 16, levels: int = 3, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.levels = levels
        for level in range(levels):
            filters = torch.randn(channels, channels if level else 1, 3, 3, generator=generator)
            filters = filters - filters.mean(dim=(2, 3), keepdim=True)
            filters = filters / filters.flatten(1).norm(dim=1)[:, None, None, None]
            self.register_buffer(f"filters{level}", filters, persistent=False)

    def forward(
        self,
        first: torch.Tensor,  # [B, 1, A, A]
        second: torch.Tensor,  # [B or 1, 1, A, A]
    ) -> torch.Tensor:  # [B]
        distances = []
        with torch.autocast(first.device.type, enabled=False):  # half precision is too coarse for small distances
            first, second = standardized(single(first)), standardized(single(second))
            for level in range(self.levels):
                filters = self.get_buffer(f"filters{level}").to(first.dtype)
                first, second = (F.avg_pool2d(F.relu(F.conv2d(x, filters)), 2) for x in (first, second))
                distances.append(1 - F.cosine_similarity(first.flatten(1), second.flatten(1)))
        return torch.stack(distances).mean(dim=0)


def single(x: torch.Tensor) -> torch.Tensor:
    """Half-precision tensors as float32, because they cannot represent half a pixel in a thousand; others unchanged."""
    return x.float() if x.dtype.itemsize < 4 else x


def shrunk(images: torch.Tensor, size: int) -> torch.Tensor:  # [B, 1, S, S] -> [B, 1, size, size]
    """Images resized to `size`: area averaging to reduce them, bilinear interpolation to enlarge them."""
    if images.shape[-1] >= size:
        return F.adaptive_avg_pool2d(images, size)
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def standardized(images: torch.Tensor) -> torch.Tensor:  # [B, 1, h, w] -> the same
    """Each image standardised to mean 0 and standard deviation 1; a constant image becomes 0."""
    centred = images - images.mean(dim=(-2, -1), keepdim=True)
    return centred / centred.square().mean(dim=(-2, -1), keepdim=True).sqrt().clamp_min(1e-4)


def inverse(theta: torch.Tensor) -> torch.Tensor:  # [B, 2, 3] -> [B, 2, 3]
    """The inverse transformation, from the original to the aligned image: u = A⁻¹·x − A⁻¹·t."""
    (a, b), (c, d) = (row.unbind(-1) for row in theta[..., :2].unbind(-2))
    adjugate = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
    matrix = adjugate / (a * d - b * c)[..., None, None]
    return torch.cat([matrix, -matrix @ theta[..., 2:]], dim=-1)


def align(images: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] in [-1, 1] -> the same
    """The aligned images; points outside the original image are black."""
    images = single(images)
    grid = F.affine_grid(theta.to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images - _BLACK, grid, padding_mode="zeros", align_corners=False) + _BLACK


def maps_in_original(maps: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:  # [B, K, G, G] -> the same
    """Maps of aligned images, transformed back to the original images; 0 outside the aligned image.

    Interpolation is bilinear, with border padding, so that values do not fade towards the edge of the aligned image.
    """
    maps = single(maps)
    grid = F.affine_grid(inverse(theta).to(maps.dtype), list(maps.shape), align_corners=False)
    inside = (grid.abs() <= 1).all(dim=-1)[:, None]
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=False) * inside
