"""Rajpurkar et al. 2017, "CheXNet: Radiologist-Level Pneumonia Detection on Chest X-Rays with Deep Learning".

A DenseNet-121 with one sigmoid per disease, trained with the binary cross-entropy of the image labels. The class
activation map M_c = Σ_k w_c,k f_k, upsampled to the image, localises a disease (§5). The paper shows these maps but no
boxes. Here, the region consists of the positions where the min-max normalised map is at least 0.5.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field

from cxrfast.data import Augmentation
from cxrfast.losses import binary_cross_entropy
from cxrfast.methods._cam import UNCHANGED, CAMOptions, heat_maps, same_for_all
from cxrfast.methods.base import Batch, Defaults, Method, Stage
from cxrfast.models import CAMNetwork
from cxrfast.regions.prediction import Prediction

STAGE = "classifier"


class CheXNetOptions(CAMOptions):
    region_threshold: float = Field(0.5, gt=0, lt=1, description="threshold of the min-max normalised heat map")


class CheXNet(Method):
    name = "chexnet"
    title = "Rajpurkar et al. 2017, CheXNet (DenseNet-121 classifier with class activation maps)"
    Options = CheXNetOptions
    defaults: ClassVar[Defaults] = Defaults(
        image_size=224, epochs=15, batch_size=16, lr=1e-3, weight_decay=0.0, lr_decay=0.1, lr_step=5
    )
    augmentation: ClassVar[Augmentation] = replace(UNCHANGED, flip=0.5)

    midpoints: torch.Tensor

    def __init__(self, class_names: Sequence[str], image_size: int, options: CheXNetOptions) -> None:
        super().__init__(class_names, image_size, options)
        backbone, scaling = options.build_backbone(image_size, self.augmentation.crop), options.build_scaling()
        self.network = CAMNetwork(backbone, len(class_names), scaling=scaling)
        # Not changed by training; imported models may have other values.
        self.register_buffer("midpoints", same_for_all(class_names, 0.5))

    def stages(self, epochs: int) -> tuple[Stage, ...]:
        return (Stage(STAGE, epochs, trains=("network.",)),)

    def forward(self, images: torch.Tensor, stage: str) -> torch.Tensor:  # [B, 1, S, S] -> [B, K]
        return self.network(images).logits

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        # The paper sums over classes; the mean over pairs of image and class differs only by a factor.
        return binary_cross_entropy(output, batch["labels"])

    def predict(self, images: torch.Tensor, stage: str) -> Prediction:
        output = self.network(images)
        scores = move_midpoints(torch.sigmoid(output.logits.float()), self.midpoints)
        return Prediction(scores, heat_maps(output.maps, self.options.upsample))

    @property
    def map_thresholds(self) -> torch.Tensor:  # [K]
        return same_for_all(self.class_names, self.options.region_threshold)


def move_midpoints(
    scores: torch.Tensor,  # [B, K] in [0, 1]
    midpoints: torch.Tensor,  # [K] in (0, 1)
) -> torch.Tensor:  # [B, K]
    """Rescale [0, t] to [0, ½] and [t, 1] to [½, 1], so that the operating point t becomes ½. t = ½ changes nothing.
    torchxrayvision calibrates its scores in this way."""
    return torch.where(scores < midpoints, scores / (2 * midpoints), 1 - (1 - scores) / (2 * (1 - midpoints)))
