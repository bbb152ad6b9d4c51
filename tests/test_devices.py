"""Names of devices."""

import pytest

from cxrfast.devices import resolve_device
from cxrfast.errors import UsageError


def test_known_names():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:1", ""])
def test_another_name_is_refused_with_the_known_ones(name):
    with pytest.raises(UsageError, match=f"device: expected auto, cpu, cuda, got '{name}'"):
        resolve_device(name)
