"""Pretrained weights of a backbone, from timm's hub or from a file with a known naming scheme."""

import inspect
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from timm.models import adapt_input_conv
from torch import nn

from cxrfast.errors import CxrfastError
from cxrfast.models.backbones.foreign_names import to_timm_names
from cxrfast.models.backbones.weight_files import State, read_tensors

_COUNTER = "num_batches_tracked"  # of batch norms; missing in old checkpoints and not needed


def load_file(body: nn.Module, name: str, path: str, whole: Collection[str]) -> None:
    """Load the weights of the network `name` from a file.

    Tensor names may be those of timm or torchvision, with or without the classifier and with any prefix, or those of
    :mod:`cxrfast.models.backbones.foreign_names`. Three-channel stems are summed for a one-channel network, and
    position embeddings are resized.

    Args:
        whole: names of all tensors of the network, including its classifier, which `body` does not have.

    Raises CxrfastError with a one-line description if a tensor is missing, has another shape, or does not belong to the
    network.
    """
    state, _ = read_tensors(Path(path), "pretrained")
    own = body.state_dict()
    state = _behind_prefix(to_timm_names(state, own), own)
    try:
        state = _adapt_stem(_filtered(state, body), body)
    except Exception as error:  # timm's converters raise many types for unknown files
        raise CxrfastError(f"pretrained: {path} does not hold weights of {name} ({one_line(error)})") from error
    needed = {key for key in own if not key.endswith(_COUNTER)}
    differences = {
        f"of its {len(needed)} tensors are missing": needed - state.keys(),
        "have another shape": {key for key in needed & state.keys() if state[key].shape != own[key].shape},
        "of the file have no place in it": {key for key in state if key not in whole and not key.endswith(_COUNTER)},
    }
    problems = [f"{len(keys)} {what} ({min(keys)})" for what, keys in differences.items() if keys]
    if problems:
        raise CxrfastError(
            f"pretrained: {path} does not hold weights of {name}: {', '.join(problems)}; give another file, or the "
            "name of its network with --set backbone=NAME"
        )
    body.load_state_dict({key: state[key] for key in own if key in state}, strict=False)


def _behind_prefix(state: State, own: State) -> State:
    """Remove a common prefix of all names, such as `module.` or `network.backbone.`."""
    best = max(_prefixes(state, own), key=lambda prefix: sum(prefix + key in state for key in own), default="")
    return {name.removeprefix(best): tensor for name, tensor in state.items() if name.startswith(best)}


def _prefixes(state: State, own: State) -> set[str]:
    first = next(iter(own))
    return {""} | {name.removesuffix(first) for name in state if name.endswith(f".{first}")}


def _filtered(state: State, body: nn.Module) -> State:
    """Apply timm's checkpoint conversion for this family: old names, other image sizes."""
    known = getattr(sys.modules[type(body).__module__], "checkpoint_filter_fn", None)
    if known is None or len(inspect.signature(known).parameters) < 2:
        return state
    return dict(known(dict(state), body))


def _adapt_stem(state: State, body: nn.Module) -> State:
    """Convert the stem to another number of channels as in timm: for one channel, sum the filters of the colours."""
    first = cast(Any, body).pretrained_cfg.get("first_conv") or ()
    adapted = dict(state)
    modules = dict(body.named_modules())
    for layer in (first,) if isinstance(first, str) else first:
        key, convolution = f"{layer}.weight", modules.get(layer)
        if isinstance(convolution, nn.Conv2d) and key in state and state[key].shape[1] == 3 != convolution.in_channels:
            adapted[key] = adapt_input_conv(convolution.in_channels, state[key])
    return adapted


def cannot_fetch(name: str, error: Exception) -> CxrfastError:
    return CxrfastError(
        f"pretrained: cannot load weights for {name} ({one_line(error)}); connect to the network once, give a file of "
        "weights, or leave --pretrained out to start from random weights"
    )


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Switch the hub's client to offline mode if the hub is unreachable. It would otherwise retry for a minute with
    many messages; offline, it reads its cache or fails immediately."""
    from huggingface_hub import constants, get_session

    before = constants.HF_HUB_OFFLINE
    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # depends on the HTTP library of the client's version
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def one_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
