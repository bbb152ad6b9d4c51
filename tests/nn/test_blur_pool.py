"""BlurPool2d and MaxBlurPool2d: the operators as modules, in the places where torch's and timm's layers stand."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from cxrfast import reference
from cxrfast.nn import BlurPool2d, MaxBlurPool2d
from tests.interpreter import run_code
from tests.ops.inputs import tensor
from tests.tolerances import assert_close


def test_they_are_the_operators():
    x = tensor((2, 3, 12, 11))
    options = {"filter_size": 3, "stride": 3, "padding_mode": "zeros"}
    assert_close(BlurPool2d(3, **options)(x), reference.blur_pool2d(x, **options))
    expected = reference.max_blur_pool2d(x, kernel_size=3, padding=1, **options)
    assert_close(MaxBlurPool2d(3, padding=1, **options)(x), expected)


@pytest.mark.parametrize("module", [BlurPool2d(4), BlurPool2d(ceil_mode=False), MaxBlurPool2d(), MaxBlurPool2d(3)])
def test_no_state(module):
    assert not module.state_dict()
    assert not list(module.buffers())
    assert "filter_size=4" in repr(module)


def test_blur_pool_without_ceil_mode_has_the_size_of_avg_pool():
    for height, width in ((8, 8), (9, 8), (7, 11)):
        x = tensor((1, 2, height, width))
        out = BlurPool2d(ceil_mode=False)(x)
        assert out.shape == nn.AvgPool2d(2)(x).shape
        assert_close(out, reference.blur_pool2d(x[..., : height // 2 * 2, : width // 2 * 2]))
    with pytest.raises(ValueError, match="height and width of at least 2"):
        BlurPool2d(ceil_mode=False)(torch.zeros(1, 1, 1, 4))


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    kernel_size=st.integers(1, 5),
    stride=st.integers(1, 5),
    ceil_mode=st.booleans(),
    data=st.data(),
)
def test_max_blur_pool_has_the_size_of_max_pool(height, width, kernel_size, stride, ceil_mode, data):
    padding = data.draw(st.integers(0, kernel_size // 2))
    assume(min(height, width) + 2 * padding >= kernel_size)
    x = tensor((1, 1, height, width), dtype=torch.float64)
    expected = nn.MaxPool2d(kernel_size, stride, padding, ceil_mode=ceil_mode)(x)
    # Without a blur even the values are those of max-pool, so the padding is at the right end.
    assert_close(_max_blur(kernel_size, stride, padding, ceil_mode, filter_size=1, padding_mode="zeros")(x), expected)
    blurred = _max_blur(kernel_size, stride, padding, ceil_mode, padding_mode="replicate")(x)
    assert blurred.shape == expected.shape
    assert blurred.isfinite().all()


def _max_blur(kernel_size, stride, padding, ceil_mode, **options):
    return MaxBlurPool2d(kernel_size, stride, padding, ceil_mode=ceil_mode, **options)


@pytest.mark.parametrize("arguments", [(2,), (3,), (3, 2), (3, 2, 1), (4, 3, 2)])
def test_max_blur_pool_takes_the_arguments_of_max_pool(arguments):
    x = tensor((1, 2, 19, 16))
    plain, blurred = nn.MaxPool2d(*arguments), MaxBlurPool2d(*arguments)
    assert (blurred.kernel_size, blurred.stride, blurred.padding) == (plain.kernel_size, plain.stride, plain.padding)
    assert blurred(x).shape == plain(x).shape
    with pytest.raises(TypeError, match="positional arguments"):
        MaxBlurPool2d(3, 2, 1, 1)  # nn.MaxPool2d's fourth is the dilation


def test_maps_too_small_to_reflect():
    x = tensor((1, 2, 2, 9))
    for module in (BlurPool2d(), MaxBlurPool2d(1, 2)):
        with pytest.raises(ValueError, match="expected height and width over 2, got 2x9"):
            module(x)
    for module in (BlurPool2d(small_maps="replicate"), MaxBlurPool2d(1, 2, small_maps="replicate")):
        with pytest.warns(UserWarning, match="padded by 'replicate' instead"):
            out = module(x)
        assert_close(out, reference.blur_pool2d(x, padding_mode="replicate"))
        larger = tensor((1, 2, 8, 9))
        assert_close(module(larger), reference.blur_pool2d(larger))


@pytest.mark.parametrize(
    ("error", "message", "make"),
    [
        (ValueError, "filter_size: expected in 1..7, got 9", lambda: BlurPool2d(filter_size=9)),
        (TypeError, "stride: expected an integer, got 2.0", lambda: BlurPool2d(stride=2.0)),
        (ValueError, "padding_mode: expected one of reflect", lambda: BlurPool2d(padding_mode="constant")),
        (ValueError, "padding: expected in 0..1, got 2", lambda: MaxBlurPool2d(3, padding=2)),
        (ValueError, "kernel_size: expected in 1..32767, got 0", lambda: MaxBlurPool2d(0)),
    ],
)
def test_wrong_options_are_refused_when_the_module_is_made(error, message, make):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenetv2_100"])
def test_timm_takes_it_as_aa_layer(name):
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, aa_layer=BlurPool2d, in_chans=1, num_classes=2)
    plain = timm.create_model(name, in_chans=1, num_classes=2)
    assert sum(isinstance(module, BlurPool2d) for module in model.modules()) >= 4
    x = tensor((2, 1, 64, 64))
    assert model.forward_features(x).shape == plain.forward_features(x).shape
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}


def test_import_needs_torch_only():
    code = "import sys, cxrfast.nn; print({'torchvision', 'timm', 'cv2', 'numpy.f2py'} & set(sys.modules))"
    assert run_code(code).stdout.strip() == "set()"
