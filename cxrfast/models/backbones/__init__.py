"""Networks that look at the image, up to their last spatial map, and where their weights come from."""

from cxrfast.models.backbones.create import SMALL_BACKBONES, Backbone, check_backbone, create_backbone, input_statistics

__all__ = ["SMALL_BACKBONES", "Backbone", "check_backbone", "create_backbone", "input_statistics"]
