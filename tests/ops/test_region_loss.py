"""region_sums and box_log_likelihood against their references, a double loop, and the promises every operator makes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast import reference
from cxrfast.ops import box_log_likelihood, region_sums
from tests.ops.checks import check_against_reference, check_compiles, check_no_double_backward
from tests.ops.inputs import FLOATS, LAYOUTS, laid_out, random, tensor
from tests.tolerances import assert_close

FLOORS = (0.0, 1e-3, 0.5, 0.98)


def region(shape, layout="contiguous", seed=0, kept=0.4):
    return laid_out(random(torch.rand, shape, seed=seed) < kept, layout)


def stacked_sums(function, mask):
    """The sums as one tensor, so that one random projection tests both gradients."""
    return lambda x: torch.stack(function(x, mask)[:2])


def compare(x, mask, floor=0.0):
    check_against_reference(stacked_sums(region_sums, mask), stacked_sums(reference.region_sums, mask), x)
    check_against_reference(
        lambda x: box_log_likelihood(x, mask, floor=floor),
        lambda x: reference.box_log_likelihood(x, mask, floor=floor),
        x,
    )
    for actual, expected in zip(region_sums(x, mask)[2:], reference.region_sums(x, mask)[2:], strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_reference(dtype, layout, floor):
    x = tensor((2, 3, 7, 5), dtype=dtype, layout=layout, scale=3)
    compare(x, region(x.shape, layout), floor)


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("count", [33, 513, 1100])
def test_equals_reference_whatever_is_left_over_of_the_kernel_s_stride(count, floor):
    x = tensor((1, 2, 1, count), scale=3)
    compare(x, region(x.shape), floor)


@settings(max_examples=120, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 9), st.integers(0, 9)),
    shared=st.tuples(st.booleans(), st.booleans()),
    kept=st.sampled_from((0.0, 0.3, 1.0)),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from((torch.float32, torch.float64)),
    scale=st.sampled_from((0.0, 1.0, 30.0)),
    floor=st.sampled_from(FLOORS),
)
def test_equals_reference_for_any_shape_and_region(shape, shared, kept, layout, dtype, scale, floor):
    x = tensor(shape, dtype=dtype, layout=layout, scale=scale)
    rows = [1 if one else n for one, n in zip(shared, shape, strict=False)]
    compare(x, region((*rows, *shape[2:]), layout, kept=kept), floor)


@pytest.mark.parametrize("shape", [(2, 1, 41, 50), (1, 2, 150, 200), (1, 1, 17, 1111)])
def test_long_rows(shape):
    compare(tensor(shape, scale=3), region(shape), floor=0.5)
    compare(tensor(shape, scale=30), region((1, 1, *shape[2:]), "transposed"))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), floor=st.sampled_from(FLOORS))
def test_equals_a_double_loop(seed, floor):
    x = tensor((1, 2, 4, 3), dtype=torch.float64, scale=3, seed=seed)
    mask = region(x.shape, seed=seed)
    sums, likelihood = region_sums(x, mask), box_log_likelihood(x, mask, floor=floor)
    for k in range(2):
        inside, outside, product, count = 0.0, 0.0, 1.0, 0
        for i in range(4):
            for j in range(3):
                p = 1 / (1 + math.exp(-x[0, k, i, j]))
                if mask[0, k, i, j]:
                    inside, count, product = inside + p, count + 1, product * (floor + (1 - floor) * p)
                else:
                    outside, product = outside + p, product * (floor + (1 - floor) * (1 - p))
        assert [s[0, k].item() for s in sums] == pytest.approx([inside, outside, count, 12 - count])
        assert likelihood[0, k].item() == pytest.approx(math.log(product))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [50.0, 1000.0])
def test_extreme_logits(value, dtype):
    x = torch.tensor([[[[value, -value]]]], dtype=dtype, requires_grad=True)
    # Wrong in both patches: −log of e^-value each; right in both: nearly certain.
    for mask, expected, slope in ((x < 0, -2 * value, [-1, 1]), (x > 0, -2 * math.exp(-value), None)):
        out = box_log_likelihood(x, mask)
        assert out.item() == pytest.approx(expected, rel=1e-6)
        (grad,) = torch.autograd.grad(out.sum(), x)
        tail = math.exp(-value)
        assert grad.flatten().tolist() == pytest.approx(slope or [tail, -tail], rel=1e-5, abs=0)
    sums = region_sums(x, x > 0)
    (grad,) = torch.autograd.grad((sums.inside + sums.outside).sum(), x)
    # σ' survives as long as the dtype can hold it, where 1 − σ has long been 0.
    assert grad.flatten().tolist() == pytest.approx([math.exp(-value)] * 2, rel=1e-5, abs=0)


def test_constant_map_and_one_pixel():
    for shape in ((1, 1, 1, 1), (1, 1, 20, 20)):
        n = shape[2] * shape[3]
        mask = torch.zeros(shape, dtype=torch.bool)
        sums = region_sums(torch.zeros(shape), mask)
        assert [s.item() for s in sums] == [0, n / 2, 0, n]
        assert box_log_likelihood(torch.zeros(shape), mask).item() == pytest.approx(n * math.log(0.5), rel=1e-6)


def test_floor_bounds_what_a_patch_costs():
    x = torch.full((1, 1, 20, 20), -1000.0)
    everything = torch.ones(x.shape, dtype=torch.bool)
    assert box_log_likelihood(x, everything, floor=0.98).item() == pytest.approx(400 * math.log(0.98), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_and_returned_in_float32(dtype):
    x = tensor((1, 2, 64, 64), dtype=dtype, scale=2).requires_grad_()
    mask = region(x.shape)
    results = (*region_sums(x, mask), box_log_likelihood(x, mask))
    wide = (*region_sums(x.float(), mask), box_log_likelihood(x.float(), mask))
    for actual, expected in zip(results, wide, strict=True):
        assert actual.dtype == torch.float32
        assert torch.equal(actual, expected)
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        assert torch.equal(region_sums(x, mask).inside, results[0])
    results[0].sum().backward()
    assert x.grad.dtype == dtype


def test_counts_carry_no_gradient():
    x = tensor((1, 1, 3, 3)).requires_grad_()
    sums = region_sums(x, region(x.shape))
    assert sums.inside.requires_grad
    assert not sums.inside_count.requires_grad
    assert not sums.outside_count.requires_grad


def test_deterministic():
    x = tensor((6, 5, 33, 9), scale=3)
    mask = region(x.shape)
    for function in (lambda: region_sums(x, mask).outside, lambda: box_log_likelihood(x, mask)):
        first = function()
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            assert torch.equal(function(), first)
        finally:
            torch.set_num_threads(threads)


def test_gradcheck():
    x = tensor((2, 2, 3, 2), dtype=torch.float64, layout="contiguous", scale=2).requires_grad_()
    mask = region(x.shape)
    assert torch.autograd.gradcheck(lambda x: region_sums(x, mask)[:2], x)
    for floor in FLOORS:
        assert torch.autograd.gradcheck(lambda x: box_log_likelihood(x, mask, floor=floor), x)


def test_opcheck():
    ops = torch.ops.cxrfast
    x = tensor((2, 3, 7), layout="transposed").requires_grad_()
    grad = torch.ones(2, 3)
    for mask in (region((2, 3, 7)), region((2, 1, 7)), region((1, 1, 7))):
        torch.library.opcheck(ops.region_sums.default, (x, mask))
        torch.library.opcheck(ops._region_sums_backward.default, (grad, grad, x.detach(), mask))
        torch.library.opcheck(ops.box_log_likelihood.default, (x, mask, 0.5))
        torch.library.opcheck(ops._box_log_likelihood_backward.default, (grad, x.detach(), mask, 0.5))


def test_compiles():
    x = tensor((2, 3, 4, 4))
    mask = region((2, 1, 4, 4))
    check_compiles(stacked_sums(region_sums, mask), x)
    check_compiles(lambda x: box_log_likelihood(x, mask, floor=0.98), x)


def test_mask_of_other_bytes():
    """A bool tensor that views other bytes may hold more than 0 and 1; what is not 0 is true."""
    mask = torch.tensor([2, 255, 1, 0, 128, 0], dtype=torch.uint8).view(torch.bool).reshape(1, 1, 2, 3)
    x = tensor((1, 1, 2, 3)).requires_grad_()
    for function in (lambda m: torch.stack(region_sums(x, m)), lambda m: box_log_likelihood(x, m)):
        actual, expected = function(mask), function(mask.view(torch.uint8) != 0)
        assert_close(actual, expected)
        assert_close(torch.autograd.grad(actual.sum(), x)[0], torch.autograd.grad(expected.sum(), x)[0])


def test_floor_that_underflows():
    x = torch.full((1, 1, 1, 1), -200.0, requires_grad=True)
    value = box_log_likelihood(x, torch.ones(1, 1, 1, 1, dtype=torch.bool), floor=1e-300)
    value.backward()
    assert value.item() == -200
    assert x.grad.item() == 1


def test_double_backward_is_refused():
    x = tensor((1, 2, 4, 4))
    mask = region(x.shape)
    check_no_double_backward(lambda x: region_sums(x, mask).inside, x)
    check_no_double_backward(lambda x: box_log_likelihood(x, mask), x)


X = torch.zeros(2, 3, 4, 4)
MASK = torch.zeros(2, 3, 4, 4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "logits: expected a floating-point tensor", lambda: region_sums(MASK, MASK)),
        (ValueError, r"logits: expected \[B, K, H, W\], got shape \(2, 3, 4\)", lambda: region_sums(X[..., 0], MASK)),
        (TypeError, "mask: expected a boolean tensor, got torch.float32", lambda: region_sums(X, X)),
        (TypeError, "mask: expected a boolean tensor, got NoneType", lambda: box_log_likelihood(X, None)),
        (ValueError, r"mask: .* got \(2, 3, 4, 2\)", lambda: box_log_likelihood(X, MASK[..., :2])),
        (ValueError, r"mask: .* got \(1, 2, 3, 4, 4\)", lambda: box_log_likelihood(X, MASK[None])),
        (ValueError, "floor: expected at least 0 and below 1, got 1", lambda: box_log_likelihood(X, MASK, floor=1)),
        (ValueError, "floor: .* got nan", lambda: box_log_likelihood(X, MASK, floor=float("nan"))),
        (TypeError, "floor: expected a number, got '0'", lambda: box_log_likelihood(X, MASK, floor="0")),
    ],
)
def test_wrong_input(error, message, call):
    with pytest.raises(error, match=message):
        call()
