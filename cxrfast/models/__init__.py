"""Networks: backbones, heads, and the networks of the methods."""

from cxrfast.models.alignment import AlignmentNetwork, FeatureDistance, align, maps_in_original, shrunk
from cxrfast.models.backbones import SMALL_BACKBONES, Backbone, check_backbone, create_backbone, input_statistics
from cxrfast.models.cam import (
    AveragePool,
    CAMNetwork,
    CAMOutput,
    LogSumExpPool,
    TransitionLayer,
    class_activation_maps,
    normalize_maps,
)
from cxrfast.models.contrast import ContrastNetwork, NegativeLibrary, average_hash, contrast_attention
from cxrfast.models.fully_convolutional import FullyConvolutionalNetwork
from cxrfast.models.input_scaling import InputScaling
from cxrfast.models.multi_resolution import MultiResolutionNetwork
from cxrfast.models.patch_network import CRFNetwork, GuideBranch, PatchHead, PatchNetwork, resize_to_grid
from cxrfast.models.region_verification import attended_region, enclosing_rectangle, region_logits

__all__ = [
    "SMALL_BACKBONES",
    "AlignmentNetwork",
    "AveragePool",
    "Backbone",
    "CAMNetwork",
    "CAMOutput",
    "CRFNetwork",
    "ContrastNetwork",
    "FeatureDistance",
    "FullyConvolutionalNetwork",
    "GuideBranch",
    "InputScaling",
    "LogSumExpPool",
    "MultiResolutionNetwork",
    "NegativeLibrary",
    "PatchHead",
    "PatchNetwork",
    "TransitionLayer",
    "align",
    "attended_region",
    "average_hash",
    "check_backbone",
    "class_activation_maps",
    "contrast_attention",
    "create_backbone",
    "enclosing_rectangle",
    "input_statistics",
    "maps_in_original",
    "normalize_maps",
    "region_logits",
    "resize_to_grid",
    "shrunk",
]
