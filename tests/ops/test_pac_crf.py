"""pac_conv2d and pac_crf against their references, and the promises every operator makes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from cxrfast import reference
from cxrfast.ops import pac_conv2d, pac_crf
from tests.ops.checks import check_against_reference, check_compiles, check_no_double_backward
from tests.ops.inputs import FLOATS, LAYOUTS, laid_out, tensor
from tests.tolerances import assert_close

DOUBLE = torch.float64
FORMS = ("full", "shared", "full_matrix", "shared_matrix")
ACTIVATIONS = ("softmax", "sigmoid")


def conv_inputs(shape, outputs, guides=3, kernel=3, *, shared=False, dtype=DOUBLE, layout="sliced"):
    """x, guide, weight, bias."""
    batch, channels, height, width = shape
    pairs = (1, 1) if shared else (outputs, channels)
    return (
        tensor(shape, dtype=dtype, layout=layout, seed=1),
        tensor((batch, guides, height, width), dtype=dtype, layout=layout, seed=2, scale=0.5),
        tensor((*pairs, kernel, kernel), dtype=dtype, layout=layout, seed=3, scale=0.3),
        tensor((channels if shared else outputs,), dtype=dtype, layout=layout, seed=4),
    )


def crf_inputs(shape, guides=3, kernel=3, *, form="full", dtype=DOUBLE, layout="sliced", scale=1.0):
    """unary, guide, weight and, in the forms that have one, compatibility."""
    batch, labels, height, width = shape
    pairs = (1, 1) if form.startswith("shared") else (labels, labels)
    tensors = (
        tensor(shape, dtype=dtype, layout=layout, seed=1, scale=scale),
        tensor((batch, guides, height, width), dtype=dtype, layout=layout, seed=2, scale=0.5),
        tensor((*pairs, kernel, kernel), dtype=dtype, layout=layout, seed=3, scale=0.2),
    )
    if form.endswith("matrix"):
        return *tensors, tensor((labels, labels), dtype=dtype, layout=layout, seed=4)
    return tensors


def check_conv(*tensors, **options):
    check_against_reference(
        lambda *t: pac_conv2d(*t, **options), lambda *t: reference.pac_conv2d(*t, **options), *tensors
    )


def check_crf(*tensors, **options):
    check_against_reference(lambda *t: pac_crf(*t, **options), lambda *t: reference.pac_crf(*t, **options), *tensors)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shared", [False, True])
def test_conv_equals_reference(dtype, layout, shared):
    check_conv(*conv_inputs((2, 3, 6, 7), 5, shared=shared, dtype=dtype, layout=layout), dilation=2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_crf_equals_reference(dtype, layout, form, activation):
    inputs = crf_inputs((2, 3, 6, 7), form=form, dtype=dtype, layout=layout)
    check_crf(*inputs, steps=2, unary_weight=0.7, activation=activation)


@settings(max_examples=80, deadline=None)
@given(
    batch=st.integers(0, 3),
    channels=st.integers(0, 9),
    outputs=st.integers(1, 9),
    guides=st.integers(0, 6),
    height=st.integers(0, 12),
    width=st.integers(0, 12),
    kernel=st.sampled_from([1, 3, 5, 9]),
    dilation=st.integers(1, 3),
    shared=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
)
def test_conv_equals_reference_for_any_shape(
    batch, channels, outputs, guides, height, width, kernel, dilation, shared, layout
):
    # A [1, 1, k, k] weight with several channels is the shared form, whatever was meant by it.
    assume(shared or (outputs, channels) != (1, 1))
    shape = (batch, channels, height, width)
    check_conv(*conv_inputs(shape, outputs, guides, kernel, shared=shared, layout=layout), dilation=dilation)


@settings(max_examples=80, deadline=None)
@given(
    batch=st.integers(0, 3),
    labels=st.integers(1, 9),
    guides=st.integers(0, 6),
    height=st.integers(0, 12),
    width=st.integers(0, 12),
    kernel=st.sampled_from([1, 3, 5, 9]),
    dilation=st.integers(1, 3),
    steps=st.integers(1, 4),
    form=st.sampled_from(FORMS),
    activation=st.sampled_from(ACTIVATIONS),
    layout=st.sampled_from(LAYOUTS),
)
def test_crf_equals_reference_for_any_shape(
    batch, labels, guides, height, width, kernel, dilation, steps, form, activation, layout
):
    inputs = crf_inputs((batch, labels, height, width), guides, kernel, form=form, layout=layout)
    check_crf(*inputs, steps=steps, unary_weight=1.3, dilation=dilation, activation=activation)


@pytest.mark.parametrize("form", ["full", "shared_matrix"])
@pytest.mark.parametrize(
    ("height", "width", "kernel"),
    [(5, 5, 19), (1, 1, 3), (1, 70, 5), (70, 1, 5), (130, 66, 3), (130, 40, 3)],  # narrow and wide, one and more chunks
)
def test_sizes_that_change_the_loops(form, height, width, kernel):
    check_crf(*crf_inputs((1, 2, height, width), 2, kernel, form=form), steps=2)


@pytest.mark.parametrize("form", ["full", "full_matrix", "shared_matrix"])
@pytest.mark.parametrize("labels", [8, 14, 21])
def test_many_labels_in_float32(labels, form):
    """Kernels take channels in tiles, of a size that depends on dtype and number."""
    check_crf(*crf_inputs((3, labels, 7, 9), 18, form=form, dtype=torch.float32, scale=0.5), steps=2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize(
    ("batch", "labels", "height", "width", "kernel"), [(16, 14, 4, 20, 5), (37, 3, 5, 7, 9), (20, 15, 6, 4, 3)]
)
def test_interleaved_images(batch, labels, height, width, kernel, dtype, form):
    """Many images with narrow rows, whole groups of 16 and others."""
    check_crf(*crf_inputs((batch, labels, height, width), 5, kernel, form=form, dtype=dtype), steps=3)


@pytest.mark.not_emulated("takes minutes; the limit is lower under emulation, so that other tests pass it")
def test_affinities_beyond_what_is_kept():
    """128·130·361 gradients of affinities are over the 96 MB limit: they are computed in groups, in every step."""
    check_crf(*crf_inputs((1, 2, 128, 130), 1, 19), steps=2)


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_constant_guide_is_conv2d(dilation, dtype):
    x, guide, weight, bias = conv_inputs((2, 3, 12, 11), 4, kernel=5, dtype=dtype)
    guide = guide.mean((2, 3), keepdim=True).expand_as(guide) * 7
    expected = F.conv2d(x, weight, bias, padding=2 * dilation, dilation=dilation)
    assert_close(pac_conv2d(x, guide, weight, bias, dilation=dilation), expected)


def test_strange_guides_leave_the_centre_tap():
    x, guide, weight, _ = conv_inputs((1, 3, 8, 8), 4)
    position = torch.arange(64, dtype=DOUBLE).view(1, 1, 8, 8).expand_as(guide) * 100
    expected = torch.einsum("oc,bchw->bohw", weight[:, :, 1, 1], x)
    assert_close(pac_conv2d(x, position, weight), expected)


def test_shifts_with_the_image():
    x, guide, weight, _ = conv_inputs((1, 2, 14, 14), 3, kernel=5)
    moved = pac_conv2d(x.roll((1, 3), (2, 3)), guide.roll((1, 3), (2, 3)), weight)
    inside = (..., slice(5, 11), slice(5, 11))
    assert_close(moved[inside], pac_conv2d(x, guide, weight).roll((1, 3), (2, 3))[inside])


def test_shared_weight_is_a_diagonal_one():
    x, guide, weight, _ = conv_inputs((2, 4, 7, 7), 4, shared=True)
    diagonal = torch.eye(4, dtype=DOUBLE)[:, :, None, None] * weight
    assert_close(pac_conv2d(x, guide, weight), pac_conv2d(x, guide, diagonal))
    assert_close(pac_crf(x, guide, weight), pac_crf(x, guide, diagonal))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_crf_is_convolutions_step_by_step(form, activation):
    unary, guide, weight, *matrix = crf_inputs((2, 4, 6, 6), form=form)
    logits = unary
    for _ in range(3):
        message = pac_conv2d(logits.softmax(1) if activation == "softmax" else logits.sigmoid(), guide, weight)
        if matrix:
            message = torch.einsum("mk,bkhw->bmhw", matrix[0], message)
        logits = 0.5 * unary - message
    actual = pac_crf(unary, guide, weight, *matrix, steps=3, unary_weight=0.5, activation=activation)
    assert_close(actual, logits)


def test_no_steps_return_the_unary():
    unary, guide, weight, matrix = (x.requires_grad_() for x in crf_inputs((2, 2, 4, 4), form="shared_matrix"))
    out = pac_crf(unary, guide, weight, matrix, steps=0)
    assert torch.equal(out, unary)
    out.sum().backward()
    assert torch.equal(unary.grad, torch.ones_like(unary))
    assert not guide.grad.any()
    assert not weight.grad.any()
    assert not matrix.grad.any()


def test_softmax_ignores_what_all_labels_share():
    unary, guide, weight = crf_inputs((1, 3, 6, 6))
    shift = tensor((1, 1, 6, 6), dtype=DOUBLE, seed=9)
    assert_close(pac_crf(unary + shift, guide, weight), pac_crf(unary, guide, weight) + shift)


def test_unary_weight_gets_a_gradient():
    unary, guide, weight = crf_inputs((2, 3, 5, 5))
    grads = []
    for function in (pac_crf, reference.pac_crf):
        scale = torch.tensor(0.8, dtype=DOUBLE, requires_grad=True)
        function(unary, guide, weight, unary_weight=scale).square().sum().backward()
        grads.append(scale.grad)
    assert_close(*grads)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_extreme_values(activation, dtype):
    unary, guide, weight = crf_inputs((1, 3, 6, 6), dtype=dtype, layout="contiguous")
    unary = (unary.sign() * 50).requires_grad_()
    guide = (guide.sign() * (6e4 if dtype == torch.float16 else 1e30)).requires_grad_()
    weight.requires_grad_()
    out = pac_crf(unary, guide, weight, activation=activation)
    out.sum().backward()
    for result in (out, unary.grad, guide.grad, weight.grad):
        assert torch.isfinite(result).all()
    assert_close(out, reference.pac_crf(unary, guide, weight, activation=activation))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e308])
def test_a_bad_pixel_stays_in_its_window(bad):
    x, guide, weight, _ = conv_inputs((1, 2, 8, 8), 3, layout="contiguous")
    bad_x, bad_guide = x.clone(), guide.clone()
    bad_x[0, 0, 4, 7] = bad_guide[0, 0, 4, 7] = bad  # at the right edge: not to be seen at the left
    for inputs in ((bad_x, guide, weight), (x, bad_guide, weight)):
        out = pac_conv2d(*inputs)
        assert_close(out, reference.pac_conv2d(*inputs))
        assert torch.isfinite(out[..., :6]).all()


@pytest.mark.not_emulated(
    "emulation has one thread; tests/cuda_emulation/test_determinism.py varies its orders instead"
)
@pytest.mark.parametrize("form", ["full", "shared_matrix"])
@pytest.mark.parametrize("shape", [(3, 3, 80, 70), (21, 5, 20, 20)])
def test_deterministic_for_any_number_of_threads(form, shape):
    inputs = [x.requires_grad_() for x in crf_inputs(shape, form=form, dtype=torch.float32, kernel=5)]
    results, threads = [], torch.get_num_threads()
    try:
        for n in (1, 2, 4):
            torch.set_num_threads(n)
            out = pac_crf(*inputs, steps=2)
            results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dilation", [1, 2])
def test_conv_gradcheck(shared, dilation):
    inputs = [x.requires_grad_() for x in conv_inputs((2, 2, 4, 5), 3, shared=shared, layout="contiguous")]
    assert torch.autograd.gradcheck(lambda *t: pac_conv2d(*t, dilation=dilation), inputs)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_crf_gradcheck(form, activation):
    inputs = [x.requires_grad_() for x in crf_inputs((1, 3, 3, 4), 2, form=form, layout="contiguous")]
    scale = torch.tensor(0.9, dtype=DOUBLE, requires_grad=True)

    def function(scale, *tensors):
        return pac_crf(*tensors, steps=3, unary_weight=scale, activation=activation)

    assert torch.autograd.gradcheck(function, (scale, *inputs))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shared", [False, True])
def test_conv_opcheck(layout, shared):
    inputs = conv_inputs((2, 3, 5, 6), 4, shared=shared, dtype=torch.float32, layout=layout)
    inputs = [x.requires_grad_() for x in inputs]
    torch.library.opcheck(torch.ops.cxrfast.pac_conv2d.default, (*inputs, 1))
    torch.library.opcheck(torch.ops.cxrfast.pac_conv2d.default, (*inputs[:3], None, 1))
    x, guide, weight, _ = (t.detach() for t in inputs)
    grad = pac_conv2d(x, guide, weight)
    torch.library.opcheck(torch.ops.cxrfast._pac_conv2d_backward.default, (grad, x, guide, weight, 1))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["full", "full_matrix", "shared_matrix"])
def test_crf_opcheck(layout, form):
    inputs = [x.requires_grad_() for x in crf_inputs((2, 3, 5, 6), form=form, dtype=torch.float32, layout=layout)]
    arguments = [*inputs, *[None] * (4 - len(inputs)), torch.tensor(1.0), 2, 1, 0]
    torch.library.opcheck(torch.ops.cxrfast.pac_crf.default, arguments)
    arguments = [x.detach() if isinstance(x, torch.Tensor) else x for x in arguments]
    torch.library.opcheck(torch.ops.cxrfast._pac_crf_backward.default, (torch.ones(2, 3, 5, 6), *arguments))


def test_compiles():
    check_compiles(lambda *t: pac_conv2d(*t, dilation=2), *conv_inputs((2, 3, 6, 6), 4))
    check_compiles(lambda *t: pac_crf(*t, steps=2, unary_weight=0.5), *crf_inputs((2, 3, 6, 6), form="shared_matrix"))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("form", [(1, 1, 3, 3), (0, 0, 3, 3)])
def test_crf_without_labels(activation, form):
    guide = tensor((2, 2, 3, 3)).requires_grad_()
    unary, weight = torch.zeros(2, 0, 3, 3), torch.ones(form, requires_grad=True)
    pac_crf(unary, guide, weight, activation=activation).sum().backward()
    assert not guide.grad.any()
    assert not weight.grad.any()


def test_activation_checkpointing():
    inputs = [x.requires_grad_() for x in crf_inputs((1, 2, 4, 4), dtype=torch.float32)]
    expected = torch.autograd.grad(pac_crf(*inputs).sum(), inputs)
    actual = torch.autograd.grad(checkpoint(pac_crf, *inputs, use_reentrant=False).sum(), inputs)
    for left, right in zip(actual, expected, strict=True):
        assert_close(left, right)


@pytest.mark.parametrize("dilation", [7, 2**61, 2**62, 2**63 - 1])
def test_dilation_beyond_the_image_leaves_the_centre(dilation):
    x, weight = tensor((1, 2, 5, 7)), torch.ones(1, 1, 9, 9)
    assert_close(pac_conv2d(x, x, weight, dilation=dilation), x)


def test_meta_tensors():
    x, weight = torch.zeros(1, 2, 4, 4, device="meta"), torch.zeros(2, 2, 3, 3, device="meta")
    assert pac_crf(x, x, weight).shape == pac_conv2d(x, x, weight).shape == x.shape


def test_unary_weight_beyond_float32_is_infinite():
    assert pac_crf(torch.ones(1, 2, 4, 4), X, W, steps=1, unary_weight=1e300).isposinf().all()


def test_double_backward_is_refused():
    check_no_double_backward(pac_conv2d, *conv_inputs((1, 2, 4, 4), 2))
    check_no_double_backward(pac_crf, *crf_inputs((1, 2, 4, 4)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_float32(dtype):
    unary, guide, weight = crf_inputs((1, 3, 5, 5), dtype=torch.float32)
    half = guide.to(dtype)  # as a layer under autocast gives it
    with torch.autocast(torch.get_default_device().type, dtype):
        actual = pac_crf(unary, half, weight)
        convolved = pac_conv2d(unary, half, weight)
    assert_close(actual, reference.pac_crf(unary, half.float(), weight))
    assert_close(convolved, reference.pac_conv2d(unary, half.float(), weight))


X = torch.zeros(1, 2, 4, 4)
W = torch.zeros(2, 2, 3, 3)


@pytest.mark.parametrize("operator", [pac_conv2d, pac_crf])
@pytest.mark.parametrize(
    ("error", "message", "x", "guide", "weight", "options"),
    [
        (TypeError, "expected a floating-point tensor, got torch.int64", X.long(), X, W, {}),
        (TypeError, "expected a tensor, got list", X, [1], W, {}),
        (TypeError, "dtype torch.float32, got torch.float64", X, X.double(), W, {}),
        (ValueError, r"expected \[B, C, H, W\], got shape \(4, 4\)", X[0, 0], X, W, {}),
        (ValueError, r"guide: expected shape \(1, G, 4, 4\), got \(1, 2, 4, 3\)", X, X[..., 1:], W, {}),
        (ValueError, r"guide: expected shape \(1, G, 4, 4\), got \(2, 2, 4, 4\)", X, X.expand(2, -1, -1, -1), W, {}),
        (ValueError, r"square window of odd size, got shape \(2, 2, 2, 2\)", X, X, W[..., :2, :2], {}),
        (ValueError, r"square window of odd size, got shape \(2, 2, 3, 1\)", X, X, W[..., :1], {}),
        (ValueError, r"weight: expected .* got shape \(2, 3, 3, 3\)", X, X, torch.zeros(2, 3, 3, 3), {}),
        (ValueError, "dilation: expected at least 1, got 0", X, X, W, {"dilation": 0}),
        (TypeError, "dilation: expected an integer, got 1.5", X, X, W, {"dilation": 1.5}),
    ],
)
def test_wrong_input(operator, error, message, x, guide, weight, options):
    with pytest.raises(error, match=message):
        operator(x, guide, weight, **options)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, r"bias: expected shape \(2,\), got \(3,\)", lambda: pac_conv2d(X, X, W, torch.zeros(3))),
        (ValueError, r"compatibility: expected shape \(2, 2\)", lambda: pac_crf(X, X, W, torch.zeros(3, 3))),
        (ValueError, r"weight: expected \[2, 2, k, k\]", lambda: pac_crf(X, X, torch.zeros(3, 2, 3, 3))),
        (ValueError, "steps: expected at least 0, got -1", lambda: pac_crf(X, X, W, steps=-1)),
        (ValueError, "expected one of softmax, sigmoid", lambda: pac_crf(X, X, W, activation="tanh")),
        (ValueError, "unary_weight: expected one element", lambda: pac_crf(X, X, W, unary_weight=torch.ones(2))),
        (TypeError, "unary_weight: expected a number", lambda: pac_crf(X, X, W, unary_weight="1")),
    ],
)
def test_wrong_option(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_layouts_are_not_trivial():
    """The layouts these tests rely on do differ from the default one."""
    x = torch.zeros(2, 3, 5, 6)
    assert all(not laid_out(x, layout).is_contiguous() for layout in LAYOUTS if layout != "contiguous")
