"""What the training loop and the evaluator rely on, for every method."""

import pytest
import torch

from cxrfast.errors import UsageError
from cxrfast.methods import METHODS, get_method

PATCHES = {"backbone": "resnetv2_nano", "grid": 6, "hidden": 16}
SMALL = {  # maps of 6×6 for images of 64 pixels, but for GRIDS
    "li": PATCHES,
    "rozenberg": {**PATCHES, "crf_kernel_size": 5, "guide_channels": 8, "gamma": 0.5},
    "chexnet": {"backbone": "densenet_nano", "upsample": 3},
    "wang": {"backbone": "resnet_nano", "upsample": 3, "transition_channels": 16},
    "sgl": {"backbone": "resnet_nano", "output_stride": 8},
    "zhang": {"backbone": "densenet_nano", "upsample": 3},
    "yao": {"width": 8, "growth": 4, "dense_layers": 1, "levels": 3},
    "cia": {"backbone": "resnet_nano", "output_stride": 16, "grid": 6, "fine": 1, "hidden": 16, "negatives": 2},
}
GRIDS = {"sgl": 8, "yao": 16}  # where maps are not 6×6


def build(name, **options):
    cls = get_method(name)
    torch.manual_seed(0)
    method = cls(("Mass", "Nodule"), 64, cls.Options(**{**SMALL[name], **options}))
    if name == "cia":  # which finds the average chest when the training begins
        method.canonical.copy_(torch.linspace(-1, 1, 64).expand(1, 1, 64, 64))
    return method


def batch(n=6):
    boxes = torch.zeros(n, 2, 1, 4)
    boxes[0, 0, 0] = torch.tensor([10.0, 10.0, 40.0, 40.0])
    has_box = torch.zeros(n, 2, 1, dtype=torch.bool)
    has_box[0, 0] = True
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    return {"image": torch.randn(n, 1, 64, 64), "labels": labels, "boxes": boxes, "has_box": has_box}


@pytest.mark.parametrize("name", METHODS)
def test_every_stage_trains_what_it_says_and_the_loss_falls(name):
    method = build(name)
    data = batch()
    for stage in method.stages(3):
        method.train()
        trainable = [p for n, p in method.named_parameters() if n.startswith(stage.trains)]
        assert trainable
        optimizer = torch.optim.Adam(trainable, lr=3e-3)
        losses = []
        for _ in range(25):
            loss = method.loss(method(data["image"], stage.name), data)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert min(losses[-5:]) < losses[0]


@pytest.mark.parametrize("name", METHODS)
def test_predictions_are_probabilities(name):
    method = build(name).eval()
    for stage in method.stages(3):
        scores, maps = method.predict(torch.randn(3, 1, 64, 64), stage.name)
        assert scores.shape == (3, 2)
        grid = GRIDS.get(name, 6)
        assert maps.shape == (3, 2, grid, grid)
        assert ((scores > 0) & (scores < 1)).all()
        assert ((maps >= 0) & (maps <= 1)).all()
    assert method.map_thresholds.shape == (2,)


def test_unknown_method():
    with pytest.raises(UsageError, match="method: expected one of li, rozenberg, .*got 'zhou'"):
        get_method("zhou")
