"""The papers' losses, one file each, usable without the rest of the package."""

from cxrfast.losses.bags import BagLoss, BILLoss, MMMLoss
from cxrfast.losses.li import LiLoss
from cxrfast.losses.rozenberg import RozenbergLoss, positive_to_negative
from cxrfast.losses.self_guiding import SelfGuidingLoss
from cxrfast.losses.unknown import binary_cross_entropy
from cxrfast.losses.wang import WeightedBCE
from cxrfast.losses.zhang import TripletLoss, certain_triplets

__all__ = [
    "BILLoss",
    "BagLoss",
    "LiLoss",
    "MMMLoss",
    "RozenbergLoss",
    "SelfGuidingLoss",
    "TripletLoss",
    "WeightedBCE",
    "binary_cross_entropy",
    "certain_triplets",
    "positive_to_negative",
]
