"""The operators under torch.func and in forward mode: grad, vmap, jvp, and per-sample gradients."""

import functools
import warnings

import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp

from cxrfast import ops
from tests.ops.inputs import random_mask, tensor
from tests.tolerances import assert_close

# The functions below make the same random masks and weights in every call.
vmap = functools.partial(torch.func.vmap, randomness="same")

MODES = ("noisy_or", "mean", "max", "lse", "softmax", "linear_softmax", "generalized_mean")
SHAPE = (2, 3, 5, 6)
MASK = (2, 1, 5, 6)


def f64(shape, seed=0, scale=1.0):
    return tensor(shape, dtype=torch.float64, seed=seed, scale=scale)


def guide():
    return f64((2, 2, 5, 6), seed=1, scale=0.5)


def weight():
    return f64((4, 3, 3, 3), seed=2, scale=0.3)


def labels(shape=(2, 3)):
    return random_mask(shape, seed=4)


def first_four(sums):
    return torch.stack(sums[:4])


FUNCTIONS = {
    "blur_pool2d": lambda x: ops.blur_pool2d(x, filter_size=3),
    "max_blur_pool2d": lambda x: ops.max_blur_pool2d(x, kernel_size=3, padding=1, filter_size=3),
    **{f"mil_pool {mode}": lambda x, mode=mode: ops.mil_pool(x, mode) for mode in MODES},
    "mil_pool masked": lambda x: ops.mil_pool(x, "lse", mask=random_mask(MASK)),
    "mil_pool_ragged": lambda x: ops.mil_pool_ragged(x.flatten(1).T, torch.tensor([0, 4, 4, 90]), "lse"),
    "region_sums": lambda x: torch.stack(ops.region_sums(x, random_mask(MASK))[:2]),
    "box_log_likelihood": lambda x: ops.box_log_likelihood(x, random_mask(MASK), floor=0.1),
    "self_guided_sums": lambda x: first_four(ops.self_guided_sums(x, labels())),
    "self_guided_sums_ragged": lambda x: first_four(
        ops.self_guided_sums_ragged(x.flatten(1).T, torch.tensor([0, 4, 90]), labels((2, 2)))
    ),
    "pac_conv2d": lambda x: ops.pac_conv2d(x, guide(), weight()),
    "pac_crf": lambda x: ops.pac_crf(x, guide(), 0.1 * weight()[:3], steps=2),
}
FORWARD = [
    name for name in FUNCTIONS if name.split()[0] not in ("pac_crf", "self_guided_sums") and "ragged" not in name
]


@pytest.fixture(autouse=True)
def no_loop_of_torch():
    """torch warns if it calls an operator once per element, because it has no batching rule."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)  # torch's own import
        yield


@pytest.mark.parametrize("name", FUNCTIONS)
def test_grad_and_vjp(name):
    function, x = FUNCTIONS[name], f64(SHAPE)
    leaf = x.clone().requires_grad_()
    out = function(leaf)
    (expected,) = torch.autograd.grad(out.square().sum(), leaf)
    assert_close(grad(lambda x: function(x).square().sum())(x), expected)
    value, pull = vjp(function, x)
    assert_close(value, out.detach())
    assert_close(pull(2 * value)[0], expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_vmap_and_gradients_per_sample(name):
    function = FUNCTIONS[name]
    batch = torch.stack([f64(SHAPE, seed=seed) for seed in range(3)], 1)
    assert_close(vmap(function, 1)(batch), torch.stack([function(x) for x in batch.unbind(1)]))
    assert_close(vmap(function, 1, 1)(batch), torch.stack([function(x) for x in batch.unbind(1)], 1))
    one = grad(lambda x: function(x).square().sum())
    assert_close(vmap(one, 1)(batch), torch.stack([one(x) for x in batch.unbind(1)]))


@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode_is_the_transpose_of_backward_mode(name):
    function, x = FUNCTIONS[name], f64(SHAPE)
    value, pushed = jvp(function, (x,), (f64(SHAPE, seed=5),))
    assert_close(value, function(x))
    weights = f64(value.shape, seed=6)
    pulled = vjp(function, x)[1](weights)[0]
    assert_close((weights * pushed).sum(), (pulled * f64(SHAPE, seed=5)).sum())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, f64(SHAPE, seed=5))
        assert_close(torch.autograd.forward_ad.unpack_dual(function(dual)).tangent, pushed)


@pytest.mark.parametrize("name", ["blur_pool2d", "mil_pool lse", "region_sums"])
def test_jacobians(name):
    function, x, mask = FUNCTIONS[name], f64(SHAPE), random_mask(MASK)
    if name == "region_sums":
        function = lambda x: torch.stack(ops.region_sums(x, mask)[:2])  # noqa: E731
    expected = torch.autograd.functional.jacobian(function, x)
    assert_close(jacrev(function)(x), expected)
    assert_close(jacfwd(function)(x), expected)


def test_every_derivative_of_the_blur():
    x = f64((1, 2, 6, 7)).requires_grad_()
    for options in ({}, {"filter_size": 3, "stride": 3, "padding_mode": "zeros"}):
        blur = lambda x, options=options: ops.blur_pool2d(x, **options)  # noqa: E731
        assert torch.autograd.gradcheck(blur, x, check_forward_ad=True, check_backward_ad=True)
        assert torch.autograd.gradgradcheck(blur, x)
        assert torch.autograd.gradgradcheck(blur, x, check_fwd_over_rev=True)
        small = x.detach()[..., :4, :4]
        cubed = lambda x, blur=blur: blur(x).pow(3).sum()  # noqa: E731
        twice = torch.autograd.functional.hessian(cubed, small)
        assert_close(hessian(cubed)(small), twice)


def test_vmap_over_other_arguments():
    x, maps = f64(SHAPE), f64((3, *SHAPE), seed=7)
    sharpness, masks = f64((4, 3), seed=8).abs(), random_mask((4, 2, 1, 5, 6), seed=9)

    def pool(x, r, m):
        return ops.mil_pool(x, "lse", sharpness=r, mask=m)

    assert_close(vmap(pool, (None, 0, None))(x, sharpness, None), torch.stack([pool(x, r, None) for r in sharpness]))
    assert_close(
        vmap(pool, (None, None, 0))(x, sharpness[0], masks), torch.stack([pool(x, sharpness[0], m) for m in masks])
    )
    both = vmap(pool, (None, 0, 0))(x, sharpness, masks)
    assert_close(both, torch.stack([pool(x, r, m) for r, m in zip(sharpness, masks, strict=True)]))
    nested = vmap(vmap(pool, (None, 0, None)), (0, None, None))(maps, sharpness, masks[0])
    assert_close(nested, torch.stack([torch.stack([pool(y, r, masks[0]) for r in sharpness]) for y in maps]))

    slopes = vmap(grad(lambda r: pool(x, r, None).sum()))(sharpness)
    leaf = sharpness.clone().requires_grad_()
    (expected,) = torch.autograd.grad(sum(pool(x, r, None).sum() for r in leaf), leaf)
    assert_close(slopes, expected)

    sums = vmap(lambda m: torch.stack(ops.region_sums(x, m)), 0)(masks)
    assert_close(sums, torch.stack([torch.stack(ops.region_sums(x, m)) for m in masks]))


def test_per_sample_gradients_of_weights():
    xs, guides, w = f64((4, 1, 3, 5, 6)), f64((4, 1, 2, 5, 6), seed=1), weight()
    loss = lambda w, x, g: ops.pac_conv2d(x, g, w, w[:, 0, 0, 0]).square().sum()  # noqa: E731
    each = vmap(grad(loss), (None, 0, 0))(w, xs, guides)
    assert_close(each, torch.stack([grad(loss)(w, x, g) for x, g in zip(xs, guides, strict=True)]))
    ensemble = vmap(lambda w: ops.pac_conv2d(xs[0], guides[0], w))(torch.stack([w, 2 * w]))
    assert_close(ensemble[1], ops.pac_conv2d(xs[0], guides[0], 2 * w))


def test_forward_mode_of_other_arguments():
    x, w, b = f64(SHAPE), weight(), f64((4,))
    for args in ((0, x), (2, w), (3, b)):
        inputs = [x, guide(), w, b]
        vary = lambda t, at=args[0], inputs=inputs: ops.pac_conv2d(*[*inputs[:at], t, *inputs[at + 1 :]])  # noqa: E731
        tangent = f64(args[1].shape, seed=3)
        value, pushed = jvp(vary, (args[1],), (tangent,))
        pulled = vjp(vary, args[1])[1](value)[0]
        assert_close((value * pushed).sum(), (pulled * tangent).sum())
    r = f64((3,)).abs()
    pool = lambda r: ops.mil_pool(x, "generalized_mean", sharpness=r)  # noqa: E731
    assert_close(jacfwd(pool)(r), torch.autograd.functional.jacobian(pool, r))


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: ops.pac_crf(x, guide(), 0.1 * weight()[:3]),
        lambda x: ops.pac_conv2d(f64(SHAPE), x[:, :2], weight()),
        lambda x: ops.self_guided_sums(x, labels()).soft,
        lambda x: ops.mil_pool_ragged(x.flatten(1).T, torch.tensor([0, 90])),
        lambda x: ops.component_boxes(x, 0.5).peak,
    ],
)
def test_forward_mode_is_refused_where_there_is_none(refused):
    """torch would drop the tangent, and the derivative would be zero."""
    x = f64(SHAPE)
    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        jvp(refused, (x,), (x,))


@pytest.mark.parametrize("name", ["max_blur_pool2d", "mil_pool lse", "region_sums", "pac_conv2d", "pac_crf"])
def test_second_derivatives_are_refused_where_there_are_none(name):
    with pytest.raises(RuntimeError, match="double backward is not supported"):
        grad(lambda x: grad(lambda y: FUNCTIONS[name](y).square().sum())(x).square().sum())(f64(SHAPE))


def test_autocast():
    x = tensor(SHAPE, dtype=torch.bfloat16)
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        slopes = grad(lambda x: ops.mil_pool(x).sum())(x)
        leaf = x.clone().requires_grad_()
        ops.mil_pool(leaf).sum().backward()
    assert slopes.dtype == torch.bfloat16
    assert_close(slopes, leaf.grad)


def test_inside_compile():
    x, t = f64(SHAPE), f64(SHAPE, seed=1)
    function = FUNCTIONS["blur_pool2d"]
    for transformed in (
        lambda x: jvp(function, (x,), (t,))[1],  # runs without compilation
        grad(lambda x: function(x).square().sum()),
        lambda x: vmap(function)(torch.stack([x, t])),
    ):
        assert_close(torch.compile(transformed, backend="aot_eager")(x), transformed(x))
        torch._dynamo.reset()  # it remembers what it did not compile
