"""Alignment of chest X-rays to a common frame: one affine transformation per image, learnt with a feature loss.

Coordinates are those of `torch.nn.functional.grid_sample` with `align_corners=False`: −1 and 1 are the edges of the
image. A transformation θ = [A | t] maps a point u of the aligned frame to the point x = A·u + t of the original image,
so `aligned(u) = original(A·u + t)`.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
_BLACK = -1.0  # black in [-1, 1]; used outside the image, as outside the collimator


class AlignmentNetwork(nn.Module):
    """Regresses five parameters from a downscaled image: an angle, two scales and two shifts; no shear.

    A tanh bounds each parameter, so that no image can be rotated or zoomed too far. The last layer is initialised with
    zeros, so every transformation is initially the identity. The downscaled image is standardised to mean 0 and
    standard deviation 1, so exposure has no effect.

    Args:
        size: pixels of the downscaled image, a multiple of 16.
        angle: maximum angle in degrees, in both directions.
        scale: maximum factor; 1/scale is the minimum.
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
        limits = [math.radians(angle), math.log(scale), math.log(scale), 2 * shift, 2 * shift]  # a side is 2 long
        self.register_buffer("bounds", torch.tensor(limits), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> θ [B, 2, 3]
        x = standardized(shrunk(images, self.size))
        x = F.relu(self.hidden(self.features(x).flatten(1)))
        angle, wide, high, right, down = (torch.tanh(single(self.last(x))) * self.bounds).unbind(1)
        c, s, wide, high = angle.cos(), angle.sin(), wide.exp(), high.exp()
        rows = torch.stack([c * wide, -s * high, right, s * wide, c * high, down], dim=1)
        return rows.unflatten(1, (2, 3))


class FeatureDistance(nn.Module):
    """The distance of two images in the features of a fixed network with random filters.

    The network has three blocks: 3×3 convolution with filters that sum to zero, ReLU, and 2×2 average pooling. At each
    of the three resolutions the distance is 1 minus the cosine similarity of the two feature maps, over all channels
    and positions; the three are averaged. The distance is at most 1, and 0 for equal images, even if their brightness
    or contrast differs. It decreases smoothly as edges come into alignment. The filters come from a fixed seed and are
    not learnt, so the module has no state.
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
        with torch.autocast(first.device.type, enabled=False):  # the distances of similar images are small
            first, second = standardized(single(first)), standardized(single(second))
            for level in range(self.levels):
                filters = self.get_buffer(f"filters{level}").to(first.dtype)
                first, second = (F.avg_pool2d(F.relu(F.conv2d(x, filters)), 2) for x in (first, second))
                distances.append(1 - F.cosine_similarity(first.flatten(1), second.flatten(1)))
        return torch.stack(distances).mean(dim=0)


def single(x: torch.Tensor) -> torch.Tensor:
    """In at least float32, because half precision cannot represent half a pixel of a thousand."""
    return x.float() if x.dtype.itemsize < 4 else x


def shrunk(images: torch.Tensor, size: int) -> torch.Tensor:  # [B, 1, S, S] -> [B, 1, size, size]
    """Area averaging for larger images, bilinear interpolation for smaller ones."""
    if images.shape[-1] >= size:
        return F.adaptive_avg_pool2d(images, size)
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def standardized(images: torch.Tensor) -> torch.Tensor:  # [B, 1, h, w] -> the same
    """Each image with mean 0 and standard deviation 1; a constant image becomes 0."""
    centred = images - images.mean(dim=(-2, -1), keepdim=True)
    return centred / centred.square().mean(dim=(-2, -1), keepdim=True).sqrt().clamp_min(1e-4)


def inverse(theta: torch.Tensor) -> torch.Tensor:  # [B, 2, 3] -> [B, 2, 3]
    """From the original image to the aligned frame: u = A⁻¹·x − A⁻¹·t."""
    (a, b), (c, d) = (row.unbind(-1) for row in theta[..., :2].unbind(-2))
    adjugate = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
    matrix = adjugate / (a * d - b * c)[..., None, None]
    return torch.cat([matrix, -matrix @ theta[..., 2:]], dim=-1)


def align(images: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] in [-1, 1] -> the same
    """The images in the aligned frame, with black outside the original image."""
    images = single(images)
    grid = F.affine_grid(theta.to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images - _BLACK, grid, padding_mode="zeros", align_corners=False) + _BLACK


def maps_in_original(maps: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:  # [B, K, G, G] -> the same
    """Transform maps of the aligned frame to the frame of the original images; 0 outside the aligned frame.

    Bilinear, without fading towards the edge of the aligned frame.
    """
    maps = single(maps)
    grid = F.affine_grid(inverse(theta).to(maps.dtype), list(maps.shape), align_corners=False)
    inside = (grid.abs() <= 1).all(dim=-1)[:, None]
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=False) * inside
