"""Shared by the classification baselines: network options, and heat maps from class activation maps."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field

from cxrfast.data import Augmentation
from cxrfast.methods._backbone import BackboneOptions
from cxrfast.models import normalize_maps

UNCHANGED = Augmentation(rotation=0, translate=0, scale=(1, 1), brightness=0, contrast=0)
"""No augmentation of the training images."""


class CAMOptions(BackboneOptions):
    """Options of a CAM network."""

    backbone: str = Field("densenet121", description="any timm network with a spatial map; small: densenet_micro")
    upsample: int = Field(8, ge=1, description="factor by which class activation maps are upsampled bilinearly")


def heat_maps(
    maps: torch.Tensor,  # [B, K, h, w] class activation maps
    upsample: int,
) -> torch.Tensor:  # [B, K, h · upsample, w · upsample] in [0, 1]
    """Upsampled, then min-max normalised: the maximum of every map is 1 (0 for a constant map)."""
    if upsample > 1:
        maps = F.interpolate(maps.float(), scale_factor=upsample, mode="bilinear", align_corners=False)
    return normalize_maps(maps.float())


def same_for_all(class_names: Sequence[str], value: float) -> torch.Tensor:  # [K]
    return torch.full((len(class_names),), value)
