"""Outputs and gradients have the memory format of the input, whatever that of the incoming gradient."""

import pytest
import torch

from cxrfast import ops
from cxrfast.nn import BlurPool2d, MaxBlurPool2d
from tests.ops.inputs import random_mask, tensor
from tests.tolerances import assert_close

SHAPE = (2, 4, 9, 11)
OPERATORS = {
    "blur_pool2d": ops.blur_pool2d,
    "max_blur_pool2d": ops.max_blur_pool2d,
    "cropped": BlurPool2d(ceil_mode=False),
    "last window": MaxBlurPool2d(2, 2, ceil_mode=True),
    "pac_conv2d": lambda x: ops.pac_conv2d(x, 0.5 * x, tensor((5, 4, 3, 3), seed=1)),
    "pac_crf": lambda x: ops.pac_crf(x, 0.5 * x, tensor((1, 1, 3, 3), seed=1, scale=0.1)),
    "mil_pool": lambda x: ops.mil_pool(x, "lse"),
    "region_sums": lambda x: ops.region_sums(x, random_mask(SHAPE)).inside,
    "box_log_likelihood": lambda x: ops.box_log_likelihood(x, random_mask(SHAPE)),
    "self_guided_sums": lambda x: ops.self_guided_sums(x, random_mask(SHAPE[:2])).soft,
}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("incoming", [*FORMATS, "expanded"])
def test_format_is_kept(name, layout, incoming):
    x = tensor(SHAPE, layout=layout).requires_grad_()
    out = OPERATORS[name](x)
    grad_out = tensor(out.shape, seed=3, layout="contiguous")
    if incoming == "expanded":
        grad_out = torch.ones((), device=x.device).expand(out.shape)
    elif out.dim() == 4:
        grad_out = grad_out.contiguous(memory_format=FORMATS[incoming])
    (grad,) = torch.autograd.grad(out, x, grad_out)  # not x.grad, which torch copies to the format of x
    assert grad.is_contiguous(memory_format=FORMATS[layout])
    if out.dim() == 4:
        assert out.is_contiguous(memory_format=FORMATS[layout])

    plain = x.detach().contiguous().requires_grad_()
    expected = OPERATORS[name](plain)
    assert_close(out, expected)
    assert_close(grad, torch.autograd.grad(expected, plain, grad_out.contiguous())[0])


@pytest.mark.parametrize("pool", [ops.blur_pool2d, ops.max_blur_pool2d])
def test_a_part_of_a_channels_last_image(pool):
    image = tensor((2, 4, 12, 14), layout="channels_last")[..., 1:10, 2:13]
    out = pool(image)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert_close(out, pool(image.contiguous()))
