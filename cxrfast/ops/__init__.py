"""The compiled operators. They need torch and nothing else, and have nothing to do with X-rays."""

from cxrfast.ops.blur_pool import blur_pool2d
from cxrfast.ops.mil_pool import mil_pool, mil_pool_ragged
from cxrfast.ops.region_loss import RegionSums, box_log_likelihood, region_sums

__all__ = ["RegionSums", "blur_pool2d", "box_log_likelihood", "mil_pool", "mil_pool_ragged", "region_sums"]
