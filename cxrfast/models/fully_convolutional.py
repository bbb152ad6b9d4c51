"""Classifiers that score every place of an image: the classifying layer is a 1×1 convolution, and nothing is pooled."""

import torch
from torch import nn

from cxrfast.models.backbones import Backbone
from cxrfast.models.input_scaling import InputScaling


class FullyConvolutionalNetwork(nn.Module):
    """Backbone features, scored at every place by a 1×1 convolution: images of any size, maps as large in proportion.

    Args:
        backbone: for as many channels as `scaling` gives.
        num_classes: K.
        scaling: default: images as they are.
    """

    def __init__(self, backbone: Backbone, num_classes: int, *, scaling: InputScaling | None = None) -> None:
        super().__init__()
        self.scaling = scaling or InputScaling((0.5,), (0.5,))
        self.backbone = backbone
        self.classifier = nn.Conv2d(backbone.num_features, num_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> logits [B, K, h, w]
        return self.classifier(self.backbone.forward_features(self.scaling(images)))
