"""What the classification baselines share: options of the network, and heat maps from class activation maps."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn

from cxrfast.data import Augmentation
from cxrfast.methods.base import MethodOptions
from cxrfast.models import classification_backbone, normalize_maps

UNCHANGED = Augmentation(rotation=0, translate=0, scale=(1, 1), brightness=0, contrast=0)
"""Training images as they are."""


class CAMOptions(MethodOptions):
    """Options of a CAM network."""

    backbone: str = Field(
        "densenet121",
        description="a densenet*, resnet*, vgg*, googlenet, alexnet; small: densenet_micro",
    )
    pretrained: bool | str = Field(False, description="ImageNet weights from timm, or a .safetensors file")
    output_stride: Literal[8, 16, 32] = Field(32, description="image pixels per pixel of the last feature map")
    input_mean: tuple[float, ...] = Field((0.5,), description="per channel of the network's input, of grey in [0, 1]")
    input_std: tuple[float, ...] = Field((0.5,), description="likewise; three of each replicate grey to RGB")
    upsample: int = Field(8, ge=1, description="class activation maps are enlarged so many times, bilinearly")

    @model_validator(mode="after")
    def _input_fits(self) -> "CAMOptions":
        if not self.input_mean or len(self.input_mean) != len(self.input_std) or min(self.input_std) <= 0:
            raise ValueError("expected input_mean and input_std of equal length, with input_std above 0")
        return self


def build_backbone(options: CAMOptions) -> nn.Module:
    return classification_backbone(
        options.backbone,
        pretrained=options.pretrained,
        in_chans=len(options.input_mean),
        output_stride=options.output_stride,
    )


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
