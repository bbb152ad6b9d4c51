"""What the classification baselines share: options of the network, and heat maps from class activation maps."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field

from cxrfast.data import Augmentation
from cxrfast.methods._backbone import BackboneOptions
from cxrfast.models import normalize_maps

UNCHANGED = Augmentation(rotation=0, translate=0, scale=(1, 1), brightness=0, contrast=0)
"""Training images as they are."""


class CAMOptions(BackboneOptions):
    """Options of a CAM network."""

    backbone: str = Field("densenet121", description="any timm network with a spatial map; small: densenet_micro")
    upsample: int = Field(8, ge=1, description="class activation maps are enlarged so many times, bilinearly")


def heat_maps(
    maps: torch.Tensor,  # [B, K, h, w] class activation maps
    upsample: int,
) -> torch.Tensor:  # [B, K, h · upsample, w · upsample] in [0, 1]
    """Enlarged first and then min–max normalised: the highest value of every map is 1 (of a constant one, 0)."""
    if upsample > 1:
        maps = F.interpolate(maps.float(), scale_factor=upsample, mode="bilinear", align_corners=False)
    return normalize_maps(maps.float())


def same_for_all(class_names: Sequence[str], value: float) -> torch.Tensor:  # [K]
    return torch.full((len(class_names),), value)
