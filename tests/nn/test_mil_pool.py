"""MILPool is mil_pool with a state."""

import pytest
import torch

from cxrfast.nn import AutoPool, MILPool
from cxrfast.ops import mil_pool, mil_pool_ragged
from tests.ops.inputs import tensor
from tests.tolerances import assert_close


@pytest.mark.parametrize("mode", ["noisy_or", "mean", "lse", "softmax", "auto", "generalized_mean"])
def test_is_the_operator(mode):
    x = tensor((2, 3, 4, 4))
    mask = tensor((2, 1, 4, 4), seed=1) > 0
    assert torch.equal(MILPool(mode)(x, mask), mil_pool(x, mode, mask=mask))


def test_takes_ragged_bags():
    x, offsets = tensor((5, 3)), torch.tensor([0, 2, 5])
    assert torch.equal(
        MILPool("lse", sharpness=4.0)(x, offsets=offsets), mil_pool_ragged(x, offsets, "lse", sharpness=4.0)
    )
    with pytest.raises(ValueError, match="mask: expected None where there are offsets"):
        MILPool()(x, x > 0, offsets)


def test_sharpness_is_learnt_per_class():
    layer = AutoPool(num_classes=3)
    assert layer.sharpness.tolist() == [1, 1, 1]
    x = tensor((4, 3, 9), scale=3)
    before = layer(x).sum()
    before.backward()
    assert (layer.sharpness.grad > 0).all()  # towards the maximum
    torch.optim.SGD(layer.parameters(), lr=1.0, maximize=True).step()
    assert layer(x).sum() > before


def test_one_sharpness_for_all_classes():
    layer = MILPool("lse", sharpness=4.0, learnable=True)
    x = tensor((2, 3, 9))
    assert_close(layer(x), mil_pool(x, "lse", sharpness=4.0))
    layer(x).sum().backward()
    assert layer.sharpness.grad.shape == ()


def test_state_travels_with_the_weights():
    layer = MILPool("lse", num_classes=2, sharpness=4.0)
    assert list(layer.parameters()) == []
    other = MILPool("lse", num_classes=2)
    other.load_state_dict(layer.state_dict())
    assert other.sharpness.tolist() == [4, 4]
    assert "mode='lse'" in repr(other)


def test_compiles():
    layer = MILPool("auto", num_classes=3, learnable=True)
    x = tensor((2, 3, 9))
    assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "mode: expected one of", ("median",)),
        (ValueError, "mode 'mean' has no sharpness", ("mean", 3, None, True)),
        (ValueError, "mode 'max' has no sharpness", ("max", 3, 2.0)),
        (ValueError, "num_classes: expected at least 1, got 0", ("lse", 0)),
        (ValueError, "sharpness: expected a finite number, got nan", ("lse", 3, float("nan"))),
    ],
)
def test_wrong_input(error, message, arguments):
    with pytest.raises(error, match=message):
        MILPool(*arguments)
