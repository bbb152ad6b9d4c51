"""The methods of the papers, one module each."""

from cxrfast.methods.base import Defaults, Method, MethodOptions, Stage
from cxrfast.methods.chexnet import CheXNet
from cxrfast.methods.cia import CIA
from cxrfast.methods.li import Li
from cxrfast.methods.registry import METHODS, get_method
from cxrfast.methods.rozenberg import Rozenberg
from cxrfast.methods.sgl import SGL
from cxrfast.methods.wang import Wang
from cxrfast.methods.yao import Yao
from cxrfast.methods.zhang import Zhang

__all__ = [
    "CIA",
    "METHODS",
    "SGL",
    "CheXNet",
    "Defaults",
    "Li",
    "Method",
    "MethodOptions",
    "Rozenberg",
    "Stage",
    "Wang",
    "Yao",
    "Zhang",
    "get_method",
]
