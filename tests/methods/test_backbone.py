"""The options that all methods share: any network, what it sees, and whether it trains."""

import json

import pytest
import torch
from safetensors.torch import save_file

from cxrfast.errors import UsageError
from cxrfast.methods import METHODS, get_method
from cxrfast.methods._backbone import BackboneOptions
from cxrfast.models import Backbone, create_backbone
from cxrfast.runs.settings import load_config
from cxrfast.runs.weights import load_weights, save_weights
from cxrfast.training import build_config, resume, train
from cxrfast.training.loop import freeze, set_training
from tests.methods.test_methods import SMALL, batch
from tests.tolerances import assert_close

GREY = ((0.5,), (0.5,))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TRANSFORMERS = ("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224")
CNNS = ("tf_efficientnet_lite0", "mobilenetv3_small_050")
ON_A_BACKBONE = [name for name, method in METHODS.items() if issubclass(method.Options, BackboneOptions)]  # not `yao`


def build(name, **options):
    cls = get_method(name)
    torch.manual_seed(0)
    without = {key: value for key, value in SMALL[name].items() if key != "output_stride"}
    return cls(("Mass", "Nodule"), 64, cls.Options(**{**without, **options}))


def statistics(options):
    return options.input_mean, options.input_std


@pytest.mark.parametrize("backbone", [*TRANSFORMERS, *CNNS])
@pytest.mark.parametrize("name", ON_A_BACKBONE)
def test_every_method_stands_on_every_network(name, backbone):
    antialias = name == "rozenberg" and backbone in CNNS
    method = build(name, backbone=backbone, antialias=antialias)
    data = batch()
    for stage in method.stages(2):
        freeze(method, stage)
        set_training(method, stage)
        loss = method.loss(method(data["image"], stage.name), data)
        loss.backward()
        for key, parameter in method.named_parameters():
            assert (parameter.grad is not None) >= parameter.requires_grad, key
        method.zero_grad()
        scores, maps = method.eval().predict(data["image"], stage.name)
        assert scores.isfinite().all()
        assert maps.isfinite().all()


@pytest.mark.parametrize("name", ON_A_BACKBONE)
def test_from_random_weights_images_are_grey_between_minus_one_and_one(name):
    assert statistics(get_method(name).Options()) == GREY


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rozenberg", GREY),
        ("li", GREY),
        ("sgl", IMAGENET),
        ("chexnet", IMAGENET),
        ("zhang", IMAGENET),
        ("wang", IMAGENET),
    ],
)
def test_from_pretrained_weights_images_are_as_the_papers_have_them(name, expected):
    for pretrained in (True, "weights.pth"):
        assert statistics(get_method(name).Options(pretrained=pretrained)) == expected
        assert statistics(get_method(name).Options(pretrained=pretrained, input_mean="auto")) == expected


def test_other_networks_see_what_their_weights_were_trained_with():
    for name in ("li", "sgl"):
        options = get_method(name).Options
        assert statistics(options(pretrained=True, backbone="tf_efficientnet_lite0")) == GREY
        assert statistics(options(pretrained=True, backbone="vit_base_patch14_dinov2")) == IMAGENET
        own = {"input_mean": [0.5307], "input_std": [0.2583]}
        assert statistics(options(pretrained="rad-dino.pt", **own)) == ((0.5307,), (0.2583,))


@pytest.mark.parametrize("name", ON_A_BACKBONE)
def test_what_the_network_sees(name):
    """Three channels, each (grey − mean) / std, from images in [-1, 1]."""
    method = build(name, input_mean=IMAGENET[0], input_std=IMAGENET[1]).eval()
    backbone = next(module for module in method.modules() if isinstance(module, Backbone))
    seen = []
    original = backbone.forward_features
    backbone.forward_features = lambda images: (seen.append(images), original(images))[1]
    grey = torch.rand(1, 1, 64, 64)
    method.predict(2 * grey - 1, method.stages(1)[-1].name)
    mean, std = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    assert_close(seen[0][:1], (grey - mean) / std)  # `cia` looks at a pair


@pytest.mark.parametrize("name", ["sgl", "li"])
def test_weights_alone_say_what_the_network_sees(name, tmp_path):
    source = create_backbone("resnet_nano", in_chans=3)
    file = tmp_path / "start.safetensors"
    save_file(source.state_dict(), str(file))
    method = build(name, backbone="resnet_nano", pretrained=str(file)).eval()
    save_weights(tmp_path / "w.safetensors", method, stage=method.stages(1)[0].name, label_version="2017")
    loaded, metadata = load_weights(tmp_path / "w.safetensors")
    assert statistics(loaded.options) == IMAGENET
    assert json.loads(metadata["options"])["input_mean"] == list(IMAGENET[0])
    images, stage = torch.randn(2, 1, 64, 64), method.stages(1)[0].name
    for ours, theirs in zip(loaded.predict(images, stage), method.predict(images, stage), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_of_earlier_versions_saw_grey(tmp_path):
    """Their options say nothing of the input, and had one channel whatever they started from."""
    method = build("sgl")
    options = {k: v for k, v in method.options.model_dump().items() if not k.startswith(("input_", "freeze"))}
    assert statistics(get_method("sgl").Options(**{**options, "pretrained": False, "output_stride": 32})) == GREY


@pytest.mark.parametrize("name", ON_A_BACKBONE)
def test_a_frozen_backbone_does_not_change(name):
    method = build(name, freeze_backbone=True)
    (prefix,) = method.frozen
    assert prefix == ("network.unary.backbone." if name == "rozenberg" else "network.backbone.")
    before = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    data = batch()
    for stage in method.stages(1):
        freeze(method, stage)
        set_training(method, stage)
        trainable = [parameter for parameter in method.parameters() if parameter.requires_grad]
        assert trainable
        optimizer = torch.optim.Adam(trainable, lr=1e-2, weight_decay=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            method.loss(method(data["image"], stage.name), data).backward()
            optimizer.step()
    changed = {key for key, tensor in method.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed
    assert not any(key.startswith(prefix) for key in changed)  # running means and variances neither
    assert not build(name).frozen


def test_a_run_with_a_frozen_backbone_of_a_file(phantoms, tmp_path, logged):
    source = create_backbone("resnet_nano", in_chans=3)
    file = tmp_path / "start.pth"
    torch.save(source.state_dict(), file)
    options = {"backbone": "resnet_nano", "pretrained": str(file), "freeze_backbone": True}
    settings = {
        "method": "chexnet",
        "data": phantoms,
        "image_size": 64,
        "epochs": 1,
        "device": "cpu",
        "options": options,
    }
    run = train(build_config(settings), tmp_path / "run")
    assert any("resnet_nano, pretrained, frozen" in line for line in logged.messages)
    saved = load_config(run.config)["options"]
    assert saved["pretrained"] == str(file)
    assert saved["input_mean"] == list(IMAGENET[0])
    method, _ = load_weights(run.last)
    for key, tensor in method.network.backbone.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[key])
    file.unlink()  # neither resuming nor loading needs it again
    assert resume(run.path).path == run.path


def test_a_backbone_is_not_frozen_at_random_weights(phantoms, tmp_path):
    settings = {"method": "chexnet", "data": phantoms, "options": {"freeze_backbone": True}}
    with pytest.raises(UsageError, match="freeze-backbone: expected pretrained weights, got random ones; add --pre"):
        train(build_config(settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_name_that_is_no_network_s_is_refused_with_the_options(pretrained, phantoms):
    options = {"backbone": "resnext5o_32x4d", "pretrained": pretrained}
    with pytest.raises(UsageError, match="backbone: unknown 'resnext5o_32x4d'; did you mean resnext50_32x4d"):
        build_config({"method": "sgl", "data": phantoms, "options": options})
