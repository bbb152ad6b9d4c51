"""Every operator in plain PyTorch, with the same name and signature: the specification that tests compare the kernels
with. It needs torch only, and can be imported where the operators have not been compiled."""

from cxrfast.reference.blur_pool import blur_pool2d, max_blur_pool2d
from cxrfast.reference.components import component_boxes, component_boxes_static, connected_components
from cxrfast.reference.hamming import hamming_topk
from cxrfast.reference.mil_pool import lse_lba_pool, mil_pool, mil_pool_ragged
from cxrfast.reference.pac_crf import pac_conv2d, pac_crf
from cxrfast.reference.region_loss import box_log_likelihood, region_sums
from cxrfast.reference.self_guiding import self_guided_sums, self_guided_sums_ragged

__all__ = [
    "blur_pool2d",
    "box_log_likelihood",
    "component_boxes",
    "component_boxes_static",
    "connected_components",
    "hamming_topk",
    "lse_lba_pool",
    "max_blur_pool2d",
    "mil_pool",
    "mil_pool_ragged",
    "pac_conv2d",
    "pac_crf",
    "region_sums",
    "self_guided_sums",
    "self_guided_sums_ragged",
]
