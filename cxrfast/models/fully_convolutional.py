"""Classifiers that score every place of an image: the classifying layer is a 1×1 convolution, and nothing is pooled."""

from typing import Any, cast

import torch
from torch import nn

from cxrfast.models.cam import feature_channels


class FullyConvolutionalNetwork(nn.Module):
    """Backbone features, scored at every place by a 1×1 convolution: images of any size, maps as large in proportion.

    Args:
        backbone: with `forward_features`, as :func:`cxrfast.models.classification_backbone` gives.
        num_classes: K.
    """

    def __init__(self, backbone: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Conv2d(feature_channels(backbone), num_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> logits [B, K, S/stride, S/stride]
        return self.classifier(cast(Any, self.backbone).forward_features(images))
