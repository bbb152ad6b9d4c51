"""Backbones and heads."""

from cxrfast.models.alignment import AlignmentNetwork, FeatureDistance, align, maps_in_original, shrunk
from cxrfast.models.backbones import CLASSIFICATION_BACKBONES, classification_backbone, preactivation_resnet
from cxrfast.models.cam import (
    AveragePool,
    CAMNetwork,
    CAMOutput,
    InputScaling,
    LogSumExpPool,
    TransitionLayer,
    class_activation_maps,
    feature_channels,
    normalize_maps,
)
from cxrfast.models.contrast import ContrastNetwork, NegativeLibrary, average_hash, contrast_attention
from cxrfast.models.fully_convolutional import FullyConvolutionalNetwork
from cxrfast.models.multi_resolution import MultiResolutionNetwork
from cxrfast.models.patch_network import CRFNetwork, GuideBranch, PatchHead, PatchNetwork, resize_to_grid
from cxrfast.models.region_verification import attended_region, enclosing_rectangle, region_logits

__all__ = [
    "CLASSIFICATION_BACKBONES",
    "AlignmentNetwork",
    "AveragePool",
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
    "class_activation_maps",
    "classification_backbone",
    "contrast_attention",
    "enclosing_rectangle",
    "feature_channels",
    "maps_in_original",
    "normalize_maps",
    "preactivation_resnet",
    "region_logits",
    "resize_to_grid",
    "shrunk",
]
