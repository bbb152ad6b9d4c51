"""AttentionPool against the formulas of Ilse et al. 2018, bag by bag."""

import pytest
import torch

from cxrfast.nn import AttentionPool
from tests.ops.inputs import tensor
from tests.tolerances import assert_close

SIZES = [3, 0, 5, 1]


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("gated", [False, True])
def test_equals_the_formulas(gated, classes):
    torch.manual_seed(0)
    layer = AttentionPool(4, 6, gated, classes).double()
    h = tensor((sum(SIZES), 4), dtype=torch.float64)
    offsets = torch.tensor([0, *SIZES]).cumsum(0)
    pooled, weights = layer(h, offsets=offsets)
    for bag, (part, a) in enumerate(zip(h.split(SIZES), weights.view(-1, classes).split(SIZES), strict=True)):
        hidden = torch.tanh(part @ layer.V.weight.T + layer.V.bias)
        if gated:
            hidden = hidden * torch.sigmoid(part @ layer.U.weight.T + layer.U.bias)
        scores = hidden @ layer.w.weight.T + layer.w.bias
        expected = scores.exp() / scores.exp().sum(0)
        assert_close(a, expected)
        assert_close(pooled[bag].view(classes, 4), expected.T @ part)


@pytest.mark.parametrize("classes", [1, 2])
def test_ragged_equals_masked(classes):
    layer = AttentionPool(4, num_classes=classes).double()
    h = tensor((4, 5, 4), dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor(SIZES)[:, None]
    h[~mask] = float("nan")
    pooled, weights = layer(h, mask)
    ragged, ragged_weights = layer(h[mask], offsets=torch.tensor([0, *SIZES]).cumsum(0))
    assert_close(pooled, ragged)
    assert_close(weights[mask] if classes == 1 else weights.movedim(1, 2)[mask], ragged_weights)
    assert (pooled[1] == 0).all()
    assert (weights[1] == 0).all()


def test_without_a_mask_everything_counts():
    layer = AttentionPool(4)
    h = tensor((2, 5, 4))
    pooled, weights = layer(h)
    assert_close(pooled, layer(h, torch.ones(2, 5, dtype=torch.bool))[0])
    assert_close(weights.sum(1), torch.ones(2))


def test_gradients_are_finite_in_bags_without_instances():
    layer = AttentionPool(4, gated=True)
    for call in (
        lambda h: layer(h, torch.zeros(2, 5, dtype=torch.bool)),
        lambda h: layer(h.flatten(0, 1), offsets=torch.tensor([0, 0, 10])),
    ):
        h = tensor((2, 5, 4)).requires_grad_()
        call(h)[0].sum().backward()
        assert h.grad.isfinite().all()
        assert layer.w.weight.grad.isfinite().all()


def test_compiles():
    layer, h = AttentionPool(4, gated=True), tensor((2, 5, 4))
    assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(h)[0], layer(h)[0])


H = torch.zeros(2, 5, 4)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "hidden: expected at least 1, got 0", lambda: AttentionPool(4, 0)),
        (ValueError, "features: expected 3 channels", lambda: AttentionPool(3)(H)),
        (ValueError, r"features: expected \[B, N, F\]", lambda: AttentionPool(4)(H[0])),
        (ValueError, r"features: expected \[N, F\] with", lambda: AttentionPool(4)(H, offsets=torch.tensor([0, 2]))),
        (TypeError, "mask: expected a boolean tensor", lambda: AttentionPool(4)(H, H[..., 0])),
        (ValueError, r"mask: expected \[2, 5\], got \[2, 4\]", lambda: AttentionPool(4)(H, H[:, :4, 0] > 0)),
        (ValueError, "offsets: expected to run", lambda: AttentionPool(4)(H[0], offsets=torch.tensor([0, 2]))),
    ],
)
def test_wrong_input(error, message, call):
    with pytest.raises(error, match=message):
        call()
