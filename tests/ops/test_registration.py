"""Every operator of the schema is complete: a kernel on the CPU, a fake, a derivative or a refusal."""

import re
from pathlib import Path

import pytest
import torch

import cxrfast.ops
from cxrfast import _library
from cxrfast.ops import _registration

CSRC = Path(__file__).parents[2] / "csrc"
SCHEMA = re.findall(r'"(\w+)\(', (CSRC / "schema.cpp").read_text())
STEMS = set(re.findall(r"^    // (\w+)$", (CSRC / "schema.cpp").read_text(), re.MULTILINE))  # headings, one per family


def test_schema_and_python_name_the_same_operators():
    assert SCHEMA
    assert set(SCHEMA) == set(_registration.OPERATORS)


def test_a_family_has_one_stem_in_every_folder():
    assert {"blur_pool", "max_blur_pool"} <= STEMS
    for folder, main in (("cpu", "{0}/{0}.cpp"), ("cuda", "{0}/{0}.cu"), ("checks", "{0}.h"), ("math", "{0}.h")):
        assert not [stem for stem in STEMS if not (CSRC / folder / main.format(stem)).exists()], folder
    for folder in ("cpu", "cuda"):
        assert {path.name for path in (CSRC / folder).iterdir()} == STEMS | {"common"}
    assert {path.stem for path in (CSRC / "checks").iterdir()} == STEMS


@pytest.mark.parametrize("name", SCHEMA)
@pytest.mark.parametrize("key", ["CPU", "Meta", "Autograd", "CUDA"])
def test_kernel_presence(name, key):
    # A misspelt m.impl loads without complaint, and shows only here.
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"cxrfast::{name}", key)


@pytest.mark.skipif(_library.cuda_error() is None, reason="the CUDA library is loaded")
def test_missing_cuda_library_is_said_by_the_first_call():
    refusal = _registration._cuda_refusal("cxrfast::blur_pool2d", _library.cuda_error())
    with pytest.raises(RuntimeError, match="no CUDA operators.*; move the tensors to the CPU|cannot be loaded"):
        refusal(torch.zeros(1))


def test_public_names_exist():
    for name in cxrfast.ops.__all__:
        assert callable(getattr(cxrfast.ops, name))
