"""Backbones and heads."""

from cxrfast.models.backbones import preactivation_resnet
from cxrfast.models.patch_network import CRFNetwork, GuideBranch, PatchHead, PatchNetwork, resize_to_grid

__all__ = ["CRFNetwork", "GuideBranch", "PatchHead", "PatchNetwork", "preactivation_resnet", "resize_to_grid"]
