"""Exported programs with standard operators only equal the kernels, for other sizes than the exported ones too."""

import pytest
import torch
from torch import nn
from torch.export import Dim, default_decompositions, export

from cxrfast import ops
from cxrfast.nn import export_decompositions
from cxrfast.ops.mil_pool import MODES as CODES
from tests.ops.inputs import random_mask, tensor
from tests.tolerances import assert_close

MODES = ("noisy_or", "mean", "max", "lse", "softmax", "linear_softmax", "generalized_mean")
GUIDE = 0.5


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


WEIGHT, WEIGHT_5, WEIGHT_1 = (tensor(shape, seed=1, scale=0.2) for shape in ((4, 4, 3, 3), (5, 4, 3, 3), (1, 1, 3, 3)))
BIAS, MATRIX = tensor((5,), seed=2), 0.5 * torch.eye(4)

FUNCTIONS = {
    "blur_pool2d": lambda x: ops.blur_pool2d(x),
    "blur_pool2d zeros": lambda x: ops.blur_pool2d(x, filter_size=3, stride=3, padding_mode="zeros"),
    "max_blur_pool2d": lambda x: ops.max_blur_pool2d(x, kernel_size=3, padding=1, padding_mode="replicate"),
    **{f"mil_pool {mode}": lambda x, mode=mode: ops.mil_pool(x, mode) for mode in MODES},
    "mil_pool sharpness": lambda x: ops.mil_pool(x, "generalized_mean", sharpness=-2.0),
    "mil_pool masked": lambda x: ops.mil_pool(x, "lse", mask=x > 0),
    "pac_conv2d": lambda x: ops.pac_conv2d(x, GUIDE * x, WEIGHT_5, BIAS, dilation=2),
    "pac_crf": lambda x: ops.pac_crf(x, GUIDE * x, WEIGHT, MATRIX, steps=2, unary_weight=0.7),
    "pac_crf sigmoid": lambda x: ops.pac_crf(x, GUIDE * x, WEIGHT_1, steps=2, activation="sigmoid"),
    "region_sums": lambda x: torch.stack(ops.region_sums(x, x > 0.5)),
    "box_log_likelihood": lambda x: ops.box_log_likelihood(x, x > 0.5, floor=0.3),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_exported_program(name):
    dynamic = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = export(Call(FUNCTIONS[name]), (tensor((2, 4, 12, 10), layout="contiguous"),), dynamic_shapes=(dynamic,))
    program = program.run_decompositions({**default_decompositions(), **export_decompositions()})
    assert not [node for node in program.graph.nodes if "cxrfast" in str(node.target)]
    for shape, scale in (((2, 4, 12, 10), 1), ((3, 4, 9, 17), 1), ((3, 4, 9, 17), 8)):
        x = tensor(shape, scale=scale if "pac" not in name else 1, layout="contiguous")
        assert_close(program.module()(x), FUNCTIONS[name](x))


@pytest.mark.parametrize("mode", MODES)
def test_mil_pool_in_extreme_bags(mode):
    decomposed = export_decompositions()[torch.ops.cxrfast.mil_pool.default]
    code = CODES[mode].code
    sharpness = torch.tensor([0.0, 1.0, -3.0, 8.0]) if mode in ("lse", "softmax", "generalized_mean") else None
    for shift in (-60.0, -30.0, 0.0, 10.0):
        x = tensor((2, 4, 50), scale=3.0) + shift
        mask = random_mask((2, 1, 50))
        expected = ops.mil_pool(x.double(), mode, sharpness=sharpness, mask=mask).float()
        torch.testing.assert_close(decomposed(x, mask, sharpness, code), expected, rtol=1e-4, atol=1e-3)
    nothing = decomposed(torch.zeros(1, 4, 3), torch.zeros(1, 1, 3, dtype=torch.bool), sharpness, code)
    assert_close(nothing, ops.mil_pool(torch.zeros(1, 4, 0), mode, sharpness=sharpness))
