"""The compiled operators. They need torch and nothing else, and have nothing to do with X-rays."""

from cxrfast.ops.blur_pool import blur_pool2d, max_blur_pool2d
from cxrfast.ops.components import ComponentBoxes, component_boxes, connected_components

__all__ = ["ComponentBoxes", "blur_pool2d", "component_boxes", "connected_components", "max_blur_pool2d"]
