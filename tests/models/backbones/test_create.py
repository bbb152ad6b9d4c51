"""Which networks can be backbones: their maps, strides, anti-aliasing, image sizes, and refusals."""

import hashlib

import pytest
import torch

from cxrfast.errors import UsageError
from cxrfast.models import SMALL_BACKBONES, create_backbone, input_statistics
from cxrfast.nn import antialiased_modules
from tests.tolerances import assert_close


def features(model, size=64):
    return model.eval().forward_features(torch.randn(1, 1, size, size))


def random_state(model):
    """Other values than those that a network starts with, so that every tensor counts."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("antialias", [False, True])
def test_output_size(output_stride, antialias):
    model = create_backbone("resnetv2_nano", antialias=antialias, output_stride=output_stride)
    assert features(model).shape == (1, model.num_features, 64 // output_stride, 64 // output_stride)
    blurs = [module for module in model.modules() if "Blur" in type(module).__name__]
    assert bool(blurs) == antialias


def test_the_papers_backbone_is_a_preactivation_resnet_50():
    model = create_backbone("resnetv2_50")
    assert model.num_features == 2048
    assert 23e6 < sum(parameter.numel() for parameter in model.parameters()) < 26e6
    assert model.body.stem.conv.in_channels == 1


def test_antialiasing_keeps_the_names_of_the_weights():
    plain, blurred = (create_backbone("resnetv2_nano", antialias=flag).state_dict() for flag in (False, True))
    assert {name: tensor.shape for name, tensor in plain.items()} == {
        name: tensor.shape for name, tensor in blurred.items()
    }


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["densenet_nano", "resnet_nano"])
def test_output_size_of_classification_backbones(name, output_stride):
    torch.manual_seed(0)
    model = create_backbone(name, output_stride=output_stride)
    assert features(model).shape == (1, model.num_features, 64 // output_stride, 64 // output_stride)
    plain = create_backbone(name)
    plain.load_state_dict(model.state_dict())  # the weights are the same


@pytest.mark.parametrize("name", ["densenet_nano", "resnet_nano", "vgg11", "googlenet"])
def test_antialiased_classification_backbones(name):
    with torch.device("meta"):
        model, plain = create_backbone(name, antialias=True), create_backbone(name)
    assert antialiased_modules(model)
    assert model.forward_features(torch.empty(1, 1, 64, 64, device="meta")).shape[2:] == (2, 2)
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_a_dilated_densenet_sees_as_far():
    """Where the input does not vary, subsampling does not matter: both give the same features away from the border."""
    torch.manual_seed(0)
    plain, dilated = (create_backbone("densenet_nano", output_stride=stride).eval() for stride in (32, 8))
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
        model = create_backbone(name)
    assert model.num_features == channels
    assert millions[0] < sum(parameter.numel() for parameter in model.parameters()) / 1e6 < millions[1]


NAMES_OF_TENSORS = {
    "resnetv2_50": "0abeea4f9f8a113e",
    "densenet121": "135d6466fbbe44c2",
    "resnet50": "3199464d7a37f434",
    "resnetv2_nano": "3a66212bc986152d",
    "densenet_nano": "ebcce37b140c4a84",
    "resnet_nano": "0394d565177b9df9",
    "googlenet": "0c91d2a689f86ccf",
    "alexnet": "9732b7d30df85adb",
    "vgg16": "01b8adebe26ec563",
    "vgg11_bn": "1a6049f47b3ee4c6",
    "resnet18": "e3df994a35232ab7",
}


@pytest.mark.parametrize("name", NAMES_OF_TENSORS)
def test_weights_of_earlier_versions_still_fit(name):
    """Digests of the names and shapes under which version 0.1 saved the backbones of its methods."""
    with torch.device("meta"):
        state = create_backbone(name).state_dict(prefix="network.backbone.")
    text = "\n".join(f"{key} {tuple(tensor.shape)}" for key, tensor in sorted(state.items()))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == NAMES_OF_TENSORS[name]


def test_a_state_goes_in_and_out_as_if_the_network_stood_there_itself():
    torch.manual_seed(0)
    holder = torch.nn.ModuleDict({"backbone": create_backbone("resnet_nano")})
    state = {name: tensor + 1 for name, tensor in holder.state_dict().items()}
    assert "backbone.conv1.weight" in state
    holder.load_state_dict(state)
    for name, tensor in holder.state_dict().items():
        assert torch.equal(tensor, state[name])
    state["backbone.conv2.weight"] = state.pop("backbone.conv1.weight")
    with pytest.raises(RuntimeError, match=r"(?s)Missing key.*conv1.weight.*Unexpected key.*conv2.weight"):
        holder.load_state_dict(state)


TRANSFORMERS = {  # name: image size, what of forward_features are patches
    "vit_tiny_patch16_224": (224, 1),
    "deit_tiny_distilled_patch16_224": (224, 2),
    "vit_small_patch14_reg4_dinov2": (56, 5),
    "eva02_tiny_patch14_224": (56, 1),
    "mixer_s32_224": (224, 0),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_patch_tokens_become_the_map_as_they_lie_in_the_image(name):
    size, others = TRANSFORMERS[name]
    torch.manual_seed(0)
    model = random_state(create_backbone(name, image_size=size))
    grid = size // model.output_stride
    images = torch.randn(2, 1, size, size)
    with torch.inference_mode():
        found = model(images)
        tokens = model.body.forward_features(images)
    assert found.shape == (2, model.num_features, grid, grid)
    assert tokens.shape == (2, others + grid**2, model.num_features)
    for row in range(grid):
        for column in range(grid):
            assert_close(found[:, :, row, column], tokens[:, others + row * grid + column])


@pytest.mark.parametrize(
    ("name", "stride"), [("swin_tiny_patch4_window7_224", 32), ("mambaout_femto", 32), ("convnext_atto", 32)]
)
def test_maps_with_channels_last_are_turned(name, stride):
    torch.manual_seed(0)
    model = random_state(create_backbone(name, image_size=64))
    images = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        found, own = model(images), model.body.forward_features(images)
    assert found.shape == (1, model.num_features, 2, 2)
    assert model.output_stride == stride
    if name != "convnext_atto":
        own = own.permute(0, 3, 1, 2)
    assert_close(found, own)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vgg11", "convnext_atto", "mobilenetv3_small_050"])
def test_what_the_map_does_not_depend_on_is_left_out(name):
    """A parameter without gradient would stop distributed training; classifiers would make weights larger."""
    torch.manual_seed(0)
    model = create_backbone(name, image_size=64).train()
    model(torch.randn(2, 1, 64, 64)).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
    if name == "vgg11":
        assert sum(parameter.numel() for parameter in model.parameters()) < 10e6  # 129 M with the classifier


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_transformers_take_training_crops(name):
    model = create_backbone(name, image_size=224, crop_size=196)
    assert features(model, 224).shape[-1] == 224 // model.output_stride
    assert features(model, 196).shape[-1] == -(-196 // model.output_stride)  # what lacks to a whole patch is padded


def test_networks_of_one_image_size():
    assert features(create_backbone("mixer_s32_224", image_size=128), 128).shape[-1] == 4
    with pytest.raises(UsageError, match="image-size: mixer_s32_224 cannot take images of 128×128 and .*112×112"):
        create_backbone("mixer_s32_224", image_size=128, crop_size=112)
    with pytest.raises(UsageError, match="image-size: expected a multiple of 16, .*, got 230; choose 224 or 240"):
        create_backbone("vit_tiny_patch16_224", image_size=230)


@pytest.mark.parametrize("name", ["crossvit_tiny_240", "coat_tiny"])
def test_networks_without_a_map_are_refused(name):
    with (
        torch.device("meta"),
        pytest.raises(UsageError, match=f"{name} has no spatial map .* several scales; take") as e,
    ):
        create_backbone(name)
    assert "\n" not in str(e.value)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UsageError, match="backbone: unknown 'resnet5O'; did you mean resnet50, "):
        create_backbone("resnet5O")
    with pytest.raises(UsageError, match="backbone: unknown 'densnet_nano'; did you mean densenet_nano"):
        create_backbone("densnet_nano")
    with pytest.raises(UsageError, match="backbone: unknown '§'; expected the name of a network of timm"):
        create_backbone("§")
    with pytest.raises(UsageError, match="timm has no weights 'mine' of resnet50; it has a1_in1k"):
        create_backbone("resnet50.mine")


def test_a_tag_of_weights_belongs_to_the_name():
    with torch.device("meta"):
        assert create_backbone("resnet50.tv_in1k").num_features == 2048


def test_strides_that_a_network_has_not():
    for name, expected, asked in (
        ("vgg11", "32", 16),
        ("resnet50", "8, 16 or 32", 4),
        ("densenet_nano", "8, 16 or 32", 4),
        ("vit_tiny_patch16_224", "16", 32),
        ("alexnet", "32", 8),
    ):
        with pytest.raises(UsageError, match=f"output_stride: expected {expected} for {name}, got {asked}"):
            create_backbone(name, output_stride=asked)
    assert create_backbone("vit_tiny_patch16_224", output_stride=16).output_stride == 16


def test_antialiasing_is_for_networks_that_subsample():
    for name in ("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s32_224"):
        with pytest.raises(
            UsageError, match=f"antialias: expected false for {name}, which divides images.*set antialias=false"
        ):
            create_backbone(name, antialias=True)
    lite = create_backbone("tf_efficientnet_lite0", antialias=True)
    assert len(antialiased_modules(lite)) == 4  # of five halvings; the stem stays strided
    assert features(lite).shape == (1, 1280, 2, 2)


def test_there_are_no_weights_of_small_networks():
    with pytest.raises(UsageError, match="no weights for densenet_nano; leave --pretrained out, or use densenet121"):
        create_backbone("densenet_nano", pretrained=True)
    with pytest.raises(UsageError, match="no weights for resnetv2_micro"):
        create_backbone("resnetv2_micro", pretrained=True)


@pytest.mark.parametrize("name", [*SMALL_BACKBONES, "densenet169", "resnet152", "vgg19_bn"])
def test_every_named_backbone_exists(name):
    with torch.device("meta"):
        assert create_backbone(name).num_features > 0


def test_what_weights_were_trained_with():
    imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    for name in ("resnet50", "densenet121", "googlenet", "resnet_nano", "vit_base_patch14_dinov2"):
        assert input_statistics(name) == imagenet
    for name in ("resnetv2_50", "tf_efficientnet_lite0", "vit_tiny_patch16_224"):
        assert input_statistics(name) == ((0.5,), (0.5,))  # [-1, 1], the same for all channels
    with pytest.raises(UsageError, match="backbone: unknown"):
        input_statistics("nothing-like-it")
