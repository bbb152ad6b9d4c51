"""Weights of a backbone: from a file under timm's and torchvision's names, fetched, and refused."""

import time

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.models import create_backbone
from tests.tolerances import assert_close


def write(path, state):
    save_file(state, str(path))
    return str(path)


@pytest.mark.parametrize("name", ["resnetv2_nano", "densenet_nano", "resnet_nano"])
def test_weights_of_a_three_channel_network_load_from_a_file(name, tmp_path):
    source = create_backbone(name, in_chans=3)
    path = write(tmp_path / "backbone.safetensors", source.state_dict())
    loaded, same = create_backbone(name, pretrained=path), create_backbone(name, pretrained=path, in_chans=3)
    stem = next(iter(source.state_dict()))
    for key, expected in source.state_dict().items():
        assert torch.equal(same.state_dict()[key], expected)
        if key == stem:
            expected = expected.sum(dim=1, keepdim=True)
        torch.testing.assert_close(loaded.state_dict()[key], expected)


@pytest.mark.parametrize("wrap", ["plain", "nested", "prefix", "method"])
def test_however_a_training_script_has_kept_them(wrap, tmp_path):
    state = timm.create_model("resnet18").state_dict()  # with its classifier
    content = {
        "plain": state,
        "nested": {"epoch": 3, "state_dict": state},
        "prefix": {f"module.{key}": tensor for key, tensor in state.items()},
        "method": {f"network.backbone.{k}": t for k, t in state.items()} | {"network.classifier.bias": torch.ones(2)},
    }[wrap]
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    loaded = create_backbone("resnet18", pretrained=str(path), in_chans=3)
    for key, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[key])


def test_a_backbone_s_own_weights_come_back(tmp_path):
    """What a map does not depend on is not in the file, and not missed."""
    for name in ("vit_tiny_patch16_224", "mobilenetv3_small_050"):
        source = create_backbone(name, image_size=64)
        path = write(tmp_path / f"{name}.safetensors", source.state_dict())
        loaded = create_backbone(name, pretrained=path, image_size=64)
        for key, tensor in loaded.state_dict().items():
            assert torch.equal(tensor, source.state_dict()[key])


def test_weights_that_cannot_be_fetched_are_given_up_at_once(monkeypatch, tmp_path, caplog):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    before, started = constants.HF_HUB_OFFLINE, time.perf_counter()
    with pytest.raises(CxrfastError, match="pretrained: cannot load weights for resnetv2_50 .*connect to the network"):
        create_backbone("resnetv2_50", pretrained=True)
    assert time.perf_counter() - started < 15  # the hub's client alone takes a minute
    assert "Retrying" not in caplog.text
    assert before == constants.HF_HUB_OFFLINE


def test_nothing_is_fetched_for_what_cannot_be_built(monkeypatch):
    def fail(*args, **options):
        raise AssertionError("was fetched")

    monkeypatch.setattr("huggingface_hub.get_session", fail)
    with pytest.raises(UsageError, match="output_stride: expected 8, 16 or 32 for resnet50, got 4"):
        create_backbone("resnet50", pretrained=True, output_stride=4)


def test_wrong_files(tmp_path):
    with pytest.raises(CxrfastError, match="pretrained: no file nowhere.safetensors"):
        create_backbone("resnetv2_50", pretrained="nowhere.safetensors")
    other = write(tmp_path / "other.safetensors", {"stem.conv.weight": torch.zeros(8, 3, 7, 7)})
    match = r"does not hold weights of resnetv2_nano: \d+ of its \d+ tensors are missing \(\S+\), 1 have another shape"
    with pytest.raises(CxrfastError, match=match):
        create_backbone("resnetv2_nano", pretrained=other)
    with pytest.raises(
        CxrfastError, match=r"hold weights of alexnet: 10 of its 10 tensors are missing \(features.0.bias\)"
    ):
        create_backbone("alexnet", pretrained=write(tmp_path / "2.safetensors", {"features.0.x": torch.zeros(2, 2)}))
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no checkpoint")
    with pytest.raises(CxrfastError, match="pretrained: .*broken.pth is not a checkpoint of torch, or is damaged"):
        create_backbone("resnet_nano", pretrained=str(broken))


class _Code:
    def __reduce__(self):
        return print, ("this must never be seen",)


def test_a_file_that_would_run_code_is_not_opened(tmp_path, capsys):
    path = tmp_path / "code.pth"
    torch.save({"weight": _Code()}, path)
    with pytest.raises(CxrfastError, match="pretrained: .*code.pth holds a pickled .*opening it could run any code"):
        create_backbone("resnet_nano", pretrained=str(path))
    assert "never be seen" not in capsys.readouterr().out


def test_a_deeper_network_s_weights_are_not_cut_short(tmp_path):
    """All of ResNet-18's tensors are in a ResNet-34's file, with the same shapes."""
    path = write(tmp_path / "resnet34.safetensors", create_backbone("resnet34").state_dict())
    with pytest.raises(CxrfastError, match=r"of resnet18: \d+ of the file have no place in it \(layer1.2.*=NAME"):
        create_backbone("resnet18", pretrained=path)


@pytest.mark.parametrize(("name", "size"), [("alexnet", 6), ("googlenet", 7)])
def test_torchvision_s_networks_are_cut_in_front_of_their_pooling(name, size, tmp_path):
    torch.manual_seed(0)
    options = {"init_weights": False, "aux_logits": False, "transform_input": False} if name == "googlenet" else {}
    whole = torchvision.models.get_model(name, **options).eval()
    path = write(tmp_path / "whole.safetensors", whole.state_dict())  # with its classifier
    grey = torch.randn(1, 1, 224, 224)
    seen = {}
    whole.avgpool.register_forward_pre_hook(lambda module, inputs: seen.update(features=inputs[0]))
    with torch.inference_mode():
        whole(grey.expand(1, 3, 224, 224))
        model = create_backbone(name, pretrained=path).eval()
        assert_close(model.forward_features(grey), seen["features"])
        three = create_backbone(name, pretrained=path, in_chans=3).eval()
        assert_close(three.forward_features(grey.expand(1, 3, 224, 224)), seen["features"])
    assert seen["features"].shape == (1, model.num_features, size, size)


def test_weights_of_torchvision_that_cannot_be_fetched(tmp_path, monkeypatch):
    def unreachable(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CxrfastError, match=r"cannot load weights for alexnet \(no network\); connect"):
        create_backbone("alexnet", pretrained=True)
