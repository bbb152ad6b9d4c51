"""The methods by their names on the command line and in checkpoints."""

from cxrfast.errors import UsageError
from cxrfast.methods.base import Method
from cxrfast.methods.chexnet import CheXNet
from cxrfast.methods.cia import CIA
from cxrfast.methods.li import Li
from cxrfast.methods.rozenberg import Rozenberg
from cxrfast.methods.sgl import SGL
from cxrfast.methods.wang import Wang
from cxrfast.methods.yao import Yao
from cxrfast.methods.zhang import Zhang

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (Li, Rozenberg, CheXNet, Wang, SGL, Zhang, Yao, CIA)
}


def get_method(name: str) -> type[Method]:
    """The method named `name`. Raises UsageError with the known names if there is none."""
    if not isinstance(name, str) or name not in METHODS:
        raise UsageError(f"method: expected one of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]
