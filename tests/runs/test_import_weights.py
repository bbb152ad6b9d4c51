"""Checkpoints as people have them: the same outputs as the network that they were saved from, or one clear line."""

import math
import warnings
from collections import OrderedDict

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from cxrfast.data import CLASSES
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.inference import load_predictor
from cxrfast.runs import PREPROCESSING, PRESETS, import_weights

SIZE = 64
MEAN, STD = (torch.tensor(values)[:, None, None] for values in PREPROCESSING["imagenet"])


def randomize(model):
    """Weights, statistics and biases as if trained: none at its neutral value, and no output saturated."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
        elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model.eval()


def densenet(num_classes=14, in_chans=3):
    """torchvision's DenseNet, as small as densenet_nano."""
    torch.manual_seed(0)
    model = torchvision.models.DenseNet(8, (1, 2, 2, 2), num_init_features=16, num_classes=num_classes)
    if in_chans != 3:
        model.features.conv0 = nn.Conv2d(in_chans, 16, 7, stride=2, padding=3, bias=False)
    return randomize(model)


def resnet(num_classes=14):
    torch.manual_seed(0)
    return randomize(torchvision.models.resnet18(num_classes=num_classes))


def rgb(grey):  # [B, 1, S, S] in [0, 1] -> [B, 3, S, S] as the CheXNet reimplementations normalise it
    return (grey.expand(-1, 3, -1, -1) - MEAN) / STD


def same_scores(path, expected, grey):
    """The imported model gives `expected` for images `grey` in [0, 1], from the file alone."""
    predictor = load_predictor(path, device="cpu")
    with torch.inference_mode():
        scores = predictor(2 * grey - 1).scores
    assert (expected[0] - expected[1]).abs().max() > 1e-3  # else everything would agree
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    return predictor


class CheXNetReimplementation(nn.Module):
    """The module of the well-known repositories: DenseNet-121 with Sequential(Linear, Sigmoid) as its classifier."""

    def __init__(self, model):
        super().__init__()
        self.densenet121 = model
        model.classifier = nn.Sequential(model.classifier, nn.Sigmoid())

    def forward(self, x):
        return self.densenet121(x)


def old_names(state):
    """Keys as torchvision 0.1 wrote them, and without the counters that came with torch 0.4.1."""
    renamed = OrderedDict()
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        for part in ("norm", "conv"):
            for number in "12":
                name = name.replace(f".{part}{number}.", f".{part}.{number}.") if "denselayer" in name else name
        renamed[name] = tensor
    return renamed


@pytest.fixture(scope="module")
def grey():
    contrast = torch.tensor([0.2, 1.0, 0.6])[:, None, None, None]
    return contrast * torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_a_chexnet_reimplementation_with_old_names_in_data_parallel(tmp_path, grey):
    model = CheXNetReimplementation(densenet())
    state = old_names(nn.DataParallel(model).state_dict())
    assert "module.densenet121.features.denseblock1.denselayer1.norm.1.weight" in state
    assert "module.densenet121.classifier.0.weight" in state
    optimizer = torch.optim.Adam(model.parameters())
    model(rgb(grey)).sum().backward()
    optimizer.step()  # its averages have the convolutions' shapes too
    model.eval()
    state = old_names(nn.DataParallel(model).state_dict())
    checkpoint = tmp_path / "model.pth.tar"
    content = {"epoch": 7, "best_loss": 0.1, "optimizer": optimizer.state_dict(), "state_dict": state}
    torch.save(content, checkpoint, _use_new_zipfile_serialization=False)  # as torch before 1.6
    imported = import_weights(checkpoint, tmp_path / "out.safetensors", preset="chexnet", image_size=SIZE)
    assert imported.method.options.backbone == "densenet_nano"
    with torch.inference_mode():
        predictor = same_scores(imported.path, model(rgb(grey)), grey)
    assert predictor.class_names == CLASSES
    assert predictor.image_size == SIZE


def test_the_real_densenet_121(tmp_path, grey):
    torch.manual_seed(0)
    model = randomize(torchvision.models.densenet121(num_classes=14))
    torch.save(old_names(model.state_dict()), tmp_path / "model.pth")
    imported = import_weights(tmp_path / "model.pth", tmp_path / "out.safetensors", preset="chexnet-alphabetical")
    assert imported.method.options.backbone == "densenet121"
    assert imported.method.image_size == 224
    assert imported.method.class_names == tuple(sorted(CLASSES))
    with torch.inference_mode():
        same_scores(imported.path, torch.sigmoid(model(rgb(grey))), grey)


@pytest.mark.parametrize("nest", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "model.", "module.backbone."])
def test_torchvision_resnets_under_any_prefix_and_name(tmp_path, grey, nest, prefix):
    model = resnet(3)
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    torch.save({nest: state, "epoch": 3} if nest else state, tmp_path / "model.pt")
    imported = import_weights(
        tmp_path / "model.pt", tmp_path / "out.safetensors", classes=["A", "B", "C"], preprocessing="imagenet"
    )
    assert imported.method.options.backbone == "resnet18"
    with torch.inference_mode():
        same_scores(imported.path, torch.sigmoid(model(rgb(grey))), grey)


def test_a_timm_model_of_one_channel_from_safetensors(tmp_path, grey):
    torch.manual_seed(0)
    model = timm.create_model("densenet121", growth_rate=8, block_config=(1, 2, 2, 2), in_chans=1, num_classes=2)
    randomize(model)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    for preprocessing, network_input in (("grey", 2 * grey - 1), ("unit", grey)):
        imported = import_weights(
            tmp_path / "model.safetensors", tmp_path / "o.safetensors", classes=["A", "B"], preprocessing=preprocessing
        )
        with torch.inference_mode():
            same_scores(imported.path, torch.sigmoid(model(network_input)), grey)


def test_half_precision_and_a_repeated_channel(tmp_path, grey):
    model = densenet(2).half().float()
    torch.save(model.half().state_dict(), tmp_path / "model.pt")
    imported = import_weights(
        tmp_path / "model.pt", tmp_path / "out.safetensors", classes=["A", "B"], preprocessing="grey"
    )
    with torch.inference_mode():
        same_scores(imported.path, torch.sigmoid(model.float()((2 * grey - 1).expand(-1, 3, -1, -1))), grey)


def calibrated(logits, thresholds):
    """torchxrayvision's calibration of one image's outputs, output by output; 0.5 where there is no threshold."""
    values = []
    for score, threshold in zip(torch.sigmoid(logits).tolist(), thresholds.tolist(), strict=True):
        if math.isnan(threshold):
            values.append(0.5)
        elif score < threshold:
            values.append(score / (threshold * 2))
        else:
            values.append(1.0 - ((1.0 - score) / ((1 - threshold) * 2)))
    return values


def test_torchxrayvision(tmp_path, grey):
    """One channel in [-1024, 1024], 18 outputs, some of them without a threshold because they were not trained."""
    model = densenet(18, in_chans=1)
    with torch.no_grad():
        model.features.conv0.weight /= 1024
    thresholds = torch.rand(18, generator=torch.Generator().manual_seed(2)) * 0.9 + 0.05
    thresholds[[3, 17]] = math.nan
    model.register_buffer("op_threshs", thresholds)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    imported = import_weights(tmp_path / "model.pt", tmp_path / "out.safetensors", preset="torchxrayvision")
    names = PRESETS["torchxrayvision"].classes
    assert imported.notes == (f"left out, the model was not trained for them: {names[3]}, {names[17]}",)
    kept = [k for k in range(18) if k not in (3, 17)]
    assert imported.method.class_names == tuple(names[k] for k in kept)
    with torch.inference_mode():
        outputs = model((2 * grey - 1) * 1024)
    expected = torch.tensor([calibrated(logits, thresholds) for logits in outputs])
    predictor = same_scores(imported.path, expected[:, kept], grey)
    assert predictor.operating_points.tolist() == [0.5] * 16


def test_outputs_without_a_name_are_left_out(tmp_path, grey):
    model = densenet(3)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    imported = import_weights(
        tmp_path / "model.pt", tmp_path / "out.safetensors", classes=["A", "", "C"], preprocessing="imagenet"
    )
    assert imported.method.class_names == ("A", "C")
    assert imported.notes == ("1 outputs without a name are left out",)
    with torch.inference_mode():
        same_scores(imported.path, torch.sigmoid(model(rgb(grey)))[:, [0, 2]], grey)


@pytest.fixture
def state():
    return densenet().state_dict()


@pytest.fixture
def refusal(tmp_path, request):
    """refusal(content, **options) -> the one line that importing it ends with."""

    def call(content, error=CxrfastError, name="model.pt", **options):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(error) as caught:
            import_weights(path, tmp_path / "out.safetensors", **{"preset": "chexnet", **options})
        assert not (tmp_path / "out.safetensors").exists()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return call


def test_every_key_that_does_not_match_is_listed(state, refusal):
    state["features.norm9.weight"] = state.pop("features.norm5.weight")
    state["aux.0.weight"], state["aux.0.bias"] = torch.zeros(2, 5), torch.zeros(2)
    message = refusal(state)
    assert "does not match densenet_nano with a linear classifier" in message
    assert "1 missing: features.norm5.weight" in message
    assert "3 keys without a place: aux.0.bias, aux.0.weight, features.norm9.weight" in message


def test_keys_may_be_left_out_on_purpose(state, refusal, tmp_path):
    state["aux.0.weight"] = torch.zeros(2, 5)
    assert "--ignore PATTERN" in refusal(state)
    torch.save(state, tmp_path / "model.pt")
    imported = import_weights(tmp_path / "model.pt", tmp_path / "o.safetensors", preset="chexnet", ignore=["aux.*"])
    assert imported.method.class_names == CLASSES


def test_a_wrong_number_of_classes_names_both(state, refusal):
    message = refusal(state, classes=["A", "B"])
    assert message.endswith("model.pt, got 2")
    assert "classes: expected 14, one for each output of" in refusal(
        state, preset="torchxrayvision", preprocessing="imagenet"
    )


def test_a_hidden_layer_or_no_classifier_is_no_linear_classifier(state, refusal):
    state["head.weight"], state["head.bias"] = torch.zeros(14, 5), torch.zeros(14)
    assert "2 keys without a place: head.bias, head.weight" in refusal(state)
    features = {name: tensor for name, tensor in state.items() if name.startswith("features")}
    assert "no classifiers of 31 features, expected one" in refusal(features)


def test_another_network(refusal, state):
    other = torchvision.models.mobilenet_v3_small(weights=None).state_dict()
    assert "holds no DenseNet or ResNet, expected one; its keys: features.0.0.weight" in refusal(other)
    wider = torchvision.models.DenseNet(12, (1, 2, 2, 2), num_init_features=24, num_classes=14).state_dict()
    assert "of another shape: features.conv0.weight, " in refusal(wider)
    twins = {f"{side}.{name}": tensor for side in ("left", "right") for name, tensor in state.items()}
    assert "holds 2 networks, expected one" in refusal(twins)


def test_a_pickled_model_is_refused_and_nothing_in_it_runs(refusal, tmp_path):
    assert "holds a pickled torchvision.models.densenet.DenseNet" in refusal(densenet())
    message = refusal({"model": densenet(), "epoch": 3})
    assert "it is not opened. If you trust it, load it where it was made" in message
    assert "torch.save(model.state_dict(), 'weights.pt')" in message

    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    assert "holds a pickled" in refusal({"state_dict": Harmful()})
    assert not (tmp_path / "harm").exists()


def test_files_that_are_no_checkpoint(refusal, tmp_path):
    assert "is not a checkpoint of torch, or is damaged" in refusal(b"hello")
    assert "is not a safetensors file, or is damaged" in refusal(b"hello", name="model.safetensors")
    assert "holds no weights of a convolutional network (its keys: epoch)" in refusal({"epoch": 3})
    assert "holds no weights of a convolutional network (list)" in refusal([1, 2])
    scripted = tmp_path / "scripted.pt"
    with warnings.catch_warnings():
        # Deprecated in one way or another, by version; people have such files all the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(nn.Conv2d(1, 1, 1)), scripted)
    assert "holds a TorchScript program" in refusal(scripted.read_bytes())
    with pytest.raises(CxrfastError, match="import: no file .*none.pt"):
        import_weights(tmp_path / "none.pt", tmp_path / "out.safetensors", preset="chexnet")


def test_what_must_be_said(state, refusal, tmp_path):
    assert "preset: expected one of chexnet" in refusal(state, UsageError, preset="chexnext")
    assert "classes: expected the class of each output, got none" in refusal(state, UsageError, preset=None)
    assert "preprocessing: expected one of imagenet, grey" in refusal(state, UsageError, preset=None, classes=CLASSES)
    assert "preprocessing: expected one of imagenet" in refusal(state, UsageError, preprocessing="none")
    assert "classes: expected each class once, got A twice" in refusal(state, UsageError, classes=["A"] * 14)
    one_channel = densenet(in_chans=1).state_dict()
    assert ", got 'imagenet' for 3; choose another with --preprocessing" in refusal(one_channel)
    torch.save(state, tmp_path / "again.pt")
    imported = import_weights(tmp_path / "again.pt", tmp_path / "ours.safetensors", preset="chexnet")
    with pytest.raises(UsageError, match="is a weights file of cxrfast already; use it with --checkpoint"):
        import_weights(imported.path, tmp_path / "o.safetensors", preset="chexnet")
