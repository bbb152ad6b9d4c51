"""The operators as layers."""

from cxrfast.nn.mil_pool import MILPool

__all__ = ["MILPool"]
