"""max_blur_pool2d against its reference, and the promises every operator makes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cxrfast import reference
from cxrfast.ops import blur_pool2d, max_blur_pool2d
from tests.ops.checks import check_against_reference, check_compiles, check_no_double_backward
from tests.ops.inputs import FLOATS, LAYOUTS, tensor
from tests.tolerances import assert_close

PADDINGS = ("reflect", "replicate", "zeros")


def check(x, **options):
    check_against_reference(
        lambda x: max_blur_pool2d(x, **options), lambda x: reference.max_blur_pool2d(x, **options), x
    )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("kernel_size", "padding"), [(1, 0), (2, 0), (2, 1), (3, 1), (5, 0)])
def test_equals_reference(dtype, layout, kernel_size, padding):
    x = tensor((2, 5, 21, 12), dtype=dtype, layout=layout)
    for padding_mode in PADDINGS:
        check(x, kernel_size=kernel_size, padding=padding, filter_size=4, padding_mode=padding_mode)


@settings(max_examples=80, deadline=None)
@given(
    batch=st.integers(0, 3),
    channels=st.integers(1, 5),
    height=st.integers(1, 40),
    width=st.integers(1, 20),
    kernel_size=st.integers(1, 5),
    filter_size=st.integers(1, 7),
    stride=st.integers(1, 4),
    padding_mode=st.sampled_from(PADDINGS),
    layout=st.sampled_from(LAYOUTS),
    levels=st.sampled_from([None, 2]),
    data=st.data(),
)
def test_equals_reference_for_any_shape(
    batch, channels, height, width, kernel_size, filter_size, stride, padding_mode, layout, levels, data
):
    padding = data.draw(st.integers(0, kernel_size // 2))
    map_size = min(height, width) + 2 * padding - kernel_size + 1
    assume(map_size > (filter_size // 2 if padding_mode == "reflect" else 0))
    x = tensor((batch, channels, height, width), dtype=torch.float64, layout=layout)
    if levels:  # many equal maxima: the gradient must go to the one that max_pool2d chooses
        x = x.mul(levels).round()
    options = {"kernel_size": kernel_size, "filter_size": filter_size, "stride": stride}
    check(x, padding_mode=padding_mode, padding=padding, **options)
    if batch:
        plain = F.max_pool2d(x, kernel_size, stride=stride, padding=padding)
        assert max_blur_pool2d(x, padding_mode="zeros", padding=padding, **options).shape == plain.shape


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_special_values_spread_and_take_the_gradient_as_in_max_pool(value, layout):
    x = tensor((1, 3, 9, 9), dtype=torch.float64, layout=layout)
    x[:, :, 4, 4:6] = value
    check(x, kernel_size=3, filter_size=1, stride=1)
    check(x, kernel_size=3, filter_size=1, stride=2, padding=1)
    out = max_blur_pool2d(x)
    assert_close(out, reference.max_blur_pool2d(x))
    assert out.isfinite().all() == (value == float("-inf"))


def test_nothing_but_negative_infinity():
    x = torch.full((1, 1, 6, 6), float("-inf"))
    check(x, kernel_size=3, filter_size=1, stride=1, padding=1)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_large_windows_and_strides(layout):
    check(tensor((1, 2, 60, 50), layout=layout), kernel_size=25, padding=7, filter_size=3)
    check(tensor((1, 40, 30, 33), layout=layout), kernel_size=20, filter_size=5, stride=1)
    check(tensor((1, 3, 70, 130), layout=layout), filter_size=3, stride=50)


def test_constant_map_and_large_values():
    x = torch.full((1, 2, 8, 8), -50.0)
    assert_close(max_blur_pool2d(x), torch.full((1, 2, 4, 4), -50.0))
    check(x, kernel_size=3, padding=1)
    check(tensor((1, 2, 8, 8), scale=50))


def test_without_a_filter_it_is_max_pool():
    x = tensor((2, 3, 17, 14))
    assert torch.equal(max_blur_pool2d(x, kernel_size=3, filter_size=1, padding=1), F.max_pool2d(x, 3, 2, 1))


def test_without_a_window_it_is_blur_pool():
    x = tensor((2, 3, 17, 14))
    assert_close(max_blur_pool2d(x, kernel_size=1), blur_pool2d(x))


def test_deterministic_whatever_the_number_of_threads():
    x = tensor((1, 4, 70, 33), layout="channels_last")
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaf = x.clone().requires_grad_()
            max_blur_pool2d(leaf, kernel_size=3, padding=1).square().sum().backward()
            results.append(leaf.grad)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_keeps_channels_last():
    x = tensor((2, 3, 8, 8), layout="channels_last").requires_grad_()
    out = max_blur_pool2d(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    out.sum().backward()
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 0, 8, 8), (2, 3, 0, 8), (2, 3, 0, 0)])
def test_empty(shape):
    x = torch.zeros(shape, requires_grad=True)
    out = max_blur_pool2d(x)
    assert out.shape == reference.max_blur_pool2d(x).shape
    out.sum().backward()
    assert x.grad.shape == shape


def test_one_pixel():
    x = torch.full((1, 1, 1, 1), 2.0)
    assert max_blur_pool2d(x, kernel_size=3, padding=1, padding_mode="replicate").item() == pytest.approx(2.0)


def test_gradcheck():
    x = tensor((1, 2, 9, 6), dtype=torch.float64, layout="contiguous").requires_grad_()
    assert torch.autograd.gradcheck(lambda x: max_blur_pool2d(x, kernel_size=3, padding=1, filter_size=3), x)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout):
    x = tensor((2, 3, 8, 7), layout=layout).requires_grad_()
    torch.library.opcheck(torch.ops.cxrfast.max_blur_pool2d.default, (x, 2, 4, 2, 0, 0))
    grad = max_blur_pool2d(x).detach()
    torch.library.opcheck(torch.ops.cxrfast._max_blur_pool2d_backward.default, (grad, x.detach(), 2, 4, 2, 0, 0))


def test_compiles():
    check_compiles(max_blur_pool2d, tensor((2, 3, 8, 8)))


def test_compiles_with_dynamic_sizes():
    compiled = torch.compile(max_blur_pool2d, fullgraph=True, backend="aot_eager", dynamic=True)
    for size in (8, 11, 16):
        x = tensor((2, 3, size, size + 2))
        assert_close(compiled(x), max_blur_pool2d(x))


def test_double_backward_is_refused():
    check_no_double_backward(max_blur_pool2d, tensor((1, 1, 5, 5)))


@pytest.mark.parametrize(
    ("error", "message", "x", "options"),
    [
        (TypeError, "expected a floating-point tensor, got torch.int64", torch.zeros(1, 1, 4, 4).long(), {}),
        (ValueError, r"expected \[B, C, H, W\], got shape \(4, 4\)", torch.zeros(4, 4), {}),
        (ValueError, "kernel_size: expected in 1..32767, got 0", torch.zeros(1, 1, 9, 9), {"kernel_size": 0}),
        (ValueError, "filter_size: expected in 1..7, got 8", torch.zeros(1, 1, 9, 9), {"filter_size": 8}),
        (ValueError, "stride: expected at least 1, got 0", torch.zeros(1, 1, 9, 9), {"stride": 0}),
        (ValueError, "padding: expected in 0..1, got 2", torch.zeros(1, 1, 9, 9), {"padding": 2}),
        (ValueError, "expected one of reflect, replicate, zeros", torch.zeros(1, 1, 9, 9), {"padding_mode": "wrap"}),
        (ValueError, "height and width of at least 4, got 3x9", torch.zeros(1, 1, 3, 9), {"kernel_size": 4}),
        (ValueError, "after the maximum: .* over 2, got 2x8", torch.zeros(1, 1, 3, 9), {}),
    ],
)
def test_wrong_input(error, message, x, options):
    with pytest.raises(error, match=message):
        max_blur_pool2d(x, **options)
