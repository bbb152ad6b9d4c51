"""Every operator again in plain PyTorch, same name and signature: the specification, and the referee in tests."""

from cxrfast.reference.blur_pool import blur_pool2d, max_blur_pool2d
from cxrfast.reference.components import component_boxes, connected_components

__all__ = ["blur_pool2d", "component_boxes", "connected_components", "max_blur_pool2d"]
