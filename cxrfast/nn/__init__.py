"""torch.nn modules over the compiled operators."""

from cxrfast.nn.pac_crf import PacConv2d, PacCRF, potts_compatibility

__all__ = ["PacCRF", "PacConv2d", "potts_compatibility"]
