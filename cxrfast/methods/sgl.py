"""Seibold et al. 2020, "Self-Guided Multiple Instance Learning for Weakly Supervised Disease Classification and
Localization in Chest Radiographs" (ACCV).

An image is a bag, and the positions of the last feature map are its instances. A 1×1 convolution replaces the pooling
and the classifier of a ResNet-50. Only image-level labels are used. The bag loss is on the pooled prediction (Eq. 4).
Because the label says little about a single instance, the predictions also provide targets for the instances. After
rescaling over the bag (Eq. 5), low predictions have the target 0, high ones the target 1, and those in between their
own rescaled value (Eq. 6). The weight of the instance loss increases with the distance of the maximum from the median
(Eq. 7, 8). The loss is in `cxrfast/losses/self_guiding.py`, the losses that it is compared with in
`cxrfast/losses/bags.py`. If a class is predicted, its region is the box around the connected component that contains
the map's maximum.
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
    pool: Pool = Field("softmax", description="pooling of instances to an image score")
    sharpness: float | None = Field(None, description="of the pooling; default: that of cxrfast.ops.mil_pool")
    loss: Literal["sgl", "bil", "mmm", "bag"] = Field(
        "sgl", description="sgl: Eq. 9; bil: Zhou 2017; mmm: Morfi 2018; bag: only Eq. 4"
    )
    delta: float = Field(0.3, ge=0, le=0.5, description="δ_l of Eq. 6; δ_h = 1 − δ_l")
    lam: float = Field(20.0, ge=0, description="λ of Eq. 9 (and of loss=bil): weight of the instance loss")
    bil_form: BILForm = Field("sum", description="with loss=bil: formula of the paper (sum) or of its script")
    rescale: bool = Field(True, description="Eq. 5; false: θ = p")
    weighted: bool = Field(True, description="Eq. 8; false: every weight is 1")
    normalize: Normalization = Field("batch", description="Eq. 7: count the instances of a kind per batch or per bag")
    average_weight: bool = Field(False, description="Eq. 7 with the mean weight per kind, as in the published script")
    median: Median = Field("lower", description="median in Eq. 8 of an even number of instances")
    l2: float = Field(1.0, ge=0, description="weight of the penalty on the non-zero elements of M")
    l2_form: L2Form = Field("squares", description="penalty: mean of p² where M ≠ 0, or norm of M")
    region_threshold: float = Field(0.5, gt=0, lt=1, description="threshold of a positive instance")
    gate: float | None = Field(
        0.5, ge=0, lt=1, description="no region unless the image score exceeds this; null: always a region"
    )
    opening: float = Field(
        0,
        ge=0,
        allow_inf_nan=False,
        description="morphological opening: image pixels, or below 1 a fraction of the side",
    )
    closing: float = Field(
        0, ge=0, allow_inf_nan=False, description="morphological closing after the opening, in the same units"
    )

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
            raise ValueError("normalize 'bag' has one weight per bag; expected false")
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
    # Training does not use boxes, so a crop may lose one.
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
