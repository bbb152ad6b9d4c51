"""Pretrained weights of a backbone, downloaded by timm or read from a file in a known format."""

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
    """Load weights from a file into `body`, which is the network `name` without its classifier.

    The file may have the names of timm or torchvision, or one of the formats in
    :mod:`cxrfast.models.backbones.foreign_names`. A common prefix and the classifier are ignored. The filters of a
    three-channel stem are summed for a network with one input channel; position embeddings are resized.

    Args:
        whole: names of all tensors of the network including its classifier, which `body` lacks.

    Raises CxrfastError, in one line, if a tensor is missing, has another shape, or does not belong to the network.
    """
    state, _ = read_tensors(Path(path), "pretrained")
    own = body.state_dict()
    state = _behind_prefix(to_timm_names(state, own), own)
    try:
        state = _adapt_stem(_filtered(state, body), body)
    except Exception as error:  # any exception of timm's converters for unsuitable files
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
    """The tensors without a common prefix of their names, such as `module.` or `network.backbone.`."""
    best = max(_prefixes(state, own), key=lambda prefix: sum(prefix + key in state for key in own), default="")
    return {name.removeprefix(best): tensor for name, tensor in state.items() if name.startswith(best)}


def _prefixes(state: State, own: State) -> set[str]:
    first = next(iter(own))
    return {""} | {name.removesuffix(first) for name in state if name.endswith(f".{first}")}


def _filtered(state: State, body: nn.Module) -> State:
    """The tensors after timm's conversion for this family of networks: old names, other image sizes."""
    known = getattr(sys.modules[type(body).__module__], "checkpoint_filter_fn", None)
    if known is None or len(inspect.signature(known).parameters) < 2:
        return state
    return dict(known(dict(state), body))


def _adapt_stem(state: State, body: nn.Module) -> State:
    """Adapts the stem to the number of input channels, as timm does: for one channel, the filters are summed."""
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
    """Switch the client of the model hub to offline mode if the hub is unreachable.

    Otherwise the client would retry for a minute and print warnings. Offline, it uses its cache or fails immediately.
    """
    from huggingface_hub import constants, get_session

    before = constants.HF_HUB_OFFLINE
    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # the exception depends on the HTTP library of the client
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def one_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
