"""The compiled operators. They need torch and nothing else, and have nothing to do with X-rays."""

from cxrfast.ops.blur_pool import blur_pool2d
from cxrfast.ops.pac_crf import pac_conv2d, pac_crf

__all__ = ["blur_pool2d", "pac_conv2d", "pac_crf"]
