"""PacConv2d and PacCRF: what they compute, and that they start where gradients flow."""

import pytest
import torch

from cxrfast.nn import PacConv2d, PacCRF, potts_compatibility
from cxrfast.ops import pac_conv2d, pac_crf
from tests.ops.inputs import tensor
from tests.tolerances import assert_close

COMPATIBILITIES = ("full", "matrix", "potts")
ACTIVATIONS = ("softmax", "sigmoid")


def images(labels=3, size=8, guides=6, batch=2):
    unary = tensor((batch, labels, size, size), seed=1)
    return unary, tensor((batch, guides, size, size), seed=2)


@pytest.mark.parametrize("shared", [False, True])
def test_pac_conv2d_is_the_operator(shared):
    module = PacConv2d(3, 3, 5, dilation=2, shared_filter=shared)
    assert module.weight.shape == ((1, 1, 5, 5) if shared else (3, 3, 5, 5))
    x, guide = images()
    assert_close(module(x, guide), pac_conv2d(x, guide, module.weight, module.bias, dilation=2))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("compatibility", COMPATIBILITIES)
def test_pac_crf_is_the_operator(activation, compatibility):
    module = PacCRF(3, 5, steps=2, dilation=2, activation=activation, compatibility=compatibility, unary_weight=0.5)
    unary, guide = images()
    pairwise = module.pairwise[0][0]
    expected = pac_crf(
        unary,
        guide / 6**0.5,
        pairwise.weight,
        pairwise.compatibility,
        steps=2,
        unary_weight=0.5,
        dilation=2,
        activation=activation,
    )
    assert_close(module(unary, guide), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("compatibility", COMPATIBILITIES)
@pytest.mark.parametrize(("labels", "kernel", "size"), [(14, 19, 20), (1, 19, 20), (21, 5, 16), (14, 3, 5)])
def test_one_step_starts_with_order_one(activation, compatibility, labels, kernel, size):
    if labels == 1 and activation == "softmax":
        pytest.skip("a single label always has probability one: softmax has nothing to decide")
    unary, guide = images(labels, size, 64)
    module = PacCRF(labels, kernel, steps=1, activation=activation, compatibility=compatibility)
    moved = (module(unary, guide) - unary).abs()
    assert 0.05 < moved.mean() < 3
    assert moved.max() < 3


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("compatibility", COMPATIBILITIES)
def test_every_parameter_learns(activation, compatibility):
    unary, guide = images(14, 20, 64)
    module = PacCRF(14, 19, activation=activation, compatibility=compatibility, learn_unary_weight=True)
    target = tensor(unary.shape, seed=5)
    (module(unary, guide) * target).sum().backward()
    for name, parameter in module.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 1e-4, name
    assert module.pairwise[0][0].weight.grad[..., 9, 9].any()  # the centre tap starts at 0 and may learn


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("compatibility", COMPATIBILITIES)
def test_neighbours_with_like_guides_pull_towards_their_label(activation, compatibility):
    unary = torch.full((1, 3, 9, 9), -3.0)
    unary[:, 1, :, :4] = 3.0  # the left half says label 1, the right half label 2, the column between nothing
    unary[:, 2, :, 5:] = 3.0
    guide = torch.zeros(1, 1, 9, 9)
    guide[..., :5] = 10.0  # and that column looks like the left half
    undecided = PacCRF(3, 5, steps=3, activation=activation, compatibility=compatibility)(unary, guide)[0, :, 4, 4]
    assert undecided.argmax() == 1
    assert undecided[1] > undecided[2] + 0.5
    assert undecided[1] > undecided[0] + 0.5


def test_training_sharpens_a_noisy_map():
    """Gradient descent on the pairwise terms alone lowers the error of noisy unaries: they do receive gradients."""
    torch.manual_seed(0)
    ground_truth = torch.zeros(4, 1, 12, 12)
    ground_truth[:, :, 3:9, 3:9] = 1
    unary = 2 * ground_truth - 1 + 1.5 * tensor(ground_truth.shape, seed=3)
    guide = ground_truth + 0.1 * tensor(ground_truth.shape, seed=4)
    module = PacCRF(1, 7, activation="sigmoid", guide_scale=2.0)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    loss = torch.nn.BCEWithLogitsLoss()
    before = loss(unary, ground_truth).item()
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(module(unary, guide), ground_truth)
        value.backward()
        optimizer.step()
    assert value.item() < 0.5 * before


def test_potts_acts_as_minus_identity_on_probabilities():
    unary, guide = images()
    filter_ = tensor((1, 1, 3, 3), seed=3)
    potts = pac_crf(unary, guide, filter_, potts_compatibility(3))
    identity = pac_crf(unary, guide, filter_, -torch.eye(3))
    assert_close(potts.softmax(1), identity.softmax(1))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("compatibility", COMPATIBILITIES)
def test_steps_composed_of_convolutions_equal_the_operator(activation, compatibility):
    unary, guide = images()
    options = {"steps": 2, "activation": activation, "compatibility": compatibility}
    expected = PacCRF(3, 5, **options)(unary, guide)
    assert_close(PacCRF(3, 5, per_step_weights=True, **options)(unary, guide), expected)
    assert_close(PacCRF(3, [5, 5], **options)(unary, guide), expected)


def test_several_kernels_have_their_own_guides():
    unary, guide = images()
    module = PacCRF(3, [5, 3], dilation=[1, 2], steps=2, per_step_weights=True)
    assert len(module.pairwise) == 2
    assert module(unary, [guide, guide[:, :2]]).shape == unary.shape
    with pytest.raises(ValueError, match="one for each of 2 kernels, got 3"):
        module(unary, [guide] * 3)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_log_probability_output(activation):
    unary, guide = images()
    log_p = PacCRF(3, 5, activation=activation, output="log_probability")(unary, guide)
    logits = PacCRF(3, 5, activation=activation)(unary, guide)
    assert_close(log_p.exp(), logits.softmax(1) if activation == "softmax" else logits.sigmoid())


@pytest.mark.parametrize("compatibility", COMPATIBILITIES)
def test_state_dict_round_trip(compatibility):
    module = PacCRF(3, 5, compatibility=compatibility)
    other = PacCRF(3, 5, compatibility=compatibility, strength=0.1, guide_scale=3.0)
    other.load_state_dict(module.state_dict())
    unary, guide = images()
    assert torch.equal(module(unary, guide), other(unary, guide))


def test_bfloat16_autocast():
    unary, guide = images()
    module = PacCRF(3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(module(unary, guide.bfloat16()), module(unary, guide.bfloat16().float()))


def test_compiles():
    unary, guide = images()
    module = PacCRF(3, 5, compatibility="matrix")
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert_close(compiled(unary, guide), module(unary, guide))


def test_whole_numbers_as_scales():
    module = PacCRF(2, 3, unary_weight=2, guide_scale=1, learn_unary_weight=True)
    unary, guide = tensor((1, 2, 4, 4)), tensor((1, 1, 4, 4))
    assert_close(module(unary, guide), PacCRF(2, 3, unary_weight=2.0)(unary, guide))


@pytest.mark.parametrize("classes", [1, 2])
def test_other_number_of_channels_is_refused(classes):
    # The bias would broadcast, and a [1, 1, k, k] weight filters any number of channels.
    unary, guide = torch.zeros(1, 3 - classes, 4, 4), torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=f"unary: expected {classes} channels"):
        PacCRF(classes, 3)(unary, guide)
    with pytest.raises(ValueError, match=f"x: expected {classes} channels"):
        PacConv2d(classes, classes, 3, bias=False)(unary, guide)


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("kernel_size: expected an odd number of at least 3, got 4", lambda: PacCRF(3, 4)),
        ("kernel_size: expected an odd number of at least 3, got 1", lambda: PacCRF(3, 1)),
        ("kernel_size: expected an odd number of at least 1, got 2", lambda: PacConv2d(3, 3, 2)),
        ("expected equal in_channels and out_channels, got 3 and 4", lambda: PacConv2d(3, 4, 3, shared_filter=True)),
        ("activation: expected one of softmax, sigmoid, got 'relu'", lambda: PacCRF(3, 3, activation="relu")),
        ("compatibility: expected one of full, matrix, potts", lambda: PacCRF(3, 3, compatibility="4d")),
        ("output: expected one of logits, log_probability", lambda: PacCRF(3, 3, output="p")),
        ("dilation: expected one number per kernel", lambda: PacCRF(3, [3, 5], dilation=[1])),
        ("dilation: expected at least 1, got 0", lambda: PacCRF(3, 3, dilation=0)),
        ("steps: expected at least 0, got -1", lambda: PacCRF(3, [3, 5], steps=-1)),
        ("num_classes: expected at least 1, got 0", lambda: PacCRF(0, 3)),
    ],
)
def test_wrong_options(message, make):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kernel_size", [3.0, [3, 5.0]])
def test_fractional_kernel_size(kernel_size):
    with pytest.raises(TypeError, match="kernel_size: expected an integer"):
        PacCRF(3, kernel_size)
