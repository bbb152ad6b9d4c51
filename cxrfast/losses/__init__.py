"""The papers' losses, one file each, usable without the rest of the package."""

from cxrfast.losses.li import LiLoss
from cxrfast.losses.rozenberg import RozenbergLoss
from cxrfast.losses.wang import WeightedBCE

__all__ = ["LiLoss", "RozenbergLoss", "WeightedBCE"]
