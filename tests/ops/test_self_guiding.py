"""self_guided_sums and its ragged form against the reference, against the equations with many digits, and the promises
every operator makes."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cxrfast import reference
from cxrfast.ops import mil_pool, self_guided_sums, self_guided_sums_ragged
from cxrfast.ops.self_guiding import pooled_and_stacked_sums
from tests.ops.checks import check_against_reference, check_compiles, check_no_double_backward
from tests.ops.inputs import FLOATS, LAYOUTS, laid_out, random, tensor
from tests.tolerances import assert_close

DELTAS = (0.0, 0.1, 0.3, 0.45)
MEDIANS = ("lower", "mean")


def labels(bags, classes, seed=0, positives=0.6):
    return random(torch.rand, (bags, classes), seed=seed) < positives


def stacked(sums):
    """What carries a gradient, as one tensor, so that one random projection tests all gradients."""
    return torch.stack(sums[:4])


def compare(function, specification, x):
    check_against_reference(lambda x: stacked(function(x)), lambda x: stacked(specification(x)), x)
    actual, expected = function(x), specification(x)
    for name in ("negative_count", "soft_count", "positive_count"):
        assert torch.equal(getattr(actual, name), getattr(expected, name)), name
    for name in ("minimum", "maximum", "certainty"):
        assert_close(getattr(actual, name), getattr(expected, name))


def compare_dense(x, y, **options):
    compare(
        lambda x: self_guided_sums(x, y, **options), lambda x: reference.self_guided_sums(x, y, **options), x.detach()
    )


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_reference(dtype, layout, rescale):
    for scale, median in ((1.0, "lower"), (20.0, "mean")):
        x = tensor((2, 3, 7, 5), dtype=dtype, layout=layout, scale=scale)
        compare_dense(x, labels(2, 3), rescale=rescale, median=median)


@pytest.mark.parametrize("count", [31, 32, 33, 513, 1100])
def test_equals_reference_whatever_is_left_over_of_the_kernel_s_stride(count):
    for dtype in (torch.float32, torch.float64):
        for median in MEDIANS:
            compare_dense(tensor((1, 2, count), dtype=dtype, scale=3), torch.tensor([[True, False]]), median=median)


@pytest.mark.parametrize("count", [9_000, 33_000])
def test_long_bags(count):
    compare_dense(tensor((1, 2, count), scale=3), torch.tensor([[True, False]]))


@settings(max_examples=120, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), min_size=3, max_size=5),
    dtype=st.sampled_from((torch.float32, torch.float64)),
    layout=st.sampled_from(LAYOUTS),
    scale=st.sampled_from((0.0, 0.01, 3.0, 50.0)),
    shift=st.sampled_from((0.0, -60.0, 20.0)),
    kept=st.sampled_from((None, 0.0, 0.5, 1.0)),
    shared=st.tuples(st.booleans(), st.booleans()),
    delta=st.sampled_from(DELTAS),
    rescale=st.booleans(),
    median=st.sampled_from(MEDIANS),
    seed=st.integers(0, 9),
)
def test_equals_reference_for_any_shape_and_mask(
    shape, dtype, layout, scale, shift, kept, shared, delta, rescale, median, seed
):
    x = tensor(shape, dtype=dtype, layout=layout, scale=scale, seed=seed) + shift
    mask = None
    if kept is not None:
        rows = [1 if one else n for one, n in zip(shared, shape, strict=False)]
        mask = laid_out(random(torch.rand, (*rows, *shape[2:]), seed=seed) < kept, layout)
    compare_dense(x, labels(*shape[:2], seed=seed), delta=delta, rescale=rescale, median=median, mask=mask)


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 6), max_size=6),
    classes=st.integers(0, 4),
    dtype=st.sampled_from((torch.float32, torch.float64)),
    layout=st.sampled_from(("contiguous", "sliced", "transposed")),
    scale=st.sampled_from((1.0, 50.0)),
    delta=st.sampled_from(DELTAS),
    rescale=st.booleans(),
    median=st.sampled_from(MEDIANS),
)
def test_ragged_equals_reference(sizes, classes, dtype, layout, scale, delta, rescale, median):
    x = tensor((sum(sizes), classes), dtype=dtype, layout=layout, scale=scale)
    offsets, y = torch.tensor([0, *sizes]).cumsum(0), labels(len(sizes), classes)
    options = {"delta": delta, "rescale": rescale, "median": median}
    compare(
        lambda x: self_guided_sums_ragged(x, offsets, y, **options),
        lambda x: reference.self_guided_sums_ragged(x, offsets, y, **options),
        x,
    )


def test_ragged_equals_masked():
    sizes = [3, 0, 70, 1]
    x = tensor((4, 2, 70), dtype=torch.float64, scale=5)
    mask = torch.arange(70) < torch.tensor(sizes)[:, None]
    packed, y = x.movedim(1, 2)[mask], labels(4, 2)
    ragged = self_guided_sums_ragged(packed, torch.tensor([0, *sizes]).cumsum(0), y)
    for actual, expected in zip(ragged, self_guided_sums(x, y, mask=mask[:, None]), strict=True):
        assert torch.equal(actual.nan_to_num(), expected.nan_to_num())


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), min_size=3, max_size=4),
    dtype=st.sampled_from((torch.float32, torch.float64, torch.float16)),
    layout=st.sampled_from(LAYOUTS),
    masked=st.booleans(),
    mode=st.sampled_from(("softmax", "max", "noisy_or", "lse")),
    rescale=st.booleans(),
    scale=st.sampled_from((0.0, 3.0)),
)
@example(  # neighbours in one word are two threads', which read and write them
    shape=[1, 1, 2],
    dtype=torch.float16,
    layout="contiguous",
    masked=False,
    mode="softmax",
    rescale=False,
    scale=0.0,
)
def test_pooling_on_the_way_is_pooling_and_sums(shape, dtype, layout, masked, mode, rescale, scale):
    x, y = tensor(shape, dtype=dtype, layout=layout, scale=scale), labels(*shape[:2])
    mask = random(torch.rand, (shape[0], 1, *shape[2:]), seed=2) < 0.6 if masked else None
    weight = random(torch.randn, (5, *shape[:2]), seed=4)

    def together(x):
        pooled, sums, _ = pooled_and_stacked_sums(x, y, mask, mode, None, 0.3, rescale, "lower")
        return torch.cat([pooled.nan_to_num(neginf=0)[None], sums]) * weight

    def apart(x):
        sums = stacked(self_guided_sums(x, y, rescale=rescale, mask=mask))
        return torch.cat([mil_pool(x, mode, mask=mask).nan_to_num(neginf=0)[None], sums]) * weight

    check_against_reference(together, apart, x)


# The equations for one positive bag, with so many digits that 1 − p is nothing to be afraid of.
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


@pytest.mark.parametrize("median", MEDIANS)
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


def test_statistics_carry_no_gradient():
    out = self_guided_sums(tensor((1, 1, 9)).requires_grad_(), labels(1, 1))
    assert [each.requires_grad for each in out] == [True] * 4 + [False] * 6


def test_labels_of_other_bytes():
    """A bool tensor that views other bytes may hold more than 0 and 1; what is not 0 is true."""
    x, odd = tensor((2, 2, 9)), torch.tensor([[2, 0], [255, 1]], dtype=torch.uint8).view(torch.bool)
    for actual, expected in zip(self_guided_sums(x, odd), self_guided_sums(x, odd.view(torch.uint8) != 0), strict=True):
        assert torch.equal(actual, expected)


def test_deterministic():
    x, y = tensor((6, 5, 333), scale=3), labels(6, 5)
    first = stacked(self_guided_sums(x, y))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(stacked(self_guided_sums(x, y)), first)
    finally:
        torch.set_num_threads(threads)


def test_gradcheck_with_fixed_targets():
    """The derivative of Σ BCE(p, M) and Σ p² with M held, by differences."""
    x, y = tensor((2, 2, 3, 2), dtype=torch.float64, layout="contiguous", scale=2), labels(2, 2, positives=0.8)
    mask = tensor((2, 1, 3, 2), seed=5) > -1
    spread = x.masked_fill(~mask, torch.inf).amin((2, 3), keepdim=True).sigmoid()
    theta = (x.sigmoid() - spread) / (x.masked_fill(~mask, -torch.inf).amax((2, 3), keepdim=True).sigmoid() - spread)
    one, zero = (theta > 0.7) & y[..., None, None], (theta < 0.3) | ~y[..., None, None]
    kinds = [each & mask for each in (zero, ~zero & ~one, one)]
    target = torch.where(kinds[1], theta, one.double())
    weight = random(torch.rand, (4, 2, 2), seed=7, dtype=torch.float64)

    def fixed(x):
        bce = F.binary_cross_entropy_with_logits(x, target, reduction="none")
        squares = x.sigmoid().square() * (kinds[1] | kinds[2])
        return (weight * torch.stack([*((bce * kind).sum((2, 3)) for kind in kinds), squares.sum((2, 3))])).sum()

    x.requires_grad_()
    out = (weight * stacked(self_guided_sums(x, y, mask=mask))).sum()
    assert_close(out, fixed(x))
    (grad,) = torch.autograd.grad(out, x)
    flat, step = x.detach().flatten(), 1e-5
    for index in range(flat.numel()):
        ends = []
        for sign in (1, -1):
            moved = flat.clone()
            moved[index] += sign * step
            ends.append(fixed(moved.view_as(x)).item())
        assert grad.flatten()[index].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


def test_gradcheck():
    # delta 0.5 leaves no soft target: M is constant around x.
    x, y = tensor((2, 2, 5), dtype=torch.float64, layout="contiguous", scale=2).requires_grad_(), labels(2, 2)
    assert torch.autograd.gradcheck(lambda x: self_guided_sums(x, y, delta=0.5)[:4], x)
    flat, offsets = tensor((7, 2), dtype=torch.float64).requires_grad_(), torch.tensor([0, 3, 7])
    assert torch.autograd.gradcheck(lambda x: self_guided_sums_ragged(x, offsets, y, delta=0.5)[:4], flat)


def test_opcheck():
    ops = torch.ops.cxrfast
    x, y = tensor((2, 3, 7)).requires_grad_(), labels(2, 3)
    grad = torch.ones(4, 2, 3)
    for mask in (None, tensor((2, 1, 7), seed=3) > -1):
        torch.library.opcheck(ops.self_guided_sums.default, (x, y, mask, 0.3, True, 0))
        _, statistics = ops.self_guided_sums(x.detach(), y, mask, 0.3, True, 0)
        torch.library.opcheck(
            ops._self_guided_sums_backward.default, (grad, x.detach(), y, mask, statistics, 0.3, True)
        )
    sharpness = torch.ones(3)
    torch.library.opcheck(ops.self_guided_pool.default, (x, y, None, sharpness, 4, 0.3, True, 0))
    pooled, _, statistics = ops.self_guided_pool(x.detach(), y, None, sharpness, 4, 0.3, True, 0)
    args = (torch.ones_like(pooled), grad, x.detach(), y, None, sharpness, statistics, 4, 0.3, True)
    torch.library.opcheck(ops._self_guided_pool_backward.default, args)
    flat, offsets = tensor((7, 3), layout="transposed").requires_grad_(), torch.tensor([0, 2, 7])
    torch.library.opcheck(ops.self_guided_sums_ragged.default, (flat, offsets, y, 0.3, True, 1))
    _, statistics = ops.self_guided_sums_ragged(flat.detach(), offsets, y, 0.3, True, 1)
    args = (grad, flat.detach(), offsets, y, statistics, 0.3, True)
    torch.library.opcheck(ops._self_guided_sums_ragged_backward.default, args)


def test_compiles():
    mask, y = tensor((2, 1, 4, 4), seed=3) > -1, labels(2, 3)
    check_compiles(lambda x: stacked(self_guided_sums(x, y, mask=mask)), tensor((2, 3, 4, 4)))
    pooled = (None, "softmax", None, 0.3, True, "lower")
    check_compiles(lambda x: torch.cat(pooled_and_stacked_sums(x, y, *pooled)[1:]), tensor((2, 3, 4, 4)))
    offsets = torch.tensor([0, 4, 5])
    check_compiles(lambda x: stacked(self_guided_sums_ragged(x, offsets, y)), tensor((5, 3)))


def test_double_backward_is_refused():
    y = torch.ones(1, 2, dtype=torch.bool)
    check_no_double_backward(lambda x: self_guided_sums(x, y).positive, tensor((1, 2, 4)))
    pooled = (None, "mean", None, 0.3, True, "lower")
    check_no_double_backward(lambda x: pooled_and_stacked_sums(x, y, *pooled)[1], tensor((1, 2, 4)))
    check_no_double_backward(lambda x: self_guided_sums_ragged(x, torch.tensor([0, 4]), y).positive, tensor((4, 2)))


X, Y = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "logits: expected a floating-point tensor, got torch.int64", lambda: self_guided_sums(X.long(), Y)),
        (ValueError, r"logits: expected \[B, K, \*\] with instance", lambda: self_guided_sums(X[0], Y)),
        (TypeError, "positive: expected a boolean tensor, got torch.float32", lambda: self_guided_sums(X, Y.float())),
        (TypeError, "positive: expected a boolean tensor, got NoneType", lambda: self_guided_sums(X, None)),
        (ValueError, r"positive: expected \[2, 3\], got \[2\]", lambda: self_guided_sums(X, Y[:, 0])),
        (ValueError, "delta: expected at least 0 and at most 0.5, got 0.7", lambda: self_guided_sums(X, Y, delta=0.7)),
        (TypeError, "delta: expected a number, got True", lambda: self_guided_sums(X, Y, delta=True)),
        (
            ValueError,
            "median: expected one of lower, mean, got 'upper'",
            lambda: self_guided_sums(X, Y, median="upper"),
        ),
        (TypeError, "mask: expected a boolean tensor", lambda: self_guided_sums(X, Y, mask=X)),
        (ValueError, r"mask: .* \(2, 3, 4\), got \(2, 2, 4\)", lambda: self_guided_sums(X, Y, mask=X[:, :2] > 0)),
        (ValueError, r"logits: expected \[N, K\]", lambda: self_guided_sums_ragged(X, torch.tensor([0, 2]), Y)),
        (ValueError, "offsets: .* from 0 to 3", lambda: self_guided_sums_ragged(X[0, :, :3], torch.tensor([0, 2]), Y)),
        (
            ValueError,
            r"positive: expected \[1, 4\], got \[2, 3\]",
            lambda: self_guided_sums_ragged(X[0], torch.tensor([0, 3]), Y),
        ),
    ],
)
def test_wrong_input(error, message, call):
    with pytest.raises(error, match=message):
        call()
