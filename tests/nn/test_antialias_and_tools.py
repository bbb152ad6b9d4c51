"""antialias_ on networks that other tools copy, fuse, quantize or adapt: a blur is kept, or its loss is an error."""

import copy
import pickle

import pytest
import torch
from torch import nn

from cxrfast import reference
from cxrfast.nn import (
    AntialiasedConv2d,
    BlurPool2d,
    MaxBlurPool2d,
    antialias_,
    antialiased_modules,
    undo_antialias_,
)
from tests.ops.inputs import tensor
from tests.tolerances import assert_close

# torch.ao is being moved to torchao, and says so in warnings of several kinds.
DEPRECATED = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def small():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 16, 1, stride=2, bias=False),
        nn.BatchNorm2d(16),
    ).eval()
    for layer in (model[1], model[5]):
        layer.running_mean.uniform_(-1, 1)
        layer.running_var.uniform_(0.5, 2)
    return model


X = (2, 3, 48, 48)


def test_the_layer_stays_a_convolution_of_the_same_stride():
    model = small()
    plain = copy.deepcopy(model)
    first = model[0]
    antialias_(model)
    assert model[0] is first
    assert isinstance(first, AntialiasedConv2d)
    assert (first.stride, first.kernel_size, first.padding) == ((2, 2), (3, 3), (1, 1))
    twin = nn.Conv2d(3, 8, first.kernel_size, first.stride, first.padding)  # as PEFT's LoRA builds it
    assert (first(tensor(X)) + twin(tensor(X))).shape == plain[0](tensor(X)).shape
    assert list(model.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("options", [{"padding": 1, "padding_mode": "circular"}, {"groups": 3}, {"dilation": 2}])
@pytest.mark.parametrize("stride", [2, 3, 4])
def test_convolutions_with_options(options, stride):
    conv = nn.Conv2d(3, 6, 3, stride=1, **options)
    full = conv(tensor((1, 3, 21, 22)))
    conv.stride = (stride, stride)
    left = 2 if stride == 4 else 1
    expected = reference.blur_pool2d(full[..., ::left, ::left], stride=stride // left)
    assert_close(antialias_(conv)(tensor((1, 3, 21, 22))), expected)


def test_undo():
    plain = small()
    plain.append(nn.MaxPool2d((3, 2), 2))
    plain.append(nn.AvgPool2d(2))
    plain.append(MaxBlurPool2d(1, 1, filter_size=1))
    model = antialias_(copy.deepcopy(plain), padding_mode="replicate")
    assert antialiased_modules(model) == ("0.antialias", "3", "4.antialias", "6.antialias", "7", "8")
    restored = undo_antialias_(pickle.loads(pickle.dumps(model)))
    assert repr(restored) == repr(plain)
    assert torch.equal(restored(tensor((2, 3, 64, 64))), plain(tensor((2, 3, 64, 64))))
    assert antialiased_modules(undo_antialias_(model)) == ("8",)  # it was there before
    assert repr(undo_antialias_(antialias_(nn.Conv2d(1, 2, 3, 2)))) == repr(nn.Conv2d(1, 2, 3, 2))
    with pytest.raises(TypeError, match="expected a torch.nn.Module, got str"):
        undo_antialias_("resnet18")


def test_undo_of_a_subclass_with_its_own_forward():
    class Scaled(nn.Conv2d):
        def forward(self, x):
            return nn.functional.conv2d(x, 2 * self.weight, self.bias, self.stride)

    conv = Scaled(1, 2, 3, 4)
    x = tensor((1, 1, 24, 24))
    expected = conv(x)
    assert antialiased_modules(antialias_(conv)) == ("antialias",)
    assert conv(x).shape == expected.shape
    assert not torch.equal(conv(x), expected)
    assert torch.equal(undo_antialias_(conv)(x), expected)
    assert conv.stride == (4, 4)


def test_undo_asks_for_parametrizations_to_be_removed():
    conv = antialias_(nn.Conv2d(1, 2, 3, 2))
    nn.utils.parametrizations.weight_norm(conv)
    x = tensor((1, 1, 24, 24))
    with pytest.raises(ValueError, match="no parametrizations on anti-aliased layers, got Parametrized"):
        undo_antialias_(conv)
    nn.utils.parametrize.remove_parametrizations(conv, "weight")
    assert undo_antialias_(conv)(x).shape == (1, 2, 11, 11)


def test_a_stride_that_the_blur_cannot_reach_is_an_error():
    model = antialias_(small())
    model[0].stride = (1, 1)
    with pytest.raises(ValueError, match="expected multiples of the blur's stride 2, got \\(1, 1\\)"):
        model(tensor(X))


@DEPRECATED
def test_fx_quantization_keeps_the_blurs():
    quantize_fx = pytest.importorskip("torch.ao.quantization.quantize_fx")
    mapping = torch.ao.quantization.get_default_qconfig_mapping("x86")
    errors = []
    for model in (small(), antialias_(small())):
        x, expected = tensor(X), model(tensor(X))
        prepared = quantize_fx.prepare_fx(copy.deepcopy(model), mapping, (x,))
        prepared(x)
        quantized = quantize_fx.convert_fx(prepared)
        errors.append(((quantized(x) - expected).norm() / expected.norm()).item())
    assert errors[1] < 2 * errors[0]
    blurs = [node for node in quantized.graph.nodes if "blur_pool" in str(node.target)]
    assert len(blurs) == 3


@DEPRECATED
def test_fuse_modules_refuses_what_it_does_not_know():
    fuse_modules = pytest.importorskip("torch.ao.quantization").fuse_modules
    with pytest.raises((AssertionError, NotImplementedError), match="AntialiasedConv2d"):
        fuse_modules(antialias_(small()), [["0", "1", "2"]])


def test_a_batch_norm_is_fused_into_the_convolution():
    model = antialias_(small())
    x, expected = tensor(X), model(tensor(X))
    for conv, norm in ((0, 1), (4, 5)):
        model[conv] = torch.nn.utils.fusion.fuse_conv_bn_eval(model[conv], model[norm])
        model[norm] = nn.Identity()
    assert len(antialiased_modules(model)) == 3
    assert_close(model(x), expected)


@pytest.mark.parametrize(("name", "size"), [("repvgg_a0", 64), ("levit_128s", 224), ("mobileone_s0", 64)])
def test_timm_reparameterizes_it(name, size):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = antialias_(timm.create_model(name, num_classes=3).eval())
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
    x = tensor((1, 3, size, size))
    fused = timm.utils.model.reparameterize_model(model)
    with torch.no_grad():
        assert len(antialiased_modules(fused)) > 3
        assert sum(1 for _ in fused.modules()) < sum(1 for _ in model.modules())
        torch.testing.assert_close(fused(x), model(x), rtol=1e-3, atol=1e-4)  # many layers in another order


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224"])
def test_patch_embeddings_are_left_alone_and_named(name):
    model = pytest.importorskip("timm").create_model(name)
    if "vit" in name:
        with pytest.raises(ValueError, match=r"patch embeddings are left alone: patch_embed.proj\)"):
            antialias_(model)
        assert model.patch_embed.proj.stride == (16, 16)
        return
    with pytest.warns(UserWarning, match=r"patch embeddings are left alone: stem.0; name them in skip"):
        antialias_(model)
    assert type(model.stem[0]) is nn.Conv2d
    assert len(antialiased_modules(model)) == 3
    antialias_(model, skip=["stem.0"])  # confirmed


def test_small_last_maps_are_replicated():
    models = pytest.importorskip("torchvision.models")
    model = antialias_(models.resnet18(num_classes=2)).eval()
    replicate = antialias_(copy.deepcopy(undo_antialias_(copy.deepcopy(model))), padding_mode="replicate")
    with pytest.warns(UserWarning, match="padded by 'replicate' instead"):
        assert model(tensor((1, 3, 32, 32))).shape == (1, 2)
    assert replicate(tensor((1, 3, 32, 32))).shape == (1, 2)
    assert isinstance(model.layer4[0].conv1.antialias, BlurPool2d)
