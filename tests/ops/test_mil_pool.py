"""mil_pool and mil_pool_ragged against their reference, against the definitions evaluated with hundreds of digits, and
the promises every operator makes."""

from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast import reference
from cxrfast.ops import mil_pool, mil_pool_ragged
from tests.ops.checks import check_against_reference, check_compiles, check_no_double_backward
from tests.ops.inputs import FLOATS, LAYOUTS, laid_out, random, tensor
from tests.tolerances import assert_close

MODES = ("noisy_or", "mean", "max", "lse", "softmax", "linear_softmax", "auto", "generalized_mean")
SHARP_MODES = ("lse", "softmax", "auto", "generalized_mean")
AVERAGES = tuple(mode for mode in MODES if mode not in ("noisy_or", "max"))


def compare(mode, x, **options):
    check_against_reference(lambda x: mil_pool(x, mode, **options), lambda x: reference.mil_pool(x, mode, **options), x)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", MODES)
def test_equals_reference(mode, dtype, layout):
    for scale in (1.0, 20.0):
        compare(mode, tensor((2, 3, 4, 5), dtype=dtype, layout=layout, scale=scale))


@settings(max_examples=150, deadline=None)
@given(
    mode=st.sampled_from(MODES),
    shape=st.lists(st.integers(0, 4), min_size=3, max_size=5),
    dtype=st.sampled_from((torch.float32, torch.float64)),
    layout=st.sampled_from(LAYOUTS),
    scale=st.sampled_from((0.0, 0.1, 3.0, 50.0)),
    kept=st.sampled_from((None, 0.0, 0.5, 1.0)),
    shared=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 9),
)
def test_equals_reference_for_any_shape_and_mask(mode, shape, dtype, layout, scale, kept, shared, seed):
    x = tensor(shape, dtype=dtype, layout=layout, scale=scale, seed=seed)
    mask = None
    if kept is not None:
        rows = [1 if one else n for one, n in zip(shared, shape, strict=False)]
        mask = laid_out(random(torch.rand, *rows, *shape[2:], seed=seed) < kept, layout)
    compare(mode, x, mask=mask)


@settings(max_examples=100, deadline=None)
@given(
    mode=st.sampled_from(SHARP_MODES),
    values=st.lists(st.floats(-12, 12), min_size=3, max_size=3),
    scale=st.sampled_from((0.5, 5.0, 40.0)),
    seed=st.integers(0, 9),
)
def test_sharpness_of_each_class_and_its_gradient(mode, values, scale, seed):
    values = [value if abs(value) > 1e-3 else 1e-3 for value in values]  # the reference cannot differentiate at 0
    check_against_reference(
        lambda x, r: mil_pool(x, mode, sharpness=r),
        lambda x, r: reference.mil_pool(x, mode, sharpness=r),
        tensor((2, 3, 7), dtype=torch.float64, scale=scale, seed=seed),
        torch.tensor(values, dtype=torch.float64),
    )


@settings(max_examples=100, deadline=None)
@given(
    mode=st.sampled_from(MODES),
    sizes=st.lists(st.integers(0, 6), max_size=6),
    classes=st.integers(0, 4),
    dtype=st.sampled_from(FLOATS),
    layout=st.sampled_from(("contiguous", "sliced", "transposed")),
    scale=st.sampled_from((1.0, 50.0)),
)
def test_ragged_equals_reference(mode, sizes, classes, dtype, layout, scale):
    x = tensor((sum(sizes), classes), dtype=dtype, layout=layout, scale=scale)
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    check_against_reference(
        lambda x: mil_pool_ragged(x, offsets, mode), lambda x: reference.mil_pool_ragged(x, offsets, mode), x
    )


@pytest.mark.parametrize("mode", MODES)
def test_ragged_equals_masked(mode):
    sizes = [3, 0, 7, 1]
    x = tensor((4, 2, 7), dtype=torch.float64, scale=5)
    mask = torch.arange(7) < torch.tensor(sizes)[:, None]
    packed = x.movedim(1, 2)[mask]
    ragged = mil_pool_ragged(packed, torch.tensor([0, *sizes]).cumsum(0), mode)
    assert torch.equal(ragged.nan_to_num(), mil_pool(x, mode, mask=mask[:, None]).nan_to_num())


# The definitions, evaluated with so many digits that 1 − p is nothing to be afraid of.
def oracle(mode, x, r):
    p = [1 / (1 + (-v).exp()) for v in x]
    n = len(p)
    if mode == "noisy_or":
        none = Decimal(1)
        for v in p:
            none *= 1 - v
        pooled = 1 - none
    elif mode == "max":
        pooled = max(p)
    elif mode == "lse":
        pooled = (sum((r * v).exp() for v in p) / n).ln() / r
    elif mode == "generalized_mean":
        pooled = ((sum((r * v.ln()).exp() for v in p) / n).ln() / r).exp()
    else:
        weights = {
            "mean": lambda v: Decimal(1),
            "softmax": lambda v: (r * v).exp(),
            "auto": lambda v: (r * v).exp(),
            "linear_softmax": lambda v: v,
        }[mode]
        pooled = sum(weights(v) * v for v in p) / sum(weights(v) for v in p)
    return (pooled / (1 - pooled)).ln()


def oracle_with_gradient(mode, x, r):
    """Value, d/dx and d/dr, by differences of 1e-20."""
    step = Decimal(10) ** -20
    with localcontext() as context:
        context.prec = 70 + int(max(map(abs, x)))  # e^-x has x / 2.3 leading zeros
        x, r = [Decimal(v) for v in x], Decimal(r)
        value = oracle(mode, x, r)
        grad = []
        for i in range(len(x)):
            ends = [oracle(mode, [*x[:i], x[i] + sign * step, *x[i + 1 :]], r) for sign in (1, -1)]
            grad.append((ends[0] - ends[1]) / (2 * step))
        slope = (oracle(mode, x, r + step) - oracle(mode, x, r - step)) / (2 * step)
    return [float(v) for v in (value, *grad, slope)]


EXTREMES = [
    (0.0,),
    (50.0, -50.0),
    (-50.0, -51.0, -50.5),
    (50.0, 51.0, 50.5),
    (-39.0, -41.0, -40.0),
    (39.0, 41.0, 40.0),
    (-120.0, -250.0, -121.0),
    (120.0, 250.0, 121.0),
    (-200.0, 200.0, 0.5),
    (-88.0, -100.0, 3.0),
    (88.0, 100.0, -3.0),
]


@pytest.mark.parametrize("x", EXTREMES)
@pytest.mark.parametrize("mode", MODES)
def test_extreme_logits_keep_value_and_gradient(mode, x):
    for r in (1.0, 10.0, -4.0, 1e-6, 100.0) if mode in SHARP_MODES else (1.0,):
        expected = oracle_with_gradient(mode, x, r)
        for dtype in (torch.float32, torch.float64):
            logits = torch.tensor(x, dtype=dtype).view(1, 1, -1).requires_grad_()
            sharpness = torch.tensor([r], dtype=dtype, requires_grad=True)
            out = mil_pool(logits, mode, sharpness=sharpness if mode in SHARP_MODES else None)
            out.sum().backward()
            slope = sharpness.grad if mode in SHARP_MODES else torch.tensor([expected[-1]], dtype=dtype)
            actual = torch.cat([out.detach().flatten(), logits.grad.flatten(), slope])
            assert_close(actual, torch.tensor(expected, dtype=dtype))


@pytest.mark.parametrize("mode", ["lse", "generalized_mean"])
def test_sharpness_zero_is_the_limit(mode):
    x = tensor((1, 2, 9), dtype=torch.float64, scale=3)
    results = []
    for r in (0.0, 1e-9):
        logits, sharpness = x.clone().requires_grad_(), torch.full((2,), r, dtype=torch.float64, requires_grad=True)
        out = mil_pool(logits, mode, sharpness=sharpness)
        out.sum().backward()
        results.append(torch.cat([out.detach().flatten(), logits.grad.flatten(), sharpness.grad]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-7, atol=1e-7)  # two different r, so not the table's


@pytest.mark.parametrize("value", [0.0, 50.0, -50.0, 1000.0, -1000.0])
@pytest.mark.parametrize("mode", MODES)
def test_a_bag_of_equal_instances_has_their_logit(mode, value):
    for count in (1, 400) if mode != "noisy_or" else (1,):
        x = torch.full((1, 1, count), value, dtype=torch.float64)
        assert_close(mil_pool(x, mode), x[:, :, 0])


def test_noisy_or_of_many_instances():
    assert mil_pool(torch.full((1, 1, 100_000), 30.0)).item() == pytest.approx(3e6, rel=1e-6)
    rare = mil_pool(torch.full((1, 1, 100_000), -60.0))
    assert rare.item() == pytest.approx(-60 + torch.tensor(1e5).log().item(), rel=1e-6)


@pytest.mark.parametrize("mode", AVERAGES)
def test_averages_lie_between_the_extremes_and_ignore_order(mode):
    x = tensor((3, 2, 50), dtype=torch.float64, scale=4)
    out = mil_pool(x, mode)
    assert (out >= x.amin(2)).all()
    assert (out <= x.amax(2)).all()
    assert_close(mil_pool(x.flip(2), mode), out)


def test_max_sends_its_gradient_to_the_first_of_equals():
    x = torch.tensor([[[1.0, 3.0, 3.0, 2.0, 3.0]]], requires_grad=True)
    mil_pool(x, "max").sum().backward()
    assert x.grad.tolist() == [[[0, 1, 0, 0, 0]]]


@pytest.mark.parametrize("mode", MODES)
def test_nan_is_not_lost(mode):
    for x in ([1.0, float("nan"), 2.0], [float("-inf"), float("nan"), float("-inf")]):
        assert mil_pool(torch.tensor([[x]]), mode).isnan().all()


@pytest.mark.parametrize("mode", MODES)
def test_minus_infinity_is_an_impossible_instance(mode):
    x = tensor((1, 1, 4), dtype=torch.float64)
    impossible, unlikely = x.clone(), x.clone()
    impossible[..., 2], unlikely[..., 2] = float("-inf"), -700.0
    assert_close(mil_pool(impossible, mode), mil_pool(unlikely, mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (2, 3, 4, 0)])
def test_empty(mode, shape):
    x = torch.zeros(shape, requires_grad=True)
    out = mil_pool(x, mode)
    assert out.shape == shape[:2]
    assert (out.isnan() if mode in AVERAGES else out == -torch.inf).all()
    out.sum().backward()
    assert x.grad.shape == shape


@pytest.mark.parametrize("mode", MODES)
def test_masked_instances_receive_no_gradient(mode):
    x = tensor((2, 3, 5)).requires_grad_()
    mask = torch.ones(2, 1, 5, dtype=torch.bool)
    mask[0] = False  # a whole bag
    mask[1, :, 3:] = False
    r = torch.ones(3, requires_grad=True) if mode in SHARP_MODES else None
    out = mil_pool(x, mode, sharpness=r, mask=mask)
    (out * torch.tensor([[float("nan")], [1.0]])).sum().backward()
    assert (x.grad[0] == 0).all()
    assert (x.grad[1, :, 3:] == 0).all()
    assert (x.grad[1, :, :3] != 0).any()
    assert r is None or r.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_half_precision_accumulates_in_float32(mode, dtype):
    x = tensor((1, 2, 3000), dtype=dtype, scale=3)
    assert_close(mil_pool(x, mode), mil_pool(x.double(), mode).to(dtype))


@pytest.mark.parametrize("mode", MODES)
def test_deterministic(mode):
    x = tensor((6, 5, 333), scale=3)
    assert torch.equal(mil_pool(x, mode), mil_pool(x, mode))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = mil_pool(x, mode)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone, mil_pool(x, mode))


def test_gradcheck():
    x = tensor((2, 2, 3, 2), dtype=torch.float64, layout="contiguous", scale=2).requires_grad_()
    mask = tensor((2, 1, 3, 2), seed=5) > -0.5
    r = torch.tensor([0.7, 3.0], dtype=torch.float64, requires_grad=True)
    for mode in MODES:
        assert torch.autograd.gradcheck(lambda x: mil_pool(x, mode, mask=mask), x)
        if mode in SHARP_MODES:
            assert torch.autograd.gradcheck(lambda x, r: mil_pool(x, mode, sharpness=r), (x, r))
    flat = tensor((7, 2), dtype=torch.float64).requires_grad_()
    offsets = torch.tensor([0, 3, 3, 7])
    assert torch.autograd.gradcheck(lambda x, r: mil_pool_ragged(x, offsets, "auto", sharpness=r)[[0, 2]], (flat, r))


OPS = torch.ops.cxrfast


@pytest.mark.parametrize("code", range(7))
def test_opcheck(code):
    x = tensor((2, 3, 7)).requires_grad_()
    mask = tensor((2, 1, 7), seed=3) > -1
    r = torch.full((3,), 2.0, requires_grad=True) if code in (3, 4, 6) else None
    fixed = None if r is None else r.detach()
    grad = torch.ones(2, 3)
    torch.library.opcheck(OPS.mil_pool.default, (x, mask, r, code))
    torch.library.opcheck(OPS.mil_pool.default, (x, None, r, code))
    torch.library.opcheck(OPS._mil_pool_backward.default, (grad, x.detach(), mask, fixed, code, r is not None))
    flat, offsets = tensor((7, 3), layout="transposed").requires_grad_(), torch.tensor([0, 2, 7])
    torch.library.opcheck(OPS.mil_pool_ragged.default, (flat, offsets, r, code))
    args = (grad, flat.detach(), offsets, fixed, code, False)
    torch.library.opcheck(OPS._mil_pool_ragged_backward.default, args)


def test_compiles():
    mask = tensor((2, 1, 4, 4), seed=3) > -1
    for mode in MODES:
        check_compiles(lambda x: mil_pool(x, mode, mask=mask), tensor((2, 3, 4, 4)))
    check_compiles(lambda x, r: mil_pool(x, "auto", sharpness=r), tensor((2, 3, 9)), torch.ones(3))
    offsets = torch.tensor([0, 4, 5])
    check_compiles(lambda x: mil_pool_ragged(x, offsets), tensor((5, 3)))


def test_autocast_pools_in_float32():
    x = torch.full((1, 1, 5000), 30.0, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        out = mil_pool(x)
        sharp = mil_pool(x, "lse", sharpness=torch.ones(1))
    assert out.dtype == sharp.dtype == torch.float32
    assert out.item() == pytest.approx(150_000)
    out.sum().backward()
    assert x.grad.dtype == torch.bfloat16


def test_double_backward_is_refused():
    check_no_double_backward(mil_pool, tensor((1, 2, 4)))
    check_no_double_backward(lambda x: mil_pool_ragged(x, torch.tensor([0, 4])), tensor((4, 2)))


X = torch.zeros(2, 3, 4)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "logits: expected a floating-point tensor, got torch.int64", lambda: mil_pool(X.long())),
        (ValueError, r"logits: expected \[B, K, \*\] with instance", lambda: mil_pool(X[0])),
        (ValueError, "mode: expected one of noisy_or, mean, .*, got 'or'", lambda: mil_pool(X, "or")),
        (ValueError, "sharpness: expected None", lambda: mil_pool(X, "mean", sharpness=1.0)),
        (TypeError, "sharpness: expected a number or .* got True", lambda: mil_pool(X, "lse", sharpness=True)),
        (ValueError, "sharpness: expected a finite number, got inf", lambda: mil_pool(X, "lse", sharpness=1e999)),
        (ValueError, "expected a finite number, got 1e\\+300", lambda: mil_pool(X, "lse", sharpness=1e300)),
        (ValueError, r"a scalar or \[3\], got shape \(2,\)", lambda: mil_pool(X, "lse", sharpness=torch.ones(2))),
        (TypeError, "sharpness: .* got torch.int64", lambda: mil_pool(X, "lse", sharpness=torch.ones(3).long())),
        (TypeError, "mask: expected a boolean tensor, got torch.float32", lambda: mil_pool(X, mask=X)),
        (ValueError, r"mask: .* \(2, 3, 4\), got \(2, 2, 4\)", lambda: mil_pool(X, mask=X[:, :2] > 0)),
        (ValueError, r"logits: expected \[N, K\]", lambda: mil_pool_ragged(X, torch.tensor([0, 2]))),
        (TypeError, "int64 tensor, got torch.int32", lambda: mil_pool_ragged(X[0], torch.tensor([0, 3]).int())),
        (ValueError, r"\[B \+ 1\], got shape \(0,\)", lambda: mil_pool_ragged(X[0], torch.tensor([]).long())),
        (ValueError, "run from 0 to 3, got 0 to 4", lambda: mil_pool_ragged(X[0], torch.tensor([0, 4]))),
        (ValueError, "run from 0 to 3, got 1 to 3", lambda: mil_pool_ragged(X[0], torch.tensor([1, 3]))),
        (ValueError, "values that never decrease", lambda: mil_pool_ragged(X[0], torch.tensor([0, 2, 1, 3]))),
    ],
)
def test_wrong_input(error, message, call):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("offsets", [[0, 9, 3], [0, -2, 3], [0, 99], [-1, 3]])
def test_kernel_never_reads_outside_the_logits(offsets):
    """The CPU's kernel says so. A device's, whose offsets nobody waits for, makes the bags NaN."""
    refusals = []
    try:
        out = OPS.mil_pool_ragged(X[0], torch.tensor(offsets), None, 0)
    except RuntimeError as error:
        refusals.append(str(error))
    assert "offsets must" in refusals[0] if refusals else out.isnan().all()


@pytest.mark.parametrize("mode", MODES)
def test_long_bags(mode):
    for shape, scale in (((1, 2, 700), 3), ((2, 1, 5000), 60), ((1, 2, 20000), 3), ((1, 1, 33333), 90)):
        mask = tensor((shape[0], 1, shape[2]), seed=3) > 0
        for logits in (tensor(shape, scale=scale), tensor(shape, scale=scale, layout="contiguous") - 200):
            compare(mode, logits, mask=mask)
    offsets = torch.tensor([0, 1, 1, 9000, 9700])
    check_against_reference(
        lambda x: mil_pool_ragged(x, offsets, mode),
        lambda x: reference.mil_pool_ragged(x, offsets, mode),
        tensor((9700, 2), scale=3),
    )


def test_meta_tensors():
    logits, offsets = torch.zeros(3, 2, device="meta"), torch.zeros(5, dtype=torch.int64, device="meta")
    assert mil_pool_ragged(logits, offsets).shape == (4, 2)
