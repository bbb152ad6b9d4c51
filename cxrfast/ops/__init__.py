"""The compiled operators. They depend only on torch and are not specific to X-rays."""

from cxrfast.ops.blur_pool import blur_pool2d, max_blur_pool2d
from cxrfast.ops.components import (
    ComponentBoxes,
    StaticComponentBoxes,
    component_boxes,
    component_boxes_static,
    connected_components,
)
from cxrfast.ops.hamming import HammingNeighbors, hamming_topk
from cxrfast.ops.mil_pool import mil_pool, mil_pool_ragged
from cxrfast.ops.pac_crf import pac_conv2d, pac_crf
from cxrfast.ops.region_loss import RegionSums, box_log_likelihood, region_sums
from cxrfast.ops.self_guiding import SelfGuidedSums, self_guided_sums, self_guided_sums_ragged

__all__ = [
    "ComponentBoxes",
    "HammingNeighbors",
    "RegionSums",
    "SelfGuidedSums",
    "StaticComponentBoxes",
    "blur_pool2d",
    "box_log_likelihood",
    "component_boxes",
    "component_boxes_static",
    "connected_components",
    "hamming_topk",
    "max_blur_pool2d",
    "mil_pool",
    "mil_pool_ragged",
    "pac_conv2d",
    "pac_crf",
    "region_sums",
    "self_guided_sums",
    "self_guided_sums_ragged",
]
