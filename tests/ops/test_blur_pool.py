"""blur_pool2d against its reference, and the promises every operator makes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from cxrfast import reference
from cxrfast.ops import blur_pool2d, max_blur_pool2d
from tests.ops.checks import check_against_reference, check_compiles
from tests.ops.inputs import FLOATS, LAYOUTS, tensor
from tests.tolerances import assert_close

PADDINGS = ("reflect", "replicate", "zeros")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_equals_reference(dtype, layout, padding_mode):
    x = tensor((2, 5, 9, 12), dtype=dtype, layout=layout)
    for filter_size in (1, 3, 4, 7):
        options = {"filter_size": filter_size, "stride": 2, "padding_mode": padding_mode}
        check_against_reference(lambda x: blur_pool2d(x, **options), lambda x: reference.blur_pool2d(x, **options), x)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(0, 3),
    channels=st.integers(1, 5),
    height=st.integers(4, 20),
    width=st.integers(4, 20),
    filter_size=st.integers(1, 7),
    stride=st.integers(1, 4),
    padding_mode=st.sampled_from(PADDINGS),
    layout=st.sampled_from(LAYOUTS),
)
def test_equals_reference_for_any_shape(batch, channels, height, width, filter_size, stride, padding_mode, layout):
    x = tensor((batch, channels, height, width), dtype=torch.float64, layout=layout)
    options = {"filter_size": filter_size, "stride": stride, "padding_mode": padding_mode}
    out = blur_pool2d(x, **options)
    assert out.shape[2:] == ((height - 1) // stride + 1, (width - 1) // stride + 1)
    check_against_reference(lambda x: blur_pool2d(x, **options), lambda x: reference.blur_pool2d(x, **options), x)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_wide_images_and_large_strides(layout):
    for shape, stride in (((1, 2, 9, 600), 2), ((1, 8, 40, 31), 7), ((1, 1, 5, 700), 300), ((3, 16, 8, 24), 1)):
        x = tensor(shape, layout=layout)
        options = {"filter_size": 5, "stride": stride}
        check_against_reference(lambda x: blur_pool2d(x, **options), lambda x: reference.blur_pool2d(x, **options), x)


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate"])
def test_keeps_a_constant_and_the_range(padding_mode):
    constant = torch.full((1, 1, 8, 8), 3e4)
    assert_close(blur_pool2d(constant, padding_mode=padding_mode), torch.full((1, 1, 4, 4), 3e4))
    x = tensor((1, 1, 16, 16), dtype=torch.float64)
    out = blur_pool2d(x, padding_mode=padding_mode)
    assert x.min() <= out.min()
    assert out.max() <= x.max()


def test_keeps_channels_last():
    x = tensor((2, 3, 8, 8), layout="channels_last")
    assert blur_pool2d(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("pool", [blur_pool2d, max_blur_pool2d])
def test_keeps_channels_last_of_one_image(pool):
    """An [H, W, C] picture permuted and unsqueezed is channels_last, with any stride in its batch dimension."""
    x = tensor((8, 9, 3), layout="contiguous").permute(2, 0, 1)[None]
    assert pool(x).is_contiguous(memory_format=torch.channels_last)
    assert_close(pool(x), pool(x.contiguous()))
    with FakeTensorMode() as mode:
        fake = pool(mode.from_tensor(x))
    assert fake.stride() == pool(x).stride()  # else inductor's assertion fails


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 0, 8, 8), (2, 3, 0, 8), (2, 3, 0, 0)])
def test_empty(shape):
    x = torch.zeros(shape, requires_grad=True)
    out = blur_pool2d(x)
    assert out.shape == reference.blur_pool2d(x).shape
    out.sum().backward()
    assert x.grad.shape == shape


@pytest.mark.parametrize("shape", [(2, 3, 2, 0), (2, 3, 0, 1), (0, 3, 0, 2)])
def test_empty_and_too_short_to_reflect(shape):
    # The other side is shorter than the filter's overhang: the taps that reflect lie nowhere.
    x = torch.zeros(shape, requires_grad=True)
    blur_pool2d(x, filter_size=7).sum().backward()
    assert x.grad.shape == shape


def test_one_pixel():
    x = torch.full((1, 1, 1, 1), 2.0)
    assert blur_pool2d(x, padding_mode="replicate").item() == pytest.approx(2.0)


def test_gradcheck():
    x = tensor((1, 2, 6, 5), dtype=torch.float64, layout="contiguous").requires_grad_()
    assert torch.autograd.gradcheck(lambda x: blur_pool2d(x, filter_size=3, stride=2), x)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout):
    x = tensor((2, 3, 8, 7), layout=layout).requires_grad_()
    torch.library.opcheck(torch.ops.cxrfast.blur_pool2d.default, (x, 4, 2, 0))
    torch.library.opcheck(torch.ops.cxrfast._blur_pool2d_backward.default, (blur_pool2d(x).detach(), 8, 7, 4, 2, 0))


def test_compiles():
    check_compiles(blur_pool2d, tensor((2, 3, 8, 8)))


def test_double_backward():
    x = tensor((1, 1, 4, 5), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(blur_pool2d, x)


@pytest.mark.parametrize(
    ("error", "message", "x", "options"),
    [
        (TypeError, "expected a floating-point tensor, got torch.int64", torch.zeros(1, 1, 4, 4).long(), {}),
        (ValueError, r"expected \[B, C, H, W\], got shape \(4, 4\)", torch.zeros(4, 4), {}),
        (ValueError, "filter_size: expected in 1..7, got 8", torch.zeros(1, 1, 9, 9), {"filter_size": 8}),
        (ValueError, "stride: expected at least 1, got 0", torch.zeros(1, 1, 9, 9), {"stride": 0}),
        (ValueError, "stride: expected in 1..9223372036854775807", torch.zeros(1, 1, 9, 9), {"stride": 2**63}),
        (TypeError, "stride: expected an integer, got 2.0", torch.zeros(1, 1, 9, 9), {"stride": 2.0}),
        (ValueError, "expected one of reflect, replicate, zeros", torch.zeros(1, 1, 9, 9), {"padding_mode": "wrap"}),
        (ValueError, "expected one of reflect, replicate, zeros", torch.zeros(1, 1, 9, 9), {"padding_mode": ["zeros"]}),
        (ValueError, "height and width over 2, got 2x9", torch.zeros(1, 1, 2, 9), {}),
    ],
)
def test_wrong_input(error, message, x, options):
    with pytest.raises(error, match=message):
        blur_pool2d(x, **options)
