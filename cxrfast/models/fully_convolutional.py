"""Fully convolutional classifiers: a 1×1 convolution scores every position, without pooling."""

import torch
from torch import nn

from cxrfast.models.backbones import Backbone
from cxrfast.models.input_scaling import InputScaling


class FullyConvolutionalNetwork(nn.Module):
    """Backbone features, scored at every position by a 1×1 convolution. The size of the maps follows the image size.

    Args:
        backbone: a backbone with as many input channels as `scaling` has output channels.
        num_classes: K.
        scaling: the scaling of the input. Default: unchanged images.
    """

    def __init__(self, backbone: Backbone, num_classes: int, *, scaling: InputScaling | None = None) -> None:
        super().__init__()
        self.scaling = scaling or InputScaling((0.5,), (0.5,))
        self.backbone = backbone
        self.classifier = nn.Conv2d(backbone.num_features, num_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> logits [B, K, h, w]
        return self.classifier(self.backbone.forward_features(self.scaling(images)))
