"""antialias_ on the networks people have: weights, sizes and keys stay, shifts matter less."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cxrfast import reference
from cxrfast.nn import BlurPool2d, MaxBlurPool2d, antialias_, antialiased_modules
from tests.ops.inputs import tensor
from tests.tolerances import assert_close

NETWORKS = {  # name -> number of layers that subsample
    "resnet18": 8,  # stem, max-pool, and in three stages a convolution and a shortcut
    "densenet121": 5,  # stem, max-pool, three transitions
    "vgg11": 5,
    "mobilenet_v2": 5,
    "googlenet": 5,  # max-pools with ceil_mode
    "resnetv2_50": 8,
}


def network(name):
    if name == "resnetv2_50":
        return pytest.importorskip("timm").create_model(name, in_chans=1, num_classes=2)
    models = pytest.importorskip("torchvision.models")
    extra = {"vgg11": {"init_weights": False}, "googlenet": {"init_weights": False, "aux_logits": False}}
    model = getattr(models, name)(weights=None, num_classes=2, **extra.get(name, {}))
    return model.features if name == "vgg11" else model  # its classifier is half a gigabyte


def layer_sizes(model, *shapes):
    """The output shape of every convolution and pooling layer, by name, for each input shape; nothing is computed."""
    results, current = [], {}
    model = copy.deepcopy(model).to("meta")
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, BlurPool2d, MaxBlurPool2d)):
            module.register_forward_hook(lambda module, inputs, out, name=name: current.update({name: out.shape}))
    for shape in shapes:
        model(torch.empty(shape, device="meta"))
        results.append(dict(current))
        current.clear()
    return results


def shift_error(model, image, size):
    """How much the features move when the image does, relative to how much they differ between images."""
    with torch.no_grad():
        features = torch.stack([pooled(model, image[..., s : s + size, s : s + size]) for s in range(2)])
    between_shifts = features - features.mean(0)
    between_images = features.mean(0) - features.mean((0, 1))
    return (between_shifts.square().mean() / between_images.square().mean()).sqrt().item()


def pooled(model, x):
    """Mean of the last feature map."""
    outputs = []
    last = [m for m in model.modules() if isinstance(m, (nn.AdaptiveAvgPool2d, nn.BatchNorm2d))][-1:]
    handles = [m.register_forward_hook(lambda module, inputs, output: outputs.append(inputs[0])) for m in last]
    outputs.append(model(x))
    for handle in handles:
        handle.remove()
    return outputs[0].mean((2, 3))


@pytest.mark.parametrize("name", NETWORKS)
def test_keeps_weights_and_sizes_and_lessens_the_effect_of_shifts(name):
    torch.manual_seed(0)
    plain = network(name).eval()
    weights = copy.deepcopy(plain.state_dict())
    model = copy.deepcopy(plain)
    assert antialias_(model, padding_mode="replicate") is model
    assert len(antialiased_modules(model)) == NETWORKS[name]

    kept = model.state_dict()
    assert list(kept) == list(weights)
    assert all(torch.equal(kept[key], value) for key, value in weights.items())
    model.load_state_dict(weights, strict=True)

    channels = 1 if name == "resnetv2_50" else 3
    shapes = [(1, channels, height, width) for height, width in ((64, 96), (75, 70), (225, 512))]
    for before, after in zip(layer_sizes(plain, *shapes), layer_sizes(model, *shapes), strict=True):
        assert len(before) > NETWORKS[name]
        assert {key: after[key] for key in before} == before

    image = F.avg_pool2d(tensor((3, channels, 70, 70)), 3, 1)
    assert shift_error(model, image, 64) < 0.6 * shift_error(plain, image, 64)


@pytest.mark.parametrize("name", ["resnet18", "resnetv2_50"])
def test_gradient_reaches_every_weight(name):
    model = antialias_(network(name)).train()
    model(tensor((2, 1 if name == "resnetv2_50" else 3, 64, 64))).square().sum().backward()
    grads = {key: parameter.grad for key, parameter in model.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    assert all(grad.abs().sum() > 0 for key, grad in grads.items() if "bn" not in key and "norm" not in key)


def small():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(4, 5, 1, stride=2),
        nn.AvgPool2d(2),
    )


def blur(x, **options):
    return reference.blur_pool2d(x, **options)


def test_every_rule_by_hand():
    plain = small().eval()
    model = antialias_(copy.deepcopy(plain), filter_size=3)
    x = tensor((2, 1, 48, 48))
    y = blur(F.conv2d(x, plain[0].weight, plain[0].bias, padding=1), filter_size=3)
    y = reference.max_blur_pool2d(plain[2](plain[1](y)), kernel_size=3, padding=1, filter_size=3)
    pointwise = F.conv2d(y, plain[4].weight, plain[4].bias)
    y = blur(pointwise, filter_size=3)  # the blur stands before the 1×1 convolution, and commutes with it
    assert_close(model(x), blur(y, filter_size=3))
    assert antialiased_modules(model) == ("0.antialias", "3", "4.antialias", "5")
    assert "antialias" in repr(model)


@pytest.mark.parametrize("stride", [2, 3, 4, 6])
@pytest.mark.parametrize("kernel_size", [1, 2, 5, 8])
def test_any_stride_keeps_the_size(stride, kernel_size):
    conv = nn.Conv2d(1, 2, kernel_size, stride=stride, padding=kernel_size // 2, dilation=2)
    model = antialias_(copy.deepcopy(conv), padding_mode="replicate")
    for size in range(18, 30):
        x = tensor((1, 1, size, size + 1))
        assert model(x).shape == conv(x).shape


def test_a_second_call_changes_nothing():
    model = antialias_(nn.Sequential(nn.Conv2d(1, 2, 9, stride=8), nn.MaxPool2d(2)))  # stride 4 is left of 8
    x = tensor((1, 1, 64, 64))
    names, expected = antialiased_modules(model), model(x)
    antialias_(model)
    assert antialiased_modules(model) == names
    assert torch.equal(model(x), expected)


def test_a_layer_used_twice_stays_one_layer():
    pool = nn.MaxPool2d(2)
    model = antialias_(nn.Sequential(pool, nn.Sequential(pool)))
    assert model[0] is model[1][0]
    assert isinstance(model[0], MaxBlurPool2d)


def test_max_pools_that_cannot_be_fused():
    class SamePool(nn.MaxPool2d):
        def forward(self, x):
            return super().forward(F.pad(x, (0, 1, 0, 1), value=float("-inf")))

    for pool in (nn.MaxPool2d((3, 2), 2), nn.MaxPool2d(2, 2, dilation=2), SamePool(2, 2)):
        model = antialias_(nn.Sequential(copy.deepcopy(pool)))
        assert antialiased_modules(model) == ("0.antialias",)
        for size in (12, 13):
            x = tensor((1, 1, size, size))
            assert model(x).shape == pool(x).shape
    assert antialiased_modules(antialias_(nn.MaxPool2d(2))) == ("antialias",)  # no parent to put another layer in


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(2, return_indices=True),
        nn.MaxPool2d(3, 1),
        nn.AvgPool2d(7),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.Conv2d(1, 1, 3, stride=(2, 1)),
        nn.Conv2d(1, 1, 3),
        nn.ConvTranspose2d(1, 1, 2, stride=2),
    ],
)
def test_layers_that_stay_as_they_are(layer):
    with pytest.raises(ValueError, match="found none to anti-alias"):
        antialias_(nn.Sequential(layer))
    model = antialias_(nn.Sequential(layer, nn.MaxPool2d(2)))
    assert model[0] is layer
    assert antialiased_modules(model) == ("1",)


def test_skip():
    model = antialias_(network("resnet18"), skip=("conv1", "layer4"))
    assert model.conv1.stride == (2, 2)
    names = antialiased_modules(model)
    assert len(names) == 5
    assert not any(name.startswith(("conv1", "layer4")) for name in names)
    with pytest.raises(ValueError, match="skip: expected names of modules, got conv7"):
        antialias_(small(), skip=("conv7",))


def test_wrong_input_leaves_the_model_alone():
    with pytest.raises(TypeError, match="expected a torch.nn.Module, got str"):
        antialias_("resnet18")
    model = small()
    with pytest.raises(ValueError, match="filter_size: expected in 1..7, got 0"):
        antialias_(model, filter_size=0)
    assert not antialiased_modules(model)
    assert model[0].stride == (2, 2)


def test_copies_pickles_and_compiles():
    model = antialias_(small()).eval()
    x = tensor((2, 1, 48, 48))
    expected = model(x)
    assert torch.equal(copy.deepcopy(model)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), expected)
    assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), expected)


def test_torchvision_extracts_features_from_it():
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model = antialias_(network("resnet18")).eval()
    extractor = extraction.create_feature_extractor(model, {"layer2": "features"})
    x = tensor((1, 3, 64, 64))
    expected = []
    model.layer2.register_forward_hook(lambda module, inputs, output: expected.append(output))
    model(x)
    assert_close(extractor(x)["features"], expected[0])
