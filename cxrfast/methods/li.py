"""Li et al. 2018, "Thoracic Disease Identification and Localization with Limited Supervision" (CVPR).

An image is divided into P×P patches, and each patch has a score per disease. An image has a disease if any patch has it
(noisy-OR, Eq. 2). If there is a box, exactly the patches inside it should be positive (Eq. 1). The loss (Eq. 3) is in
`cxrfast/losses/li.py`, the network in `cxrfast/models/patch_network.py`; this module combines them. The region of a
class is the union of the patches with p ≥ 0.5.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field

from cxrfast.data.patches import PatchRule
from cxrfast.losses import LiLoss
from cxrfast.methods._backbone import BackboneOptions
from cxrfast.methods._regions import annotated_regions
from cxrfast.methods.base import Batch, Defaults, Method, Stage
from cxrfast.models import PatchNetwork
from cxrfast.ops import mil_pool
from cxrfast.regions.prediction import Prediction


class PatchOptions(BackboneOptions):
    """Options of the patch network, which Rozenberg's method builds on."""

    backbone: str = Field("resnetv2_50", description="any timm network with a spatial map; small: resnetv2_nano")
    grid: int = Field(20, ge=2, description="P: the image is divided into P×P patches")
    hidden: int = Field(512, ge=1, description="channels of the head's first layer")
    patch_rule: PatchRule = Field("half", description="which patches belong to a box")
    region_threshold: float = Field(0.5, gt=0, lt=1, description="threshold of a positive patch")


class LiOptions(PatchOptions):
    lambda_box: float = Field(5.0, ge=0, description="λ_bbox of Eq. 3")
    floor: float = Field(0.0, ge=0, lt=1, description="patch scores are rescaled to [floor, 1]; the paper: 0.98")


def build_patch_network(options: PatchOptions, num_classes: int, image_size: int) -> PatchNetwork:
    backbone, scaling = options.build_backbone(image_size), options.build_scaling()
    return PatchNetwork(backbone, num_classes, options.grid, hidden=options.hidden, scaling=scaling)


class Li(Method):
    name = "li"
    title = "Li et al. 2018, Thoracic Disease Identification and Localization with Limited Supervision"
    Options = LiOptions
    defaults: ClassVar[Defaults] = Defaults(
        image_size=512, epochs=30, batch_size=48, lr=1e-3, weight_decay=0.01, lr_decay=0.9
    )

    def __init__(self, class_names: Sequence[str], image_size: int, options: LiOptions) -> None:
        super().__init__(class_names, image_size, options)
        self.network = build_patch_network(options, len(class_names), image_size)
        self.criterion = LiLoss(lambda_box=options.lambda_box, floor=options.floor)

    def stages(self, epochs: int) -> tuple[Stage, ...]:
        return (Stage("patches", epochs, trains=("network.",)),)

    def forward(self, images: torch.Tensor, stage: str) -> torch.Tensor:  # [B, 1, S, S] -> [B, K, P, P]
        return self.network(images)

    def loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        annotated, region = annotated_regions(batch, self.image_size, self.options.grid, self.options.patch_rule)
        return self.criterion(logits, batch["labels"], annotated, region)

    def predict(self, images: torch.Tensor, stage: str) -> Prediction:
        logits = self(images, stage).float()
        return Prediction(torch.sigmoid(mil_pool(logits, "noisy_or")), torch.sigmoid(logits))  # Eq. 2

    @property
    def map_thresholds(self) -> torch.Tensor:  # [K]
        return torch.full((len(self.class_names),), self.options.region_threshold)
