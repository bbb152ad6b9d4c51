"""Wang et al. 2017, "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on Weakly-Supervised
Classification and Localization of Common Thorax Diseases" (CVPR).

The last layers of a network pretrained on ImageNet are replaced by a transition layer, log-sum-exp pooling (Eq. 2, 3)
and a linear prediction layer (§3.2). The loss gives the rare positive labels the same total weight as the negative ones
(Eq. 1, in `cxrfast/losses/wang.py`). The weights of the prediction layer and the activations of the transition layer
give a heat map per disease, without any boxes in training. A heat map scaled to [0, 255] is thresholded at 60 and at
180; the boxes of the regions at both thresholds are the result.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import AfterValidator, Field

from cxrfast.data import Augmentation
from cxrfast.losses import WeightedBCE
from cxrfast.methods._cam import UNCHANGED, CAMOptions, heat_maps, same_for_all
from cxrfast.methods.base import Batch, Defaults, Method, Stage
from cxrfast.models import CAMNetwork, LogSumExpPool, TransitionLayer
from cxrfast.regions.prediction import Prediction
from cxrfast.regions.rule import RegionRule

STAGE = "classifier"


def _levels(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values or not all(0 < value < 255 for value in values):
        raise ValueError("expected at least one level between 0 and 255")
    return tuple(sorted(values))


class WangOptions(CAMOptions):
    backbone: str = Field("resnet50", description="any timm network with a spatial map; googlenet, alexnet")
    transition_channels: int = Field(2048, ge=1, description="D: maps of the transition layer")
    transition_stride: int = Field(1, ge=1, description="stride of the transition layer")
    sharpness: float = Field(10.0, gt=0, description="r of the log-sum-exp pooling: mean at 0, maximum at ∞")
    levels: Annotated[tuple[float, ...], AfterValidator(_levels)] = Field(
        (60.0, 180.0), description="thresholds of heat maps in [0, 255]"
    )


class Wang(Method):
    name = "wang"
    title = "Wang et al. 2017, ChestX-ray8 (classifier with log-sum-exp pooling and heat maps)"
    Options = WangOptions
    defaults: ClassVar[Defaults] = Defaults(
        image_size=512, epochs=10, batch_size=48, lr=1e-3, weight_decay=0.0, lr_decay=0.1, lr_step=5
    )
    augmentation: ClassVar[Augmentation] = UNCHANGED

    def __init__(self, class_names: Sequence[str], image_size: int, options: WangOptions) -> None:
        super().__init__(class_names, image_size, options)
        backbone, channels = options.build_backbone(image_size, self.augmentation.crop), options.transition_channels
        self.network = CAMNetwork(
            backbone,
            len(class_names),
            channels=channels,
            transition=TransitionLayer(backbone.num_features, channels, stride=options.transition_stride),
            pooling=LogSumExpPool(options.sharpness),
            scaling=options.build_scaling(),
        )
        self.criterion = WeightedBCE()

    def stages(self, epochs: int) -> tuple[Stage, ...]:
        return (Stage(STAGE, epochs, trains=("network.",)),)

    def forward(self, images: torch.Tensor, stage: str) -> torch.Tensor:  # [B, 1, S, S] -> [B, K]
        return self.network(images).logits

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self.criterion(output, batch["labels"])  # Eq. 1

    def predict(self, images: torch.Tensor, stage: str) -> Prediction:
        output = self.network(images)
        return Prediction(torch.sigmoid(output.logits.float()), heat_maps(output.maps, self.options.upsample))

    @property
    def map_thresholds(self) -> torch.Tensor:  # [K]
        return same_for_all(self.class_names, self.region_rule.levels[0])

    @property
    def region_rule(self) -> RegionRule:
        return RegionRule(shape="boxes", levels=tuple(level / 255 for level in self.options.levels))
