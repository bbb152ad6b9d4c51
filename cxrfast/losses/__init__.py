"""The papers' losses, one file each, usable without the rest of the package."""

from cxrfast.losses.li import LiLoss
from cxrfast.losses.rozenberg import RozenbergLoss
from cxrfast.losses.wang import WeightedBCE
from cxrfast.losses.zhang import TripletLoss

__all__ = ["LiLoss", "RozenbergLoss", "TripletLoss", "WeightedBCE"]
