"""Backbones and heads."""

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
from cxrfast.models.fully_convolutional import FullyConvolutionalNetwork
from cxrfast.models.multi_resolution import MultiResolutionNetwork
from cxrfast.models.patch_network import CRFNetwork, GuideBranch, PatchHead, PatchNetwork, resize_to_grid
from cxrfast.models.region_verification import attended_region, enclosing_rectangle, region_logits

__all__ = [
    "CLASSIFICATION_BACKBONES",
    "AveragePool",
    "CAMNetwork",
    "CAMOutput",
    "CRFNetwork",
    "FullyConvolutionalNetwork",
    "GuideBranch",
    "InputScaling",
    "LogSumExpPool",
    "MultiResolutionNetwork",
    "PatchHead",
    "PatchNetwork",
    "TransitionLayer",
    "attended_region",
    "class_activation_maps",
    "classification_backbone",
    "enclosing_rectangle",
    "feature_channels",
    "normalize_maps",
    "preactivation_resnet",
    "region_logits",
    "resize_to_grid",
]
