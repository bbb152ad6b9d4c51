"""The reference package works in a copy of cxrfast that holds no compiled library."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cxrfast

CALLS = """
import pathlib, sys
import torch
import cxrfast
assert pathlib.Path(cxrfast.__file__).parents[1] == pathlib.Path(sys.argv[1]), cxrfast.__file__

from cxrfast import reference

x = torch.linspace(-2, 2, 32).reshape(1, 2, 4, 4)
mask = x > 0
offsets = torch.tensor([0, 3, 8])
hashes = torch.arange(5)
positive = torch.tensor([[True, False]])
calls = {
    "blur_pool2d": lambda f: f(x),
    "box_log_likelihood": lambda f: f(x, mask),
    "component_boxes": lambda f: f(x, 0.0),
    "component_boxes_static": lambda f: f(x, 0.0, capacity=2),
    "connected_components": lambda f: f(mask),
    "hamming_topk": lambda f: f(hashes, hashes, 2),
    "lse_lba_pool": lambda f: f(x, torch.zeros(2), 1.0),
    "max_blur_pool2d": lambda f: f(x),
    "mil_pool": lambda f: f(x),
    "mil_pool_ragged": lambda f: f(x.reshape(8, 4), offsets),
    "pac_conv2d": lambda f: f(x, x, torch.ones(1, 1, 3, 3)),
    "pac_crf": lambda f: f(x, x, torch.ones(1, 1, 3, 3)),
    "region_sums": lambda f: f(x, mask),
    "self_guided_sums": lambda f: f(x, positive),
    "self_guided_sums_ragged": lambda f: f(x.reshape(8, 4)[:, :2], offsets, positive.expand(2, 2)),
}
assert set(calls) == set(reference.__all__), set(calls) ^ set(reference.__all__)
for name, call in calls.items():
    result = call(getattr(reference, name))
    for tensor in result if isinstance(result, tuple) else (result,):
        assert isinstance(tensor, torch.Tensor), name
assert not torch.ops.loaded_libraries, torch.ops.loaded_libraries
try:
    import cxrfast.ops
except ImportError as error:
    assert "was not compiled" in str(error), error
else:
    raise AssertionError("the copy has compiled operators")
"""


def test_reference_needs_no_compiled_library(tmp_path):
    source = Path(cxrfast.__file__).parent
    shutil.copytree(source, tmp_path / "cxrfast", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", CALLS, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
