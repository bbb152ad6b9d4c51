"""The papers' methods, one module each."""

from cxrfast.methods.base import Defaults, Method, MethodOptions, Stage
from cxrfast.methods.li import Li
from cxrfast.methods.registry import METHODS, get_method
from cxrfast.methods.rozenberg import Rozenberg

__all__ = ["METHODS", "Defaults", "Li", "Method", "MethodOptions", "Rozenberg", "Stage", "get_method"]
