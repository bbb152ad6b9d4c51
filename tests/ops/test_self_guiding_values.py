"""self_guided_sums against the equations with many digits, and on bags that are extreme, equal, masked or empty."""

import math
from decimal import Decimal, localcontext

import pytest
import torch

from cxrfast.ops import self_guided_sums
from tests.ops.bags import labels, stacked
from tests.ops.inputs import tensor
from tests.tolerances import assert_close


# The equations for one positive bag, with 100 digits, so that 1 − p keeps its precision where p is close to 1.
def equations(x, delta, median):
    with localcontext() as context:
        context.prec = 100
        p = [1 / (1 + (-Decimal(v)).exp()) for v in x]
        low, high = Decimal(delta), Decimal(1.0 - delta)
        sums, grad, counts = dict.fromkeys(("zero", "soft", "one"), Decimal(0)), [], dict.fromkeys((0, 1, 2), 0)
        for each in p:
            theta = (each - min(p)) / (max(p) - min(p))
            kind = "zero" if theta < low else "one" if theta > high else "soft"
            target = {"zero": Decimal(0), "soft": theta, "one": Decimal(1)}[kind]
            sums[kind] -= target * each.ln() + (1 - target) * (1 - each).ln()
            counts[list(sums).index(kind)] += 1
            grad.append(each - target)
        ordered, n = sorted(p), len(p)
        middle = ordered[(n - 1) // 2]
        if median == "mean":
            middle = (middle + ordered[n // 2]) / 2
        return [float(v) for v in sums.values()], list(counts.values()), float(max(p) - middle), list(map(float, grad))


BAGS = [
    (0.3, -1.0),
    (50.0, -50.0, 0.0, 1.0),
    (50.0, 51.0, 50.5, 50.2),
    (-50.0, -51.0, -50.5, -52.5),
    (90.0, 93.0, 91.0),
    (-95.0, -93.0, -94.0, -93.3, -93.6),
    (-0.5, 0.5, 0.25, 0.25, 0.5, -0.5),
    (5.0, 5.001, 5.0005, 5.0008),
]


@pytest.mark.parametrize("median", ["lower", "mean"])
@pytest.mark.parametrize("bag", BAGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_keep_targets_and_gradient(dtype, bag, median):
    logits = torch.tensor(bag, dtype=dtype).view(1, 1, -1).requires_grad_()
    sums, counts, certainty, grad = equations(logits.flatten().tolist(), 0.3, median)
    out = self_guided_sums(logits, torch.ones(1, 1, dtype=torch.bool), median=median)
    assert [each.item() for each in out[4:7]] == counts
    (out.negative + out.soft + out.positive).sum().backward()
    actual = torch.cat([torch.stack(out[:3]).detach().flatten(), out.certainty.flatten(), logits.grad.flatten()])
    assert_close(actual, torch.tensor([*sums, certainty, *grad], dtype=dtype))


def test_median_of_ties_and_of_both_zeros():
    y = torch.ones(1, 1, dtype=torch.bool)
    for values, lower, mean in (
        ([1.0, 1.0, 1.0, 2.0], 1.0, 1.0),
        ([1.0, 2.0, 2.0, 2.0], 2.0, 2.0),
        ([-0.0, 0.0, -1.0, 3.0], 0.0, 0.0),
        ([4.0, 1.0, 3.0], 3.0, 3.0),
        ([7.0], 7.0, 7.0),
    ):
        x = torch.tensor(values, dtype=torch.float64).view(1, 1, -1)
        for median, expected in (("lower", lower), ("mean", mean)):
            certainty = self_guided_sums(x, y, median=median).certainty.item()
            highest, middle = (1 / (1 + math.exp(-v)) for v in (max(values), expected))
            assert certainty == pytest.approx(highest - middle, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lower_median_is_that_of_torch(dtype):
    x = tensor((5, 4, 101), dtype=dtype, scale=3)
    x[0, 0, 0], x[1, 1, 5] = 1e30, -1e30  # numbers far outside
    x[2, 2, :60] = x[2, 2, 0].item()
    out = self_guided_sums(x, torch.ones(5, 4, dtype=torch.bool))
    assert_close(out.certainty, (x.amax(2).double().sigmoid() - x.double().sigmoid().median(2).values).to(dtype))


@pytest.mark.parametrize("value", [0.0, 50.0, -50.0, 1000.0, -1000.0])
@pytest.mark.parametrize("count", [1, 2, 400])
def test_a_bag_of_equal_instances_says_nothing(count, value):
    x = torch.full((1, 2, count), value, requires_grad=True)
    out = self_guided_sums(x, torch.tensor([[True, False]]))
    assert torch.stack(out[:7])[:, 0, 0].tolist() == [0] * 7
    assert out.certainty.tolist() == [[0, 1]]
    assert out.negative_count[0, 1].item() == count
    stacked(out).sum().backward()
    assert (x.grad[0, 0] == 0).all()
    assert_close(x.grad[0, 1], x.detach()[0, 1].sigmoid())
    # Without rescaling there is no division.
    assert torch.stack(self_guided_sums(x, torch.tensor([[True, False]]), rescale=False)[4:7])[:, 0, 0].sum() == count


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (2, 3, 4, 0)])
def test_empty(shape):
    x, y = torch.zeros(shape, requires_grad=True), labels(*shape[:2])
    out = self_guided_sums(x, y)
    for each in out[:7]:
        assert each.shape == shape[:2]
        assert (each == 0).all()
    if x.numel() == 0:
        assert out.minimum.isnan().all()
        assert out.maximum.isnan().all()
        assert torch.equal(out.certainty, (~y).float())
    stacked(out).sum().backward()
    assert x.grad.shape == shape


def test_masked_instances_receive_no_gradient_and_may_be_anything():
    x = tensor((2, 3, 5))
    mask = torch.ones(2, 1, 5, dtype=torch.bool)
    mask[0] = False  # a whole bag
    mask[1, :, 3:] = False
    x[1, 0, 3] = float("nan")
    x[1, 1, 4] = float("inf")
    x.requires_grad_()
    y = torch.tensor([[True, False, True]] * 2)
    out = stacked(self_guided_sums(x, y, mask=mask))
    assert out.isfinite().all()
    (out * torch.tensor([float("nan"), 1.0]).view(2, 1)).nansum().backward()
    assert (x.grad[0] == 0).all()
    assert (x.grad[1, :, 3:] == 0).all()
    assert (x.grad[1, :, :3] != 0).any()


def test_nan_is_not_lost():
    x = torch.tensor([[[1.0, float("nan"), 2.0]] * 2])
    out = self_guided_sums(x, torch.tensor([[True, False]]))
    assert (out.negative + out.soft + out.positive).isnan().all()
    assert out.maximum.isnan().all()
    assert out.certainty[0, 0].isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_and_returned_in_float32(dtype):
    x, y = tensor((2, 2, 64, 64), dtype=dtype, scale=2).requires_grad_(), labels(2, 2)
    results, wide = self_guided_sums(x, y), self_guided_sums(x.float(), y)
    for actual, expected in zip(results, wide, strict=True):
        assert actual.dtype == torch.float32
        assert torch.equal(actual, expected)
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        assert torch.equal(self_guided_sums(x, y).soft, results.soft)
    results.soft.sum().backward()
    assert x.grad.dtype == dtype


def test_labels_of_other_bytes():
    """A bool tensor that views other bytes may hold more than 0 and 1; what is not 0 is true."""
    x, odd = tensor((2, 2, 9)), torch.tensor([[2, 0], [255, 1]], dtype=torch.uint8).view(torch.bool)
    for actual, expected in zip(self_guided_sums(x, odd), self_guided_sums(x, odd.view(torch.uint8) != 0), strict=True):
        assert torch.equal(actual, expected)
