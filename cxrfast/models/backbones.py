"""Pre-activation ResNets (He et al. 2016b) with anti-aliased downsampling (Zhang 2019), from timm's `resnetv2_*`."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import timm
from torch import nn

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.nn import antialias_

# Smaller members of the family, for tests and for training without a GPU: timm's name and what differs from it.
_SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "resnetv2_micro": ("resnetv2_18", {"layers": [1, 1, 1, 1], "channels": (32, 64, 128, 256), "stem_chs": 32}),
    "resnetv2_nano": ("resnetv2_18", {"layers": [1, 1, 1, 1], "channels": (16, 32, 64, 128), "stem_chs": 16}),
}


def preactivation_resnet(
    name: str = "resnetv2_50",
    *,
    pretrained: bool | str = False,
    in_chans: int = 1,
    antialias: bool = True,
    filter_size: int = 3,
    output_stride: int = 32,
) -> nn.Module:
    """A feature extractor `forward_features([B, in_chans, S, S]) -> [B, num_features, S/output_stride, …]`.

    Args:
        name: `resnetv2_50` (the paper's), any other `resnetv2_*` of timm, `resnetv2_micro` or `resnetv2_nano`.
        pretrained: True loads timm's ImageNet weights (needs a network the first time); a path loads a safetensors file
            of the same network. Three-channel stems are summed for `in_chans=1`.
        antialias: put blur-pools with `filter_size` taps in front of every subsampling but the first convolution's,
            which Zhang's ResNets leave strided too. The keys of the weights stay.
        output_stride: 32, 16 or 8; smaller ones dilate instead of subsampling.

    Raises:
        UsageError: unknown name, or weights asked for where there are none.
        CxrfastError: the weights cannot be fetched or read, or do not fit.
    """
    base, overrides = _SMALL.get(name, (name, {}))
    if not base.startswith("resnetv2_") or base not in timm.list_models("resnetv2_*"):
        known = ", ".join([*timm.list_models("resnetv2_*"), *_SMALL])
        raise UsageError(f"backbone: expected one of {known}, got {name!r}")
    if pretrained is True and name in _SMALL:
        raise UsageError(f"pretrained: there are no weights for {name}; leave --pretrained out, or use resnetv2_50")
    settings: dict[str, Any] = {"in_chans": in_chans, "num_classes": 0, "output_stride": output_stride, **overrides}
    if isinstance(pretrained, str):
        path = Path(pretrained)
        if path.suffix != ".safetensors" or not path.is_file():
            raise CxrfastError(f"pretrained: expected a .safetensors file of {name}, got {pretrained}")
        settings["pretrained_cfg_overlay"] = {"file": str(path)}
    try:
        with _offline_if_unreachable() if pretrained is True else nullcontext():
            model = timm.create_model(base, pretrained=bool(pretrained), **settings)
    except Exception as error:  # network, cache, file and key errors of four libraries
        if not pretrained:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise CxrfastError(
            f"pretrained: cannot load weights for {name} ({reason}); connect to the network once, give a .safetensors "
            "file, or leave --pretrained out to start from random weights"
        ) from error
    return antialias_(model, filter_size=filter_size, skip=["stem.conv"]) if antialias else model


@contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Without a network the hub's client retries for a minute, talking all the while; asked once, it reads its cache or
    fails at once."""
    from huggingface_hub import constants, get_session

    before = constants.HF_HUB_OFFLINE
    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # of whichever HTTP library this version of the client uses
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
