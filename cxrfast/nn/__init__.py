"""The operators as layers."""

from cxrfast.nn.mil_pool import MILPool
from cxrfast.nn.pac_crf import PacCRF, PacConv2d, potts_compatibility

__all__ = ["MILPool", "PacCRF", "PacConv2d", "potts_compatibility"]
