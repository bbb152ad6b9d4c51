"""The operators as PyTorch modules."""

from cxrfast.nn._antialiased_layers import AntialiasedConv2d
from cxrfast.nn.antialias import antialias_, antialiased_modules, undo_antialias_
from cxrfast.nn.attention_pool import AttentionPool
from cxrfast.nn.blur_pool import BlurPool2d, MaxBlurPool2d
from cxrfast.nn.mil_pool import AutoPool, LSELBAPool, MILPool
from cxrfast.nn.pac_crf import PacConv2d, PacCRF, potts_compatibility

__all__ = [
    "AntialiasedConv2d",
    "AttentionPool",
    "AutoPool",
    "BlurPool2d",
    "LSELBAPool",
    "MILPool",
    "MaxBlurPool2d",
    "PacCRF",
    "PacConv2d",
    "antialias_",
    "antialiased_modules",
    "potts_compatibility",
    "undo_antialias_",
]
