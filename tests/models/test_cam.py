"""Class activation maps, log-sum-exp pooling, and what the network sees."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cxrfast.models import (
    CAMNetwork,
    InputScaling,
    LogSumExpPool,
    TransitionLayer,
    class_activation_maps,
    create_backbone,
    normalize_maps,
)
from tests.ops.inputs import tensor
from tests.tolerances import assert_close


def network(name="densenet_nano", **options):
    torch.manual_seed(0)
    backbone = create_backbone(name)
    channels = options.pop("channels", None)
    return CAMNetwork(backbone, 3, channels=channels, **options).eval()


def gradient_maps(model, images):
    """CAM the other way: the logit's gradient with respect to the features, which pooling by the mean divides by h·w
    (Selvaraju et al. 2017: for such a network Grad-CAM is CAM)."""
    features = model(images).features.detach().requires_grad_()
    logits = model.classifier(features.mean(dim=(2, 3)))
    maps = []
    for k in range(logits.shape[1]):
        (gradient,) = torch.autograd.grad(logits[:, k].sum(), features, retain_graph=True)
        maps.append((gradient * features).sum(dim=1) * features[0, 0].numel())
    return torch.stack(maps, dim=1)


@pytest.mark.parametrize("name", ["densenet_nano", "resnet_nano"])
def test_maps_are_those_of_the_gradients(name):
    model = network(name)
    images = torch.randn(2, 1, 64, 64)
    assert_close(model(images).maps, gradient_maps(model, images))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)),
)
def test_maps_equal_the_sum_over_channels(seed, sizes):
    images, classes, channels, height, width = sizes
    features = tensor((images, channels, height, width), dtype=torch.float64, seed=seed)
    weight = tensor((classes, channels), dtype=torch.float64, seed=seed + 1)
    maps = class_activation_maps(features, weight)
    assert maps.shape == (images, classes, height, width)
    for n in range(images):
        for k in range(classes):
            expected = sum(weight[k, d] * features[n, d] for d in range(channels))
            assert_close(maps[n, k], expected)


def test_the_logit_is_the_mean_of_the_map_plus_the_bias():
    model = network()
    nn.init.normal_(model.classifier.bias)
    output = model(torch.randn(4, 1, 64, 64))
    assert output.logits.shape == (4, 3)
    assert output.maps.shape == (4, 3, 2, 2)
    assert output.features.shape == (4, model.backbone.num_features, 2, 2)
    assert_close(output.logits, output.maps.mean(dim=(2, 3)) + model.classifier.bias)
    assert_close(output.pooled, output.features.mean(dim=(2, 3)))


def test_every_parameter_gets_a_gradient():
    pooling, transition = LogSumExpPool(), TransitionLayer(31, 12)
    model = network(channels=12, transition=transition, pooling=pooling).train()
    model(torch.randn(4, 1, 64, 64)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("stride", "size"), [(1, 7), (2, 4), (3, 3)])
def test_a_transition_sets_the_number_and_the_size_of_the_maps(stride, size):
    layer = TransitionLayer(6, 5, stride=stride).eval()
    features = torch.randn(2, 6, 7, 7)
    assert layer(features).shape == (2, 5, size, size)
    assert (layer(features) >= 0).all()
    changed = features.clone()
    changed[0, :, 3, 4] += 10  # with a stride too, no position is passed over
    assert not torch.equal(layer(changed)[0], layer(features)[0])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 5), sharpness=st.sampled_from((0.1, 1.0, 10.0)))
def test_log_sum_exp_equals_the_papers_form(seed, size, sharpness):
    x = tensor((2, 3, size, size), dtype=torch.float64, seed=seed)
    pooled = LogSumExpPool(sharpness)(x)
    for n in range(2):
        for d in range(3):
            values = x[n, d].flatten().tolist()
            star = max(abs(value) for value in values)  # Eq. 3
            mean = sum(math.exp(sharpness * (value - star)) for value in values) / len(values)
            assert pooled[n, d].item() == pytest.approx(star + math.log(mean) / sharpness, rel=1e-9)


def test_log_sum_exp_lies_between_mean_and_max_and_never_overflows():
    x = tensor((2, 3, 6, 6), dtype=torch.float64)
    second_order = x.mean(dim=(2, 3)) + 0.5e-4 * x.var(dim=(2, 3), correction=0)
    assert (LogSumExpPool(1e-4)(x) - second_order).abs().max() < 1e-8
    assert (LogSumExpPool(1e4)(x) - x.amax(dim=(2, 3))).abs().max() < 1e-3
    for value in (1e4, -1e4):  # Eq. 3's x* = max |x| gives the logarithm of zero for the second
        constant = torch.full((1, 2, 4, 4), value, requires_grad=True)
        pooled = LogSumExpPool()(constant)
        assert_close(pooled, torch.full((1, 2), value))
        pooled.sum().backward()
        assert_close(constant.grad, torch.full_like(constant, 1 / 16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_log_sum_exp_of_half_precision(dtype):
    x = tensor((2, 3, 4, 4), dtype=dtype)
    pooled = LogSumExpPool()(x)
    assert pooled.dtype == dtype
    assert_close(pooled, LogSumExpPool()(x.float()).to(dtype))
    assert LogSumExpPool()(torch.full((1, 1, 2, 2), 6e4, dtype=torch.float16)).isfinite().all()


@pytest.mark.parametrize("sharpness", [0.0, -1.0, math.inf, math.nan])
def test_wrong_sharpness(sharpness):
    with pytest.raises(ValueError, match="sharpness: expected a finite number above 0"):
        LogSumExpPool(sharpness)


def test_normalised_maps_reach_from_0_to_1_each_by_itself():
    maps = normalize_maps(tensor((2, 3, 4, 5), dtype=torch.float32) * torch.tensor([1.0, 100.0, 1e-3])[:, None, None])
    assert torch.equal(maps.amin(dim=(2, 3)), torch.zeros(2, 3))
    assert torch.equal(maps.amax(dim=(2, 3)), torch.ones(2, 3))
    assert torch.equal(normalize_maps(torch.full((1, 1, 3, 3), 7.0)), torch.zeros(1, 1, 3, 3))


def test_input_scaling_is_the_normalisation_of_the_field():
    grey = torch.rand(2, 1, 8, 8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (grey.expand(2, 3, 8, 8) - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert_close(InputScaling(mean, std)(2 * grey - 1), expected)
    images = torch.randn(1, 1, 4, 4)
    assert InputScaling((0.5,), (0.5,))(images) is images
    assert not InputScaling(mean, std).state_dict()
    for wrong in [((), ()), ((0.5,), (0.5, 0.5)), ((0.5,), (0.0,))]:
        with pytest.raises(ValueError, match="expected as many means as standard deviations"):
            InputScaling(*wrong)
