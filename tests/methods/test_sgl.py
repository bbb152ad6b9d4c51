"""Seibold's method: the network takes any size, each loss is the one that was asked for, regions are where they are."""

import pytest
import torch

from cxrfast.errors import UsageError
from cxrfast.losses import BagLoss, BILLoss, MMMLoss, SelfGuidingLoss
from cxrfast.methods.sgl import SGL, SGLOptions
from cxrfast.models import FullyConvolutionalNetwork, create_backbone
from cxrfast.ops import mil_pool
from cxrfast.regions.prediction import Prediction
from cxrfast.training import build_config
from tests.tolerances import assert_close


def build(**options):
    torch.manual_seed(0)
    return SGL(("Mass", "Nodule"), 64, SGLOptions(**{"backbone": "resnet_nano", "output_stride": 8, **options})).eval()


def regions(method, maps, scores):
    maps = torch.as_tensor(maps)[None, None].expand(1, 2, -1, -1)
    prediction = Prediction(torch.tensor([scores]), maps)
    return method.region_rule.find(
        prediction.maps, method.map_thresholds, scores=prediction.scores, image_size=method.image_size
    )


def test_the_papers_network_scores_every_place_of_images_of_any_size():
    with torch.device("meta"):
        network = FullyConvolutionalNetwork(create_backbone("resnet50"), 14)
        assert network(torch.empty(1, 1, 512, 512)).shape == (1, 14, 16, 16)
        assert network(torch.empty(1, 1, 448, 448)).shape == (1, 14, 14, 14)
    assert network.classifier.weight.shape == (14, 2048, 1, 1)


def test_training_sees_crops_and_testing_the_image():
    crop, boxes = SGL.augmentation(torch.rand(1, 512, 512), torch.zeros(0, 4))
    assert crop.shape == (1, 448, 448)
    image = torch.arange(512.0 * 512).reshape(1, 512, 512) / 512**2
    crop, _ = SGL.augmentation(image, boxes)
    offset = crop[0, 0, 0] * 512**2
    y, x = int(offset.round()) // 512, int(offset.round()) % 512
    assert_close(crop, image[:, y : y + 448, x : x + 448])  # nothing but cropped


def test_boxes_play_no_part_in_training():
    image, box = torch.rand(1, 64, 64), torch.tensor([[0.0, 0.0, 3.0, 3.0]])  # which most crops lose
    for seed in range(5):
        torch.manual_seed(seed)
        with_box, _ = SGL.augmentation(image, box)
        torch.manual_seed(seed)
        without, _ = SGL.augmentation(image, box[:0])
        assert torch.equal(with_box, without)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, SelfGuidingLoss("softmax", 0.3, 20.0, l2=1.0)),
        (
            {"pool": "lse", "sharpness": 5.0, "delta": 0.2, "lam": 3.0, "rescale": False, "weighted": False, "l2": 0.5},
            SelfGuidingLoss("lse", 0.2, 3.0, sharpness=5.0, rescale=False, weighted=False, l2=0.5),
        ),
        (
            {"normalize": "bag", "median": "mean", "l2": 0.5, "l2_form": "norm"},
            SelfGuidingLoss("softmax", 0.3, 20.0, normalize="bag", median="mean", l2=0.5, l2_form="norm"),
        ),
        ({"average_weight": True}, SelfGuidingLoss("softmax", 0.3, 20.0, average_weight=True, l2=1.0)),
        ({"loss": "bil", "pool": "max", "lam": 2.0}, BILLoss("max", 2.0)),
        ({"loss": "bil", "pool": "mean", "bil_form": "script"}, BILLoss("mean", 20.0, form="script")),
        ({"loss": "mmm", "pool": "max"}, MMMLoss("max")),
        ({"loss": "bag", "pool": "mean"}, BagLoss("mean")),
    ],
)
def test_the_loss_is_the_one_that_was_asked_for(options, expected):
    method = build(**options)
    logits, labels = 3 * torch.randn(4, 2, 5, 5), torch.tensor([[1.0, 0], [0, 1], [0, 0], [1, 1]])
    assert type(method.criterion) is type(expected)
    assert_close(method.loss(logits, {"labels": labels}), expected(logits, labels))
    assert method.loss(logits, {"labels": labels}) != method.loss(logits, {"labels": 1 - labels})


def test_a_score_is_the_pooled_map():
    method = build(pool="lse", sharpness=4.0)
    scores, maps = method.predict(torch.randn(3, 1, 64, 64), "instances")
    assert_close(scores, mil_pool(torch.logit(maps), "lse", sharpness=4.0).sigmoid())


def test_a_region_is_the_box_around_the_component_of_the_maximum_where_the_class_is_predicted():
    maps = torch.full((8, 8), 0.1)
    maps[1:3, 1:6] = 0.6  # larger
    maps[5, 6] = maps[6, 5] = 0.7  # with the maximum; diagonal neighbours
    maps[6, 5] = 0.9
    found = regions(build(), maps, [0.51, 0.5]).boxes
    assert found.boxes.tolist() == [[5, 5, 7, 7]]
    assert found.channel.tolist() == [0]
    assert found.peak.tolist() == pytest.approx([0.9])
    assert regions(build(gate=None), maps, [0.4, 0.1]).boxes.channel.tolist() == [0, 1]
    assert len(regions(build(region_threshold=0.95), maps, [0.9, 0.9]).boxes.boxes) == 0


def test_an_opening_removes_what_is_thin():
    maps = torch.full((8, 8), 0.1)
    maps[1:3, 1:6] = 0.6
    maps[5, 6] = maps[6, 5] = 0.9
    (box,) = regions(build(opening=12), maps, [0.9, 0.1]).boxes.boxes  # of patches of 8 pixels
    assert box.tolist() == [1, 1, 6, 3]
    (box,) = regions(build(closing=0.5), maps, [0.9, 0.1]).boxes.boxes  # of four patches: the two are two apart
    assert box.tolist() == [1, 1, 7, 7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "mean", "sharpness": 2.0}, "options.sharpness: pool 'mean' has none"),
        ({"pool": "median"}, "options.pool: expected 'softmax', "),
        ({"delta": 0.6}, "options.delta: expected a number less than or equal to 0.5, got 0.6"),
        ({"gate": 1.0}, "options.gate"),
        (
            {"normalize": "bag", "average_weight": True},
            "options.average_weight: normalize 'bag' has one weight per bag",
        ),
        ({"normalize": "image"}, "options.normalize: expected 'batch' or 'bag'"),
        ({"median": "upper"}, "options.median: expected 'lower' or 'mean'"),
        ({"l2_form": "squared"}, "options.l2_form: expected 'squares' or 'norm'"),
        ({"bil_form": "product"}, "options.bil_form: expected 'sum' or 'script'"),
        ({"opening": -1}, "options.opening: expected a number greater than or equal to 0, got -1"),
        ({"closing": float("inf")}, "options.closing: expected a finite number"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(UsageError, match=message) as failure:
        build_config({"method": "sgl", "data": ".", "options": options})
    assert "\n" not in str(failure.value)
