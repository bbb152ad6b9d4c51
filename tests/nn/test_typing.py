"""A user's code passes a strict type checker, which finds what is wrong in it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

USER_CODE = """
import torch
from torch import nn
from typing_extensions import assert_type

from cxrfast import ops
from cxrfast.nn import AttentionPool, AutoPool, BlurPool2d, MaxBlurPool2d, MILPool, PacConv2d, PacCRF, antialias_


def use(x: torch.Tensor, mask: torch.Tensor) -> None:
    assert_type(ops.blur_pool2d(x, padding_mode="zeros"), torch.Tensor)
    assert_type(ops.max_blur_pool2d(x, kernel_size=3), torch.Tensor)
    assert_type(ops.mil_pool(x, "lse", sharpness=2.0, mask=mask), torch.Tensor)
    assert_type(ops.pac_crf(x, x, x, activation="sigmoid"), torch.Tensor)
    assert_type(ops.component_boxes(x, 0.5).boxes, torch.Tensor)
    assert_type(ops.region_sums(x, mask).inside, torch.Tensor)
    assert_type(ops.self_guided_sums(x, mask, median="mean").soft, torch.Tensor)
    assert_type(BlurPool2d()(x), torch.Tensor)
    assert_type(MaxBlurPool2d(3, 2, 1)(x), torch.Tensor)
    assert_type(PacCRF(3)(x, [x, x]), torch.Tensor)
    assert_type(PacConv2d(3, 4, 5)(x, x), torch.Tensor)
    assert_type(MILPool("lse")(x, mask), torch.Tensor)
    assert_type(AutoPool()(x), torch.Tensor)
    assert_type(AttentionPool(4)(x), tuple[torch.Tensor, torch.Tensor])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = assert_type(antialias_(nn.Sequential(nn.Conv2d(3, 4, 3, 2))), nn.Sequential)
"""

WRONG_CODE = {
    'ops.blur_pool2d(x, filter_size="4")': "arg-type",
    'ops.mil_pool(x, "nosiy_or")': "arg-type",
    "y: int = ops.blur_pool2d(x)": "assignment",
    'BlurPool2d(padding_mode="circular")': "arg-type",
    "BlurPool2d()(x, x)": "call-arg",
    "MaxBlurPool2d(3, 2, 1, 4)": "call-arg",
    'ops.pac_crf(x, x, x, activation="tanh")': "arg-type",
}
WRONG_HEADER = (
    "import torch\nfrom cxrfast import ops\nfrom cxrfast.nn import BlurPool2d, MaxBlurPool2d\nx = torch.zeros(1)\n"
)

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")


def check(folder, code):
    (folder / "user_code.py").write_text(code, encoding="utf-8")
    package = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "user_code.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_strict_user_code(tmp_path):
    result = check(tmp_path, USER_CODE)
    assert result.returncode == 0, result.stdout + result.stderr
    wrong = check(tmp_path, WRONG_HEADER + "\n".join(WRONG_CODE) + "\n")
    errors = {int(line.split(":")[1]): line for line in wrong.stdout.splitlines() if ": error: " in line}
    first = WRONG_HEADER.count("\n") + 1
    for number, (line, kind) in enumerate(WRONG_CODE.items(), first):
        assert f"[{kind}]" in errors[number], line
    assert len(errors) == len(WRONG_CODE)
