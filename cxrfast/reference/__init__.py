"""Every operator again in plain PyTorch, same name and signature: the specification, and the referee in tests."""

from cxrfast.reference.blur_pool import blur_pool2d
from cxrfast.reference.mil_pool import mil_pool, mil_pool_ragged
from cxrfast.reference.region_loss import box_log_likelihood, region_sums

__all__ = ["blur_pool2d", "box_log_likelihood", "mil_pool", "mil_pool_ragged", "region_sums"]
