"""Seibold et al. 2020, "Self-Guided Multiple Instance Learning for Weakly Supervised Disease Classification and
Localization in Chest Radiographs" (ACCV).

An image is a bag, and the places of the last feature map are its instances: a 1×1 convolution stands where a ResNet-50
pools and classifies. Only image labels are used. The pooled prediction answers for the bag (Eq. 4); and, as the label
says little about any one instance, the predictions make targets for themselves: rescaled over the bag (Eq. 5), those
that are low are to become 0, those that are high 1, and what is in between keeps its own value (Eq. 6), the more firmly
the further the highest prediction stands out (Eq. 7, 8). The loss stands in `cxrfast/losses/self_guiding.py`, its
rivals in `cxrfast/losses/bags.py`. A class is localised where it is predicted at all: at the box around the connected
component of the map's maximum.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from cxrfast.data import Augmentation
from cxrfast.losses import BagLoss, BILLoss, MMMLoss, SelfGuidingLoss
from cxrfast.losses.bags import BILForm
from cxrfast.losses.self_guiding import L2Form, Normalization
from cxrfast.methods._backbone import BackboneOptions
from cxrfast.methods.base import Batch, Defaults, Method, Stage
from cxrfast.models import FullyConvolutionalNetwork
from cxrfast.ops import mil_pool
from cxrfast.ops.mil_pool import MODES
from cxrfast.ops.self_guiding import Median
from cxrfast.regions.prediction import Prediction
from cxrfast.regions.rule import RegionRule

Pool = Literal["softmax", "max", "mean", "noisy_or", "lse", "linear_softmax", "generalized_mean"]


class SGLOptions(BackboneOptions):
    backbone: str = Field("resnet50", description="any timm network with a spatial map; small: resnet_nano")
    output_stride: int | None = Field(None, ge=1, description="image pixels per instance; null: the network's own")
    pool: Pool = Field("softmax", description="instances to image")
    sharpness: float | None = Field(None, description="of the pooling; default: that of cxrfast.ops.mil_pool")
    loss: Literal["sgl", "bil", "mmm", "bag"] = Field(
        "sgl", description="bil: Zhou 2017, mmm: Morfi 2018, bag: Eq. 4 alone"
    )
    delta: float = Field(0.3, ge=0, le=0.5, description="δ_l of Eq. 6; δ_h = 1 − δ_l")
    lam: float = Field(20.0, ge=0, description="λ of Eq. 9, weight of the instances; of loss=bil too")
    bil_form: BILForm = Field("sum", description="of loss=bil: the text's, or the published script's")
    rescale: bool = Field(True, description="Eq. 5; false: θ = p")
    weighted: bool = Field(True, description="Eq. 8; false: every weight is 1")
    normalize: Normalization = Field("batch", description="what Eq. 7 divides a kind's sum by: its instances there")
    average_weight: bool = Field(False, description="Eq. 7 with a kind's mean weight, as in the published script")
    median: Median = Field("lower", description="of Eq. 8, of an even number of instances")
    l2: float = Field(1.0, ge=0, description="weight of the penalty on what is not 0 in M")
    l2_form: L2Form = Field("squares", description="mean of p² there, or the norm of M itself")
    region_threshold: float = Field(0.5, gt=0, lt=1, description="an instance is positive from this p on")
    gate: float | None = Field(0.5, ge=0, lt=1, description="no region unless the image's p is over it; null: always")
    opening: float = Field(
        0, ge=0, allow_inf_nan=False, description="opens positive areas: image pixels, or below 1 a share of the side"
    )
    closing: float = Field(0, ge=0, allow_inf_nan=False, description="closes them after that, in the same units")

    @field_validator("sharpness")
    @classmethod
    def _belongs_to_the_pool(cls, value: float | None, info: ValidationInfo) -> float | None:
        pool = info.data.get("pool")
        if value is not None and pool is not None and MODES[pool].sharpness is None:
            raise ValueError(f"pool {pool!r} has none; expected no value")
        return value

    @field_validator("average_weight")
    @classmethod
    def _belongs_to_the_batch(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("normalize") == "bag":
            raise ValueError("normalize 'bag' has one weight a bag; expected false")
        return value


def build_loss(options: SGLOptions) -> nn.Module:
    if options.loss == "bil":
        return BILLoss(options.pool, options.lam, sharpness=options.sharpness, form=options.bil_form)
    if options.loss == "mmm":
        return MMMLoss(options.pool, sharpness=options.sharpness)
    if options.loss == "bag":
        return BagLoss(options.pool, sharpness=options.sharpness)
    return SelfGuidingLoss(
        options.pool,
        options.delta,
        options.lam,
        sharpness=options.sharpness,
        rescale=options.rescale,
        weighted=options.weighted,
        normalize=options.normalize,
        average_weight=options.average_weight,
        median=options.median,
        l2=options.l2,
        l2_form=options.l2_form,
    )


class SGL(Method):
    name = "sgl"
    title = "Seibold et al. 2020, Self-Guided Multiple Instance Learning"
    Options = SGLOptions
    defaults: ClassVar[Defaults] = Defaults(
        image_size=512, epochs=20, batch_size=48, lr=1e-4, weight_decay=1e-4, lr_decay=0.1, lr_step=10
    )
    # Boxes have no part in the training: a crop is not drawn again for having lost one.
    augmentation: ClassVar[Augmentation] = Augmentation(
        rotation=0, translate=0, scale=(1, 1), brightness=0, contrast=0, crop=7 / 8, min_visible=0
    )

    def __init__(self, class_names: Sequence[str], image_size: int, options: SGLOptions) -> None:
        super().__init__(class_names, image_size, options)
        backbone = options.build_backbone(image_size, self.augmentation.crop)
        self.network = FullyConvolutionalNetwork(backbone, len(class_names), scaling=options.build_scaling())
        self.criterion = build_loss(options)

    def stages(self, epochs: int) -> tuple[Stage, ...]:
        return (Stage("instances", epochs, trains=("network.",)),)

    def forward(self, images: torch.Tensor, stage: str) -> torch.Tensor:  # [B, 1, S, S] -> [B, K, P, P]
        return self.network(images)

    def loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self.criterion(logits, batch["labels"])  # Eq. 9

    def predict(self, images: torch.Tensor, stage: str) -> Prediction:
        logits = self(images, stage).float()
        bags = mil_pool(logits, self.options.pool, sharpness=self.options.sharpness)
        return Prediction(torch.sigmoid(bags), torch.sigmoid(logits))

    @property
    def map_thresholds(self) -> torch.Tensor:  # [K]
        return torch.full((len(self.class_names),), self.options.region_threshold)

    @property
    def region_rule(self) -> RegionRule:
        options = self.options
        return RegionRule("boxes", "peak", opening=options.opening, closing=options.closing, gate=options.gate)
