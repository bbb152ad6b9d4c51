"""Every operator gives the same bits in whatever order its blocks and threads run, forward and backward."""

from collections.abc import Callable, Iterator

import pytest
import torch

from cxrfast import ops
from cxrfast.ops import _registration
from cxrfast.ops.self_guiding import pooled_and_stacked_sums
from tests.cuda_emulation import build
from tests.cuda_emulation.backend import emulated_kernels
from tests.ops.inputs import random, tensor

X = tensor((2, 3, 19, 23), scale=3)
GUIDE, WEIGHT = tensor((2, 4, 19, 23), scale=0.2, seed=1), tensor((3, 3, 5, 5), scale=0.1, seed=2)
MASK = random(torch.rand, X.shape, seed=3) < 0.4
HASHES, LABELS = (random(torch.randint, 0, n, (700,), seed=n) for n in (2**10, 2**3))
OFFSETS = torch.tensor([0, 5, 5, 700, 874])

POSITIVE = torch.tensor([[True, False, True]] * 4)

# Each operator beside its gradient, on tensors that are differentiated.
CALLS: dict[str, tuple[Callable[..., object], tuple[torch.Tensor, ...]]] = {
    "blur_pool2d": (ops.blur_pool2d, (X,)),
    "max_blur_pool2d": (ops.max_blur_pool2d, (X,)),
    "connected_components": (lambda: ops.connected_components(MASK), ()),
    "component_boxes": (lambda: ops.component_boxes(X, 0.5), ()),
    "hamming_topk": (
        lambda: ops.hamming_topk(
            HASHES[:9], HASHES, 40, query_labels=LABELS[:9], labels=LABELS, rule="disjoint", farthest=True
        ),
        (),
    ),
    "pac_conv2d": (ops.pac_conv2d, (X, GUIDE, WEIGHT)),
    "pac_crf": (ops.pac_crf, (X, GUIDE, WEIGHT)),
    "mil_pool": (lambda x, s: ops.mil_pool(x, "lse", sharpness=s), (X, torch.full((3,), 2.0))),
    "mil_pool_ragged": (lambda x: ops.mil_pool_ragged(x, OFFSETS), (X.movedim(1, 3).reshape(-1, 3),)),
    "region_sums": (lambda x: ops.region_sums(x, MASK), (X,)),
    "box_log_likelihood": (lambda x: ops.box_log_likelihood(x, MASK), (X,)),
    "self_guided_sums": (lambda x: ops.self_guided_sums(x, POSITIVE[:2], mask=MASK), (X,)),
    "self_guided_sums_ragged": (
        lambda x: ops.self_guided_sums_ragged(x, OFFSETS, POSITIVE)[:7],  # the others are NaN in an empty bag
        (X.movedim(1, 3).reshape(-1, 3),),
    ),
    "self_guided_pool": (
        lambda x: pooled_and_stacked_sums(x, POSITIVE[:2], None, "softmax", None, 0.3, True, "lower"),
        (X,),
    ),
}


@pytest.fixture(autouse=True, scope="module")
def backend() -> Iterator[None]:
    with emulated_kernels():
        yield


def test_every_operator_is_called_here():
    called = {*CALLS, *(f"_{name}_backward" for name in CALLS)}
    assert {name.removesuffix("_static") for name in _registration.OPERATORS} <= called


@pytest.mark.parametrize("name", CALLS)
def test_same_bits_in_every_order(name):
    function, tensors = CALLS[name]
    results = []
    for seed in (0, 1, 2, 3):  # ascending, descending, shuffled
        build.set_seed(seed)
        inputs = [x.detach().clone().requires_grad_() for x in tensors]
        output = function(*inputs)
        outputs = [output] if isinstance(output, torch.Tensor) else list(output)
        floats = [x for x in outputs if x.requires_grad]
        grads = torch.autograd.grad([x.square().sum() for x in floats], inputs) if floats else ()
        results.append([*(x.detach() for x in outputs), *grads])
    for other in results[1:]:
        for first, again in zip(results[0], other, strict=True):
            assert torch.equal(first, again)
