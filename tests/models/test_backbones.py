"""The backbones: shapes, anti-aliasing, weights from a file, and refusals."""

import time

import pytest
import torch
from safetensors.torch import save_file

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.models import preactivation_resnet


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
