"""Infinite logits have their limit as the value, and NaN reaches the sums that it belongs to."""

import math

import pytest
import torch

from cxrfast import ops, reference
from tests.ops.inputs import laid_out
from tests.tolerances import assert_close

MODES = ("noisy_or", "mean", "max", "lse", "softmax", "linear_softmax", "generalized_mean")
INF, NAN = math.inf, math.nan


def bag(values, dtype=torch.float32):
    return laid_out(torch.tensor(values, dtype=dtype).reshape(1, 1, -1), "sliced")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [1, 3, 50])
def test_a_bag_of_impossible_instances_is_impossible(mode, count):
    for dtype in (torch.float32, torch.float64, torch.float16):
        x = bag([-INF] * count, dtype)
        assert ops.mil_pool(x, mode).item() == -INF
        assert ops.mil_pool_ragged(x[0].T, torch.tensor([0, count]), mode).item() == -INF
        assert ops.mil_pool(x, mode, mask=torch.ones(1, 1, count, dtype=torch.bool)).item() == -INF
        assert reference.mil_pool(x, mode).item() == -INF
        assert ops.mil_pool(bag([INF] * count, dtype), mode).item() == INF


@pytest.mark.parametrize("sharpness", [-4.0, 0.0, 0.5, 8.0])
@pytest.mark.parametrize("mode", ["lse", "softmax", "generalized_mean"])
def test_a_bag_of_impossible_instances_with_any_sharpness(mode, sharpness):
    assert ops.mil_pool(bag([-INF] * 4), mode, sharpness=sharpness).item() == -INF


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("values", [[-INF, 2.0, -INF], [-INF, -INF, INF], [INF, 1.0, 0.0]])
def test_infinite_logits_have_the_limit(mode, values):
    finite = bag([max(min(value, 3e4), -3e4) for value in values], torch.float64)
    expected = ops.mil_pool(finite, mode)
    expected = torch.where(expected.abs() > 1e4, expected.sign() * INF, expected)
    assert_close(ops.mil_pool(bag(values, torch.float64), mode), expected)


@pytest.mark.parametrize("values", [[NAN, 1.0, 2.0], [1.0, NAN, -1.0], [INF, -INF, 0.0], [-INF, 1.0, INF]])
def test_region_sums(values):
    x = bag(values)[..., None]
    for mask in ([True, False, True], [False, True, False]):
        region = torch.tensor(mask).reshape(1, 1, 3, 1)
        assert_close(torch.stack(ops.region_sums(x, region)), torch.stack(reference.region_sums(x, region)))
        actual, expected = (module.box_log_likelihood(x, region) for module in (ops, reference))
        assert_close(actual, expected)
    only_inside = ops.region_sums(bag([NAN, 1.0])[..., None], torch.tensor([[True], [False]]))
    assert only_inside.inside.isnan().all()
    assert not only_inside.outside.isnan().any()


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize(
    "values", [[-INF, 1.0, 2.0], [-INF, -INF, 2.0], [-INF] * 3, [INF, 1.0, 2.0], [INF, -INF, 0.0], [NAN, 1.0, 2.0]]
)
def test_self_guided_sums(values, positive, rescale):
    labels = torch.tensor([[positive]])
    actual, expected = (
        torch.stack(module.self_guided_sums(bag(values), labels, rescale=rescale)) for module in (ops, reference)
    )
    assert_close(actual, expected)
    if not any(math.isnan(value) for value in values):
        assert not actual.isnan().any()
