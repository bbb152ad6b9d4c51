"""Any backbone, and weights of a file, at the command line: a run, its weights alone, and what is refused."""

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

VIT = "vit_tiny_patch16_224"


def test_a_transformer_trains_is_evaluated_and_localises(cli, phantoms, tmp_path):
    weights = tmp_path / "vit.pth"
    torch.manual_seed(0)
    torch.save({"state_dict": timm.create_model(VIT, img_size=64).state_dict()}, weights)
    arguments = ("train", "--method", "chexnet", "--data", phantoms, "--image-size", "64", "--epochs", "1")
    network = ("--set", f"backbone={VIT}", "--pretrained", weights, "--freeze-backbone")
    code, out, error = cli(*arguments, *network, "--device", "cpu", "--out", "run")
    assert (code, error) == (0, "")
    assert f"{VIT}, pretrained, frozen, into run" in out
    options = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["options"]
    assert (options["backbone"], options["freeze_backbone"]) == (VIT, True)
    assert (options["input_mean"], options["input_std"]) == ([0.5], [0.5])  # what timm's weights were trained with
    weights.unlink()
    code, out, error = cli("evaluate", "run", "--device", "cpu")
    assert code == 0, error
    image = next((phantoms / "images").iterdir())
    code, out, error = cli("localize", image, "--checkpoint", "run", "--out", "found", "--device", "cpu")
    assert code == 0, error


def test_folds_of_all_images(cli, phantoms, tmp_path):
    arguments = ("train", "--method", "chexnet", "--data", phantoms, "--image-size", "64", "--epochs", "1")
    network = ("--set", "backbone=resnet_nano", "--folds", "2", "--folds-of", "all", "--val", "none")
    code, out, error = cli(*arguments, *network, "--device", "cpu", "--out", "folds")
    assert (code, error) == (0, "")
    assert "2 folds by patient × 1 seed, all images: 2 runs, 40 test images" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "backbone=vit_tiny_patch16_244"], f"backbone: unknown 'vit_tiny_patch16_244'; did you mean {VIT}, "),
        (
            ["--set", "backbone=crossvit_tiny_240", "--image-size", "240"],
            "backbone: crossvit_tiny_240 has no spatial map to localise with",
        ),
        (["--set", f"backbone={VIT}", "--image-size", "100"], ", got 100; choose 96 or 112"),
        (
            ["--set", f"backbone={VIT}", "--set", "antialias=true"],
            f"antialias: expected false for {VIT}, which divides images into patches",
        ),
        (["--set", "backbone=vgg11", "--set", "output_stride=8"], "output_stride: expected 32 for vgg11, got 8"),
        (["--freeze-backbone"], "freeze-backbone: expected pretrained weights, got random ones; add --pretrained"),
        (["--set", "input_mean=[0.5, 0.5]"], "expected input_mean and input_std of equal length"),
        (["--folds-of", "all"], "folds-of: expected only for a cross-validation; add --folds 5, or leave it out"),
        (["--folds", "2", "--folds-of", "half"], "folds-of: expected boxes or all, got 'half'"),
    ],
)
def test_wrong_use_is_one_line(cli, phantoms, arguments, message):
    start = ("train", "--method", "chexnet", "--data", phantoms, "--image-size", "64", "--out", "run")
    code, _, error = cli(*start, *arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert message in error


def test_weights_of_another_network_are_one_line(cli, phantoms, tmp_path):
    save_file(timm.create_model("resnet18").state_dict(), str(tmp_path / "resnet18.safetensors"))
    start = ("train", "--method", "sgl", "--data", phantoms, "--image-size", "64", "--out", "run")
    code, _, error = cli(*start, "--set", "backbone=resnet34", "--pretrained", "resnet18.safetensors")
    assert (code, error.count("\n")) == (1, 1)
    assert "resnet18.safetensors does not hold weights of resnet34: 80 of its 180 tensors are missing" in error
    code, _, error = cli(*start, "--pretrained", "nowhere.pth")
    assert (code, error) == (1, "cxrfast: pretrained: no file nowhere.pth\n")
    assert not (tmp_path / "run").exists()
