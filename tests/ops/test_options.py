"""Numbers as options: of Python, of NumPy, and symbolic ones inside torch.compile."""

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from cxrfast import ops
from tests.ops.inputs import random_mask, tensor
from tests.tolerances import assert_close

X = (2, 3, 8, 8)


def test_integers_of_numpy():
    x = tensor(X)
    for two in (np.int64(2), np.int32(2), np.uint8(2)):
        assert_close(ops.blur_pool2d(x, filter_size=two, stride=two), ops.blur_pool2d(x, filter_size=2, stride=2))
        pooled = ops.max_blur_pool2d(x, kernel_size=two, stride=two, padding=np.int64(1))
        assert_close(pooled, ops.max_blur_pool2d(x, padding=1))


@pytest.mark.parametrize("wrong", [True, np.bool_(True), 2.0, np.float64(2.0), "2", torch.tensor(2)])
def test_what_is_no_integer(wrong):
    with pytest.raises(TypeError, match="stride: expected an integer"):
        ops.blur_pool2d(tensor(X), stride=wrong)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_real_numbers_of_numpy(kind):
    x, quarter = tensor(X), kind(0.25)
    guide, weight = tensor((2, 2, 8, 8), seed=1), tensor((1, 1, 3, 3), seed=2)
    positive, mask = random_mask((2, 3)), random_mask(X)
    assert_close(ops.component_boxes(x, quarter).boxes, ops.component_boxes(x, 0.25).boxes)
    assert_close(ops.mil_pool(x, "lse", sharpness=quarter), ops.mil_pool(x, "lse", sharpness=0.25))
    assert_close(ops.pac_crf(x, guide, weight, unary_weight=quarter), ops.pac_crf(x, guide, weight, unary_weight=0.25))
    assert_close(ops.box_log_likelihood(x, mask, floor=quarter), ops.box_log_likelihood(x, mask, floor=0.25))
    assert_close(
        ops.self_guided_sums(x, positive, delta=quarter).negative,
        ops.self_guided_sums(x, positive, delta=0.25).negative,
    )
    with pytest.raises(TypeError, match="sharpness: expected a number"):
        ops.mil_pool(x, "lse", sharpness=np.bool_(True))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, number: ops.component_boxes_static(x, number, capacity=5).boxes,
        lambda x, number: ops.mil_pool(x, "lse", sharpness=number),
        lambda x, number: ops.pac_crf(x, x[:, :2], x[:1, :1, :3, :3], unary_weight=number),
    ],
    ids=["threshold", "sharpness", "unary_weight"],
)
def test_another_number_does_not_recompile(function):
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    x = tensor(X, scale=0.3)
    for number in (0.2, 0.3, 0.4, 0.5):
        assert_close(compiled(x, number), function(x, number))
        if number == 0.2:
            graphs = counters["stats"]["unique_graphs"]
    assert counters["stats"]["unique_graphs"] == graphs
