"""The classification baselines: heat maps, regions, losses, and the papers' settings."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.functional import resize

from cxrfast.data import Augmentation
from cxrfast.errors import UsageError
from cxrfast.methods import CheXNet, Wang
from cxrfast.methods._cam import heat_maps
from cxrfast.methods.chexnet import move_midpoints
from cxrfast.regions.rule import RegionRule
from cxrfast.training import build_config
from tests.ops.inputs import tensor
from tests.tolerances import assert_close

NAMES = ("Mass", "Nodule", "Edema")


def chexnet(**options):
    torch.manual_seed(0)
    return CheXNet(NAMES, 64, CheXNet.Options(**{"backbone": "densenet_nano", **options}))


def wang(**options):
    torch.manual_seed(0)
    return Wang(NAMES, 64, Wang.Options(**{"backbone": "resnet_nano", "transition_channels": 16, **options}))


def test_heat_maps_are_enlarged_and_normalised():
    maps = tensor((2, 3, 4, 5), dtype=torch.float32)
    found = heat_maps(maps, 8)
    assert found.shape == (2, 3, 32, 40)
    for n in range(2):
        for k in range(3):
            large = resize(maps[n, k][None], [32, 40], antialias=False)[0].double().numpy()
            expected = (large - np.min(large)) / (np.max(large) - np.min(large))
            assert_close(found[n, k], torch.from_numpy(expected).float())
    assert_close(heat_maps(maps, 1).amax(dim=(2, 3)), torch.ones(2, 3))
    assert not heat_maps(torch.ones(1, 1, 2, 2), 4).any()


@pytest.mark.parametrize("build", [chexnet, wang])
def test_a_map_is_normalised_whatever_the_score(build):
    method = build().eval()
    scores, maps = method.predict(torch.randn(2, 1, 64, 64), "classifier")
    assert maps.shape == (2, 3, 16, 16)
    assert_close(maps.amax(dim=(2, 3)), torch.ones(2, 3))
    assert_close(maps.amin(dim=(2, 3)), torch.zeros(2, 3))
    output = method.network(torch.zeros(1, 1, 64, 64))
    assert_close(method.predict(torch.zeros(1, 1, 64, 64), "classifier").scores, output.logits.sigmoid())
    assert scores.shape == (2, 3)


def test_chexnet_is_trained_with_plain_cross_entropy():
    method, labels = chexnet(), torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    logits = tensor((2, 3), dtype=torch.float32)
    p = logits.sigmoid()
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    assert_close(method.loss(logits, {"labels": labels}), expected)


def test_wang_weighs_positives_and_negatives_alike_and_pools_sharply():
    method, labels = wang(), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    logits = torch.zeros(2, 3)
    assert_close(method.loss(logits, {"labels": labels}), 2 * torch.tensor(2.0).log())  # one log 2 for either kind
    output = method.eval().network(torch.randn(2, 1, 64, 64))
    g = output.features.double()
    pooled = (10 * g).exp().mean(dim=(2, 3)).log() / 10
    assert_close(output.pooled, pooled.float())
    assert_close(
        output.logits, F.linear(pooled.float(), method.network.classifier.weight, method.network.classifier.bias)
    )


def test_wang_finds_the_boxes_of_both_levels():
    rule = wang().region_rule
    assert rule == RegionRule(shape="boxes", levels=(60 / 255, 180 / 255))
    heat = torch.zeros(1, 1, 8, 8)
    heat[0, 0, 1:5, 1:6] = 61 / 255
    heat[0, 0, 2:4, 2:4] = 1
    heat[0, 0, 7, 7] = 59 / 255
    boxes = rule.find(heat, wang().map_thresholds[:1]).boxes.boxes
    assert boxes.tolist() == [[1, 1, 6, 5], [2, 2, 4, 4]]
    assert wang(levels=(100,)).region_rule.levels == (100 / 255,)


def test_midpoints_move_one_half():
    scores = torch.linspace(0, 1, 11, dtype=torch.float64)[:, None]
    assert torch.equal(move_midpoints(scores, torch.tensor([0.5], dtype=torch.float64)), scores)
    moved = move_midpoints(scores, torch.tensor([0.2], dtype=torch.float64))
    assert moved.flatten().tolist() == pytest.approx([0, 0.25, *np.linspace(0.5, 1, 9)])


def test_the_papers_settings():
    config = build_config({"method": "chexnet", "data": "x"})
    assert (config.image_size, config.batch_size, config.lr, config.lr_decay) == (224, 16, 1e-3, 0.1)
    assert config.options["backbone"] == "densenet121"
    assert CheXNet.augmentation == Augmentation(
        rotation=0, translate=0, scale=(1, 1), brightness=0, contrast=0, flip=0.5
    )
    options = build_config({"method": "wang", "data": "x"}).options
    assert (options["backbone"], options["sharpness"], options["levels"]) == ("resnet50", 10.0, [60.0, 180.0])


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("chexnet", {"input_mean": [0.5, 0.5]}, "expected input_mean and input_std of equal length"),
        ("chexnet", {"input_std": [0.0]}, "with input_std above 0"),
        ("wang", {"levels": [60, 300]}, "levels: expected at least one level between 0 and 255"),
        ("wang", {"levels": []}, "levels: expected at least one level"),
        ("wang", {"sharpness": 0}, "sharpness: expected a number greater than 0"),
    ],
)
def test_wrong_options(method, options, message):
    with pytest.raises(UsageError, match=message):
        build_config({"method": method, "data": "x", "options": options})
