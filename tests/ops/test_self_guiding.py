"""self_guided_sums and its ragged form against the reference, and the promises every operator makes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cxrfast import reference
from cxrfast.ops import mil_pool, self_guided_sums, self_guided_sums_ragged
from cxrfast.ops.self_guiding import pooled_and_stacked_sums
from tests.ops.bags import labels, stacked
from tests.ops.checks import check_against_reference, check_compiles, check_no_double_backward
from tests.ops.inputs import FLOATS, LAYOUTS, laid_out, random, tensor
from tests.tolerances import assert_close

DELTAS = (0.0, 0.1, 0.3, 0.45)
MEDIANS = ("lower", "mean")


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


def test_statistics_carry_no_gradient():
    out = self_guided_sums(tensor((1, 1, 9)).requires_grad_(), labels(1, 1))
    assert [each.requires_grad for each in out] == [True] * 4 + [False] * 6


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
