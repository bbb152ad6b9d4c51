"""pac_crf must not unfold: the published implementation adds 6.3 GB to the first case measured here."""

import os

import pytest

from tests.interpreter import run_code

# A fresh process, whose peak is reset just before: ru_maxrss would begin at the peak of the process that started it.
# The small first call loads and warms what is not the operator's.
MEASURE = """
import torch
from cxrfast.ops import pac_crf

def resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024

def added(batch, labels, size, kernel, guides):
    unary = torch.randn(batch, labels, size, size, requires_grad=True)
    guide = (torch.randn(batch, guides, size, size) * 0.1).requires_grad_()
    weight = (torch.randn(labels, labels, kernel, kernel) * 0.01).requires_grad_()
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    before = resident("VmRSS")
    pac_crf(unary, guide, weight, steps=5).square().sum().backward()
    return resident("VmHWM") - before

added(2, 2, 4, 3, 2)
print(added({}))
"""

pytestmark = [
    pytest.mark.not_emulated("measures a process that runs the CPU's kernels"),
    pytest.mark.skipif(
        not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of a process can be reset only on Linux"
    ),
]


def added_megabytes(*case: int) -> float:
    code = MEASURE.format(", ".join(map(str, case)))
    return float(run_code(code).stdout)


def test_the_papers_case_adds_less_than_120_megabytes():
    assert 6 < added_megabytes(48, 14, 20, 19, 64) < 120  # the gradients alone take 6 MB: less would measure nothing


def test_a_large_map_adds_less_than_150_megabytes():
    assert 7 < added_megabytes(1, 3, 512, 5, 4) < 150
