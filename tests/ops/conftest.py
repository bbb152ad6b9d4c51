"""Runs every test of this folder on each back end: the CPU's kernels, the emulated CUDA kernels, and a GPU if present.

With the emulated kernels a test does everything as on the CPU, except that `torch.ops.cxrfast.*` reach the CUDA
kernels. On a GPU, tensors are created on it by default.
"""

import zlib
from collections.abc import Iterator

import hypothesis
import pytest
import torch

from tests.cuda_emulation import build
from tests.cuda_emulation.backend import emulated_kernels

EMULATED = "cuda-emulated"
BACKENDS = ["cpu", EMULATED, *(["cuda"] if torch.cuda.is_available() else [])]
FEWER_EXAMPLES = 8  # emulation is slow: the CPU's kernels get so many times as many


@pytest.fixture(autouse=True, scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == EMULATED:
        with emulated_kernels():
            yield request.param
    elif request.param == "cuda":
        torch.set_default_device("cuda")
        try:
            yield request.param
        finally:
            torch.set_default_device(None)
    else:
        yield request.param


def is_emulated(item: pytest.Item) -> bool:
    return hasattr(item, "callspec") and item.callspec.params.get("backend") == EMULATED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("not_emulated")
        if marker is not None and is_emulated(item):
            item.add_marker(pytest.mark.skip(reason=marker.args[0]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Emulated tests run in an order of blocks and threads of their own, hypothesis tests on fewer examples."""
    if not is_emulated(item):
        return (yield)
    build.set_seed(zlib.crc32(item.nodeid.encode()))
    test = item.obj
    settings = getattr(test, "_hypothesis_internal_use_settings", None)
    if settings is None:
        return (yield)
    test._hypothesis_internal_use_settings = hypothesis.settings(
        settings, max_examples=max(1, settings.max_examples // FEWER_EXAMPLES)
    )
    try:
        return (yield)
    finally:
        test._hypothesis_internal_use_settings = settings
