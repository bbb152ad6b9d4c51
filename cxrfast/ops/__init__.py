"""The compiled operators. They need torch and nothing else, and have nothing to do with X-rays."""

from cxrfast.ops.blur_pool import blur_pool2d, max_blur_pool2d

__all__ = ["blur_pool2d", "max_blur_pool2d"]
