"""Puts the emulated CUDA kernels in the place of the CPU's, so that tests reach them as users reach a GPU's."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from cxrfast.ops import _registration
from tests.cuda_emulation import build


@contextmanager
def emulated_kernels() -> Iterator[None]:
    """Inside, the operators `cxrfast::*` run their emulated CUDA kernels for tensors in the CPU's memory."""
    build.load()
    library = torch.library.Library("cxrfast", "IMPL")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)
            for name in _registration.OPERATORS:
                library.impl(name, _kernel(name), "CPU", allow_override=True)
        yield
    finally:
        library._destroy()  # the CPU's kernels are back


def has_kernel(name: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"cxrfast_emulated::{name}", "CPU")


def _kernel(name: str) -> Callable[..., Any]:
    if has_kernel(name):
        return getattr(torch.ops.cxrfast_emulated, name).default

    def skip(*args: Any, **kwargs: Any) -> Any:
        pytest.skip(f"{name} has no CUDA kernel")

    return skip
