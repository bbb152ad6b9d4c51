"""The backbones: shapes, anti-aliasing, weights from a file, and refusals."""

import time

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.models import CLASSIFICATION_BACKBONES, classification_backbone, feature_channels, preactivation_resnet
from cxrfast.nn import antialiased_modules
from tests.tolerances import assert_close


def features(model, size=64):
    return model.eval().forward_features(torch.randn(1, 1, size, size))


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("antialias", [False, True])
def test_output_size(output_stride, antialias):
    model = preactivation_resnet("resnetv2_nano", antialias=antialias, output_stride=output_stride)
    assert features(model).shape == (1, model.num_features, 64 // output_stride, 64 // output_stride)
    blurs = [module for module in model.modules() if "Blur" in type(module).__name__]
    assert bool(blurs) == antialias


def test_the_papers_backbone_is_a_preactivation_resnet_50():
    model = preactivation_resnet("resnetv2_50")
    assert model.num_features == 2048
    assert 23e6 < sum(parameter.numel() for parameter in model.parameters()) < 26e6
    assert model.stem.conv.in_channels == 1


def test_antialiasing_keeps_the_names_of_the_weights():
    plain, blurred = (preactivation_resnet("resnetv2_nano", antialias=flag).state_dict() for flag in (False, True))
    assert {name: tensor.shape for name, tensor in plain.items()} == {
        name: tensor.shape for name, tensor in blurred.items()
    }


def test_weights_of_a_three_channel_network_load_from_a_file(tmp_path):
    source = preactivation_resnet("resnetv2_nano", in_chans=3, antialias=False)
    path = tmp_path / "backbone.safetensors"
    save_file(source.state_dict(), str(path))
    loaded = preactivation_resnet("resnetv2_nano", pretrained=str(path))
    for name, tensor in loaded.state_dict().items():
        expected = source.state_dict()[name]
        if name == "stem.conv.weight":
            expected = expected.sum(dim=1, keepdim=True)
        torch.testing.assert_close(tensor, expected)


def test_weights_that_cannot_be_fetched_are_given_up_at_once(monkeypatch, tmp_path, caplog):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    before, started = constants.HF_HUB_OFFLINE, time.perf_counter()
    with pytest.raises(CxrfastError, match="pretrained: cannot load weights for resnetv2_50 .*connect to the network"):
        preactivation_resnet("resnetv2_50", pretrained=True)
    assert time.perf_counter() - started < 15  # the hub's client alone takes a minute
    assert "Retrying" not in caplog.text
    assert before == constants.HF_HUB_OFFLINE


def test_wrong_names_and_files(tmp_path):
    with pytest.raises(UsageError, match="backbone: expected one of .*resnetv2_50.*got 'resnet50'"):
        preactivation_resnet("resnet50")
    with pytest.raises(UsageError, match="no weights for resnetv2_micro"):
        preactivation_resnet("resnetv2_micro", pretrained=True)
    with pytest.raises(CxrfastError, match=r"expected a \.safetensors file of resnetv2_50, got nowhere"):
        preactivation_resnet("resnetv2_50", pretrained="nowhere.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"stem.conv.weight": torch.zeros(8, 3, 7, 7)}, str(other))
    with pytest.raises(CxrfastError, match="cannot load weights for resnetv2_nano"):
        preactivation_resnet("resnetv2_nano", pretrained=str(other))


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["densenet_nano", "resnet_nano"])
def test_output_size_of_classification_backbones(name, output_stride):
    torch.manual_seed(0)
    model = classification_backbone(name, output_stride=output_stride)
    assert features(model).shape == (1, feature_channels(model), 64 // output_stride, 64 // output_stride)
    plain = classification_backbone(name)
    plain.load_state_dict(model.state_dict())  # the weights are the same


@pytest.mark.parametrize("name", ["densenet_nano", "resnet_nano", "vgg11", "googlenet"])
def test_antialiased_classification_backbones(name):
    with torch.device("meta"):
        model, plain = classification_backbone(name, antialias=True), classification_backbone(name)
    assert antialiased_modules(model)
    assert model.forward_features(torch.empty(1, 1, 64, 64, device="meta")).shape[2:] == (2, 2)
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_a_dilated_densenet_sees_as_far():
    """Where the input does not vary, subsampling does not matter: both give the same features away from the border."""
    torch.manual_seed(0)
    plain, dilated = (classification_backbone("densenet_nano", output_stride=stride).eval() for stride in (32, 8))
    dilated.load_state_dict(plain.state_dict())
    flat = torch.full((1, 1, 512, 512), 0.3)
    with torch.inference_mode():
        torch.testing.assert_close(
            plain.forward_features(flat)[0, :, 8, 8], dilated.forward_features(flat)[0, :, 32, 32]
        )


@pytest.mark.parametrize(
    ("name", "channels", "millions"),
    [
        ("densenet121", 1024, (6.9, 7.0)),
        ("resnet50", 2048, (23.4, 23.6)),
        ("vgg16", 512, (14.6, 14.8)),
        ("googlenet", 1024, (5.5, 5.7)),
        ("alexnet", 256, (2.4, 2.5)),
    ],
)
def test_the_papers_classifiers(name, channels, millions):
    with torch.device("meta"):
        model = classification_backbone(name)
    assert feature_channels(model) == channels
    assert millions[0] < sum(parameter.numel() for parameter in model.parameters()) / 1e6 < millions[1]


def test_weights_of_a_three_channel_densenet_load_from_a_file(tmp_path):
    source = classification_backbone("densenet_nano", in_chans=3)
    path = tmp_path / "backbone.safetensors"
    save_file(source.state_dict(), str(path))
    loaded = classification_backbone("densenet_nano", pretrained=str(path))
    first = "features.conv0.weight"
    torch.testing.assert_close(loaded.state_dict()[first], source.state_dict()[first].sum(dim=1, keepdim=True))
    last = "features.norm5.weight"
    torch.testing.assert_close(loaded.state_dict()[last], source.state_dict()[last])


@pytest.mark.parametrize(("name", "size"), [("alexnet", 6), ("googlenet", 7)])
def test_torchvision_s_networks_are_cut_in_front_of_their_pooling(name, size, tmp_path):
    torch.manual_seed(0)
    options = {"init_weights": False, "aux_logits": False, "transform_input": False} if name == "googlenet" else {}
    whole = torchvision.models.get_model(name, num_classes=3, **options).eval()
    path = tmp_path / "whole.safetensors"
    save_file(whole.state_dict(), str(path))  # with its classifier
    grey = torch.randn(1, 1, 224, 224)
    seen = {}
    whole.avgpool.register_forward_pre_hook(lambda module, inputs: seen.update(features=inputs[0]))
    with torch.inference_mode():
        whole(grey.expand(1, 3, 224, 224))
        model = classification_backbone(name, pretrained=str(path)).eval()
        assert_close(model.forward_features(grey), seen["features"])
        three = classification_backbone(name, pretrained=str(path), in_chans=3).eval()
        assert_close(three.forward_features(grey.expand(1, 3, 224, 224)), seen["features"])
    assert seen["features"].shape == (1, feature_channels(model), size, size)


def test_wrong_weights_for_torchvision_s_networks(tmp_path, monkeypatch):
    path = tmp_path / "other.safetensors"
    save_file({"features.0.weight": torch.zeros(2, 2)}, str(path))
    with pytest.raises(CxrfastError, match="not weights of alexnet: 10 of 10 tensors are missing .* features.0.weight"):
        classification_backbone("alexnet", pretrained=str(path))
    with pytest.raises(CxrfastError, match="pretrained: expected a .safetensors file of googlenet, got nowhere.pth"):
        classification_backbone("googlenet", pretrained="nowhere.pth")

    def unreachable(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CxrfastError, match=r"cannot load weights for alexnet \(no network\); connect"):
        classification_backbone("alexnet", pretrained=True)


def test_wrong_classification_backbones():
    with pytest.raises(UsageError, match="backbone: expected one of densenet121, .*got 'resnetv2_50'"):
        classification_backbone("resnetv2_50")
    with pytest.raises(UsageError, match="no weights for densenet_nano; leave --pretrained out, or use densenet121"):
        classification_backbone("densenet_nano", pretrained=True)
    with pytest.raises(UsageError, match="output_stride: expected 32 for vgg11, got 16"):
        classification_backbone("vgg11", output_stride=16)
    with pytest.raises(UsageError, match="output_stride: expected 8, 16 or 32 for resnet50, got 4"):
        classification_backbone("resnet50", output_stride=4)


@pytest.mark.parametrize("name", CLASSIFICATION_BACKBONES)
def test_every_named_backbone_exists(name):
    with torch.device("meta"):
        model = classification_backbone(name)
    assert feature_channels(model) > 0
