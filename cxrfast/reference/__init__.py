"""Every operator again in plain PyTorch, under the same name and signature: the specification, and the tests' referee."""

from cxrfast.reference.blur_pool import blur_pool2d
from cxrfast.reference.pac_crf import pac_conv2d, pac_crf

__all__ = ["blur_pool2d", "pac_conv2d", "pac_crf"]
