"""`cxrfast import-weights`, and the other commands with its result."""

import json
from pathlib import Path

import torch
from torchvision.models import DenseNet


def test_a_chexnet_checkpoint_is_imported_evaluated_and_used(cli, phantoms):
    network = DenseNet(8, (1, 2, 2, 2), num_init_features=16, num_classes=14)
    torch.save({"state_dict": {f"module.{name}": x for name, x in network.state_dict().items()}}, "model.pth.tar")
    code, out, err = cli(
        "import-weights", "model.pth.tar", "--preset=chexnet", "--image-size=64", "--out=c.safetensors"
    )
    assert code == 0, err
    assert "densenet_nano, 14 classes: Atelectasis, Cardiomegaly, " in out
    code, out, err = cli("evaluate", "--checkpoint=c.safetensors", "--data", phantoms, "--out=here", "--device=cpu")
    assert code == 0, err
    assert "chexnet on all: 40 images" in out
    image = next((phantoms / "images").iterdir())
    code, out, err = cli("localize", image, "--checkpoint=c.safetensors", "--top=1", "--device=cpu")
    assert code == 0, err
    assert json.loads(Path("localized", f"{image.stem}.json").read_text())["findings"]
