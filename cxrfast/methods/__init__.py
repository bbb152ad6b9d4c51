"""The papers' methods, one module each."""

from cxrfast.methods.base import Defaults, Method, MethodOptions, Stage
from cxrfast.methods.li import Li
from cxrfast.methods.registry import METHODS, get_method
from cxrfast.methods.rozenberg import Rozenberg
from cxrfast.methods.sgl import SGL

__all__ = ["METHODS", "SGL", "Defaults", "Li", "Method", "MethodOptions", "Rozenberg", "Stage", "get_method"]
