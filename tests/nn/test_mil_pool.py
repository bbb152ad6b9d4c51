"""MILPool is mil_pool with a state; LSELBAPool is the formula of Yao et al. with its gradients."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast import reference
from cxrfast.nn import AutoPool, LSELBAPool, MILPool
from cxrfast.ops import mil_pool, mil_pool_ragged
from tests.ops.checks import check_against_reference
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
    with pytest.raises(ValueError, match="mask: expected None, because offsets are given"):
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


def lse_lba(beta, r0):
    """The layer with the given β."""
    layer = LSELBAPool(None if beta.dim() == 0 else len(beta), r0).to(beta.dtype)
    with torch.no_grad():
        layer.beta.copy_(beta)
    return layer


def applied(r0, **arguments):
    """The layer as a function of logits and β, for checks of both gradients."""

    def pool(x, beta):
        return torch.func.functional_call(lse_lba(beta.detach(), r0), {"beta": beta}, (x,), arguments)

    return pool


@settings(max_examples=80, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    r0=st.sampled_from((0.0, 0.5, 10.0)),
    beta=st.floats(-3, 3),
    shared=st.booleans(),
    scale=st.sampled_from((0.1, 1.0, 5.0)),
    seed=st.integers(0, 9),
)
def test_lse_lba_is_the_printed_formula(shape, r0, beta, shared, scale, seed):
    """Values and gradients, β's too, against autograd of the formula over probabilities."""
    x = tensor(shape, dtype=torch.float64, scale=scale, seed=seed)
    betas = torch.tensor(beta, dtype=torch.float64)
    betas = betas if shared else betas + torch.arange(shape[1], dtype=torch.float64) / 4

    def plain(x, beta):
        s = x.sigmoid()
        r = (r0 + beta.exp()).expand(shape[1])
        total = (r[:, None, None] * s).exp().sum(dim=(2, 3)) / (shape[2] * shape[3])
        return total.log() / r

    pool = applied(r0)
    check_against_reference(lambda x, b: pool(x, b).sigmoid(), plain, x, betas)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.sampled_from((-50.0, -49.0, -20.0, 0.0, 20.0, 49.0, 50.0)), min_size=1, max_size=9),
    r0=st.sampled_from((0.0, 5.0, 10.0)),
    beta=st.floats(-2, 2),
    dtype=st.sampled_from((torch.float32, torch.float64)),
)
def test_lse_lba_of_extreme_logits(values, r0, beta, dtype):
    """Logits, where probabilities have no digits left."""
    x = torch.tensor(values, dtype=dtype).view(1, 1, -1)
    betas = torch.tensor([beta], dtype=dtype)
    check_against_reference(applied(r0), lambda x, b: reference.lse_lba_pool(x, b, r0), x, betas)


def test_lse_lba_goes_from_the_mean_to_the_maximum():
    x = tensor((3, 4, 7, 7), dtype=torch.float64, scale=3)
    mean, highest = mil_pool(x, "mean"), x.amax(dim=(2, 3))
    assert (LSELBAPool(4, beta=-30).double()(x) - mean).abs().max() < 1e-9
    sharp = LSELBAPool(4, beta=20).double()
    assert (sharp(x).sigmoid() - highest.sigmoid()).abs().max() < 1e-6
    # P is within log(N)/r of the maximum
    pooled = [LSELBAPool(4, r0, beta=-30).double()(x).sigmoid() for r0 in (0.0, 1.0, 10.0, 1000.0)]
    assert all((later > earlier).all() for earlier, later in itertools.pairwise(pooled))
    assert (highest.sigmoid() - pooled[-1] <= math.log(49) / 1000).all()


def test_lse_lba_sharpness_has_a_floor_and_learns_above_it():
    layer = LSELBAPool(3, r0=4.0)
    assert layer.sharpness.tolist() == [5, 5, 5]
    assert list(dict(layer.named_parameters())) == ["beta"]
    optimizer = torch.optim.SGD(layer.parameters(), lr=5.0)
    x = tensor((4, 3, 9), scale=3)
    before = layer(x).sum()
    for _ in range(50):  # towards the mean
        optimizer.zero_grad()
        layer(x).sum().backward()
        optimizer.step()
    assert layer(x).sum() < before
    assert (layer.sharpness < 5).all()
    assert (layer.sharpness > 4).all()


def test_lse_lba_takes_masks_and_ragged_bags():
    x, beta = tensor((2, 3, 4, 4), dtype=torch.float64), torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    mask = tensor((2, 1, 4, 4), seed=1) > 0
    check_against_reference(applied(2.0, mask=mask), lambda x, b: reference.lse_lba_pool(x, b, 2.0, mask=mask), x, beta)
    flat, offsets = tensor((5, 3)), torch.tensor([0, 2, 5])
    layer = LSELBAPool(3, 2.0)
    expected = mil_pool_ragged(flat, offsets, "lse", sharpness=layer.sharpness)
    assert torch.equal(layer(flat, offsets=offsets), expected)
    with pytest.raises(ValueError, match="mask: expected None, because offsets are given"):
        layer(flat, flat > 0, offsets)


def test_lse_lba_compiles_with_its_gradients():
    compiled = torch.compile(LSELBAPool(3, 1.0), fullgraph=True, backend="aot_eager")
    layer = LSELBAPool(3, 1.0)
    x = tensor((2, 3, 9), scale=3)
    for module in (compiled, layer):
        module(x).square().sum().backward()
    assert_close(compiled(x), layer(x))
    assert_close(compiled.beta.grad, layer.beta.grad)
    assert "r0=1.0" in repr(layer)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "r0: expected a finite number of at least 0, got -1", (3, -1)),
        (ValueError, "r0: expected a finite number of at least 0, got nan", (3, float("nan"))),
        (TypeError, "r0: expected a number, got 'ten'", (3, "ten")),
        (TypeError, "beta: expected a number, got None", (3, 0.0, None)),
        (ValueError, "beta: expected a number within ±88, got 1000", (3, 0.0, 1000)),
        (ValueError, "num_classes: expected at least 1, got 0", (0,)),
    ],
)
def test_lse_lba_wrong_input(error, message, arguments):
    with pytest.raises(error, match=message):
        LSELBAPool(*arguments)
