"""Backbones: networks up to their last feature map, and their pretrained weights."""

from cxrfast.models.backbones.create import SMALL_BACKBONES, Backbone, check_backbone, create_backbone, input_statistics

__all__ = ["SMALL_BACKBONES", "Backbone", "check_backbone", "create_backbone", "input_statistics"]
