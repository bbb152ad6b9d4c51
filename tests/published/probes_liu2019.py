"""What the method `cia` does by default, where no option says it: a check for each statement of the register."""

import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from cxrfast.data import boxes_to_patches, normalize, read_chestxray14, read_some, without_finding, write_phantoms
from cxrfast.evaluation import find_protocol
from cxrfast.losses import LiLoss
from cxrfast.methods.cia import CIA, CIAOptions, CIAOutput
from cxrfast.models import align, average_hash, contrast_attention

CLASS_NAMES = ("A", "B", "C")
IDENTITY = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])


@cache
def method() -> CIA:
    """The defaults, on three classes; of small images, because the library has 256 of them."""
    torch.manual_seed(0)
    return CIA(CLASS_NAMES, 64, CIAOptions()).eval()


def turned(**changes: float) -> CIA:
    """The same with an alignment that answers with one transformation, whatever the image."""
    torch.manual_seed(0)
    whole = CIA(CLASS_NAMES, 64, CIAOptions(negatives=2)).eval()
    wanted = torch.zeros(5)
    for name, value in changes.items():
        wanted[("angle", "wide", "high", "right", "down").index(name)] = value
    with torch.no_grad():
        whole.alignment.last.bias.copy_(torch.atanh(wanted / whole.alignment.bounds))
    return whole


def images(n: int = 2) -> torch.Tensor:
    return torch.rand(n, 1, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def batch() -> dict[str, torch.Tensor]:
    boxes = torch.zeros(2, 3, 1, 4)
    boxes[0, 1, 0] = torch.tensor([16.0, 16.0, 48.0, 32.0])
    has_box = torch.zeros(2, 3, 1, dtype=torch.bool)
    has_box[0, 1] = True
    return {"labels": torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), "boxes": boxes, "has_box": has_box}


def alignment() -> None:
    """It stands before everything else and is learnt."""
    first, second = method().stages(9)
    names = [name for name, _ in method().named_parameters()]
    assert {name.split(".")[0] for name in names if name.startswith(first.trains)} == {"alignment"}
    assert {name.split(".")[0] for name in names if name.startswith(second.trains)} == {"network"}


def affine() -> None:
    network = method().alignment
    assert network.last.out_features == 5
    limits = [math.radians(15), math.log(1.3), math.log(1.3), 0.3, 0.3]
    assert torch.allclose(network.bounds, torch.tensor(limits))
    moved = align(images(), turned(angle=0.2, right=0.1).alignment(images()))
    assert moved.shape == (2, 1, 64, 64)


def alignment_network() -> None:
    network = method().alignment
    assert network.size == 64
    assert [layer.stride for layer in network.features if isinstance(layer, nn.Conv2d)] == [(2, 2)] * 4
    with torch.no_grad():
        assert torch.equal(network(images()), IDENTITY.expand(2, 2, 3))


def feature_loss() -> None:
    """The first stage minimises a distance of features of fixed filters, at three resolutions."""
    distance = method().distance
    assert distance.levels == 3
    assert not list(distance.parameters())
    assert torch.allclose(distance(images(), images()), torch.zeros(2), atol=1e-6)
    assert (distance(images(), images().flip(-1)) > 0.01).all()


def phantoms_in(folder: str) -> Path:
    return write_phantoms(Path(folder) / "x", images=30, image_size=64, progress=False)


def sampled(whole: CIA, folder: Path):
    records = read_chestxray14(folder).records
    batches = whole.batch_sampler(records, folder, batch_size=4, seed=0, rank=0, world_size=1)
    return records, batches


def canonical_chest() -> None:
    with TemporaryDirectory() as folder:
        whole = turned()
        records, _ = sampled(whole, phantoms_in(folder))
        _, pictures, _ = read_some(records, range(30), 30, 64, title="", progress=False)
    average = normalize(torch.from_numpy(pictures.mean(axis=0)))
    assert torch.allclose(whole.canonical[0, 0], average, atol=1e-5)


def boxes_in_the_frame() -> None:
    """In a frame that begins a quarter of the image further right, the box lies a quarter further left."""
    theta = IDENTITY.expand(2, 2, 3).clone()
    theta[:, 0, 2] = 0.5
    data, logits = batch(), torch.randn(2, 3, 16, 16)
    region = boxes_to_patches(
        data["boxes"] - torch.tensor([16.0, 0.0, 16.0, 0.0]), data["has_box"], 64, 16, rule="half"
    )
    expected = LiLoss(4.0)(logits, data["labels"], data["has_box"][..., 0], region)
    assert torch.allclose(method().loss(CIAOutput(logits, theta), data), expected)


class _Bright(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, :1].expand(-1, 3, -1, -1)


def maps_in_the_original() -> None:
    """What the network sees further left is reported where the image has it."""
    whole = turned(right=0.25)
    whole.network.head = nn.Sequential(nn.Identity(), _Bright())
    whole.network.backbone.forward_features = lambda x: 40 * nn.functional.avg_pool2d(x, 4)
    picture = torch.full((1, 1, 64, 64), -1.0)
    picture[0, 0, 24:40, 32:48] = 1.0
    with torch.no_grad():
        maps = whole.predict(picture, "attention").maps
    found = (maps[0, 0] >= 0.5).nonzero().float().mean(dim=0) / 128 * 64
    assert (found - torch.tensor([32.0, 40.0])).abs().max() < 2


def attention_form() -> None:
    positive, negative = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3)
    difference = (positive - negative).abs().mean(dim=1, keepdim=True)
    assert torch.allclose(contrast_attention(positive, negative), difference / difference.mean(), rtol=1e-3)
    with torch.no_grad():
        network, x = method().network, images(4)
        f, g = (network.attended(part, None) for part in x.chunk(2))
        assert torch.allclose(network.attended(*x.chunk(2)), f * contrast_attention(f, g), atol=1e-5)


def no_metric_learning() -> None:
    """The loss is a function of the cells of the images alone."""
    data, logits = batch(), torch.randn(2, 3, 16, 16)
    region = boxes_to_patches(data["boxes"], data["has_box"], 64, 16, rule="half")
    expected = LiLoss(4.0)(logits, data["labels"], data["has_box"][..., 0], region)
    assert torch.allclose(method().loss(CIAOutput(logits, IDENTITY.expand(2, 2, 3)), data), expected)


def nearest_negative() -> None:
    with TemporaryDirectory() as folder:
        whole = turned()
        records, batches = sampled(whole, phantoms_in(folder))
        held_back = sorted(set(range(30)) - set(batches.places.tolist()))
        assert set(held_back) <= set(without_finding(records))
        _, pictures, _ = read_some(records, held_back, 9, 64, title="", progress=False)
    own = normalize(torch.from_numpy(pictures)[:, None])
    x = images(1)
    distances = (average_hash(own) != average_hash(x)).sum(dim=1)
    assert average_hash(x).shape == (1, 256)
    assert ((whole.library(x) - own[distances.argmin()]).abs() < 0.01).all()


def pair_members() -> None:
    """An image without a finding has a negative like every other, and one logit map."""
    with torch.no_grad():
        aligned, negatives = method()._pair(images(), IDENTITY.expand(2, 2, 3))
        assert aligned.shape == negatives.shape
        assert method()(images(), "attention").logits.shape == (2, 3, 16, 16)


def additional_networks() -> None:
    assert {name for name, _ in method().named_children()} >= {"network", "alignment"}
    kinds = [type(layer) for layer in method().network.head]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]


def cells() -> None:
    assert isinstance(method().criterion, LiLoss)
    assert method().criterion.lambda_box == 4
    no_metric_learning()


def limited_supervision() -> None:
    without = batch()
    without["has_box"] = torch.zeros_like(without["has_box"])
    output = CIAOutput(torch.randn(2, 3, 16, 16), IDENTITY.expand(2, 2, 3))
    assert method().loss(output, without).isfinite()
    assert method().loss(output, without) != method().loss(output, batch())


def hit() -> None:
    (criterion,) = (c for c in find_protocol("li2018").criteria if c.measure == "iou")
    assert criterion.inclusive
    assert {0.1, 0.3, 0.5, 0.7} <= set(criterion.thresholds)


PROBES = {
    "alignment": alignment,
    "affine": affine,
    "alignment-network": alignment_network,
    "feature-loss": feature_loss,
    "canonical-chest": canonical_chest,
    "boxes-in-the-frame": boxes_in_the_frame,
    "maps-in-the-original": maps_in_the_original,
    "attention-form": attention_form,
    "no-metric-learning": no_metric_learning,
    "nearest-negative": nearest_negative,
    "pair-members": pair_members,
    "additional-networks": additional_networks,
    "cells": cells,
    "limited-supervision": limited_supervision,
    "hit": hit,
}
