"""The libraries that cxrfast is compared with, all optional."""

import importlib.util
from typing import NamedTuple

from cxrfast.errors import UsageError


class Library(NamedTuple):
    module: str | None  # to import; None if it is part of torch or cxrfast
    source: str  # where to get it


LIBRARIES = {
    "aten": Library(None, "an operator of torch"),
    "compiled": Library(None, "the formula in plain PyTorch under torch.compile"),
    "unfold": Library(None, "cxrfast.reference, which unfolds the image"),
    "numpy": Library("numpy", "pip install 'numpy>=2'"),
    "timm": Library("timm", "pip install timm"),
    "antialiased-cnns": Library("antialiased_cnns", "pip install antialiased-cnns"),
    "kornia": Library("kornia", "pip install kornia"),
    "kornia_rs": Library("kornia_rs", "pip install kornia_rs"),
    "opencv": Library("cv2", "pip install opencv-python-headless"),
    "cc3d": Library("cc3d", "pip install connected-components-3d"),
    "scipy": Library("scipy", "pip install scipy"),
    "scikit-image": Library("skimage", "pip install scikit-image"),
    "natten": Library("natten", "pip install natten"),
    "paccrf": Library("paccrf", "--peer-path FOLDER of github.com/NVlabs/pacnet"),
    "convcrf": Library("convcrf", "--peer-path FOLDER of github.com/MarvinTeichmann/ConvCRF"),
}


def select_libraries(text: str | None) -> list[str]:
    """The libraries named in a comma-separated list; all for None, none for "none"."""
    if text is None:
        return list(LIBRARIES)
    names = [name.strip() for name in text.split(",") if name.strip() and name.strip() != "none"]
    for name in names:
        if name not in LIBRARIES:
            raise UsageError(f"peers: expected some of {', '.join(LIBRARIES)}, or none, got {name!r}")
    return names


def missing(library: str) -> str | None:
    """Why a library is not available; None if it is."""
    module, source = LIBRARIES[library]
    if module is None or importlib.util.find_spec(module) is not None:
        return None
    return f"not installed; {source}"
