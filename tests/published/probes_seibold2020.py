"""What `sgl` does by default, where no option says it: a check for each statement.

Those of the bag experiments are in `probes_seibold2020_bags.py`.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cxrfast.data import BOXED_CLASSES, CLASSES
from cxrfast.inference import draw, localize
from cxrfast.losses import BagLoss, SelfGuidingLoss
from cxrfast.methods.sgl import SGL, SGLOptions, build_loss
from cxrfast.metrics.classification import auroc
from cxrfast.models import FullyConvolutionalNetwork
from cxrfast.ops import mil_pool
from cxrfast.ops.self_guiding import self_guided_sums
from cxrfast.regions.rule import RegionRule
from cxrfast.training import build_config
from tests.predictors import FakePredictor, constant_answer

NAMES = ("A", "B", "C")
P = torch.tensor([0.1, 0.2, 0.45, 0.5, 0.9], dtype=torch.float64)  # θ: 0, 0.125, 0.4375, 0.5, 1


@cache
def method() -> SGL:
    """The defaults, on three classes."""
    torch.manual_seed(0)
    return SGL(NAMES, 512, SGLOptions()).eval()


def criterion() -> SelfGuidingLoss:
    loss = build_loss(SGLOptions())
    assert isinstance(loss, SelfGuidingLoss)
    return loss


def logits_of(p: torch.Tensor) -> torch.Tensor:  # [n] -> [1, 1, n]
    return torch.logit(p)[None, None]


# --- §3 -------------------------------------------------------------------------------------------------------------
def predictions(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and maps of the default method, whose network gives these logits."""
    whole = method()
    forward, whole.forward = whole.forward, lambda image, stage: maps
    try:
        found = whole.predict(torch.zeros(len(maps), 1, 512, 512), "instances")
    finally:
        whole.forward = forward
    return found.scores, found.maps


def independent_classes() -> None:
    maps = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(predictions(maps)[1], maps.sigmoid())  # no softmax over classes


def bag_labels_only() -> None:
    maps, labels = torch.randn(2, 3, 4, 4), torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    alone = method().loss(maps, {"labels": labels})  # a batch of labels is enough
    assert alone.isfinite()


def instance_predictions() -> None:
    maps = predictions(20 * torch.randn(1, 3, 16, 16))[1]
    assert maps.shape == (1, 3, 16, 16)
    assert ((maps >= 0) & (maps <= 1)).all()


def pooled_predictions() -> None:
    maps = torch.randn(2, 3, 16, 16)
    p = maps.sigmoid().flatten(2)
    torch.testing.assert_close(predictions(maps)[0], (p * p.exp()).sum(2) / p.exp().sum(2))
    torch.testing.assert_close(mil_pool(maps, "mean").sigmoid(), p.mean(2))


def bag_loss() -> None:
    maps, labels = torch.randn(2, 3, 4, 4), torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    expected = F.binary_cross_entropy(mil_pool(maps, "softmax").sigmoid(), labels)
    torch.testing.assert_close(criterion().terms(maps, labels)["bag"], expected)


def empty_bags() -> None:
    x, offsets = torch.randn(5, 1), torch.tensor([0, 3, 3, 5])
    whole = BagLoss("mean")(x, torch.tensor([[1], [1], [0]]), offsets=offsets)
    torch.testing.assert_close(whole, BagLoss("mean")(x, torch.tensor([[1], [0]]), offsets=torch.tensor([0, 3, 5])))


def kinds(label: bool) -> list[float]:
    sums = self_guided_sums(logits_of(P), torch.tensor([[label]]), delta=criterion().delta)
    return [count.item() for count in (sums.negative_count, sums.soft_count, sums.positive_count)]


def three_kinds() -> None:
    assert kinds(True) == [2, 2, 1]


def negative_bags() -> None:
    assert kinds(False) == [5, 0, 0]


def mask() -> None:
    theta = (P - 0.1) / 0.8
    target = torch.where(theta < 0.3, 0, torch.where(theta > 0.7, 1, theta))
    logits = logits_of(P).requires_grad_()
    sums = self_guided_sums(logits, torch.tensor([[True]]), delta=criterion().delta)
    (sums.negative + sums.soft + sums.positive).sum().backward()
    torch.testing.assert_close(logits.grad.flatten(), P - target)  # the derivative of the cross-entropy


def equal_predictions() -> None:
    terms = criterion().terms(torch.zeros(1, 1, 4), torch.ones(1, 1))
    assert [terms[name].item() for name in ("negative", "soft", "positive", "l2")] == [0, 0, 0, 0]


def thresholds() -> None:
    for delta in (-0.1, 0.51):
        try:
            SelfGuidingLoss(delta=delta)
        except ValueError:
            continue
        raise AssertionError(f"delta {delta} was taken")
    SelfGuidingLoss(delta=0), SelfGuidingLoss(delta=0.5)


def soft_targets() -> None:
    logits = logits_of(P)
    soft = self_guided_sums(logits, torch.tensor([[True]]), delta=criterion().delta).soft.item()
    theta = (P[2:4] - 0.1) / 0.8
    assert abs(soft - F.binary_cross_entropy(P[2:4], theta, reduction="sum").item()) < 1e-12


def targets_are_constants() -> None:
    mask()  # the gradient of every instance is p − M, and nothing more
    assert not self_guided_sums(logits_of(P).requires_grad_(), torch.tensor([[True]])).certainty.requires_grad


def instance_loss() -> None:
    labels, loss = torch.ones(1, 1), criterion()
    weight = 2 ** (0.9 - 0.45 - 1)  # α = max − median
    by_hand = -weight * torch.log(P[4])  # the one instance with M = 1
    torch.testing.assert_close(loss.terms(logits_of(P), labels)["positive"], by_hand)


def missing_kinds() -> None:
    terms = criterion().terms(torch.randn(2, 1, 5), torch.zeros(2, 1))
    assert (terms["soft"], terms["positive"]) == (0, 0)


# --- §3.3 and §4.2: the network for chest X-rays --------------------------------------------------------------------
def patches_are_instances() -> None:
    with torch.no_grad():
        assert method()(torch.zeros(1, 1, 512, 512), "instances").shape == (1, 3, 16, 16)


def classification_layer() -> None:
    network = method().network
    assert isinstance(network, FullyConvolutionalNetwork)
    learnt = {name.partition(".")[0] for name, _ in network.named_parameters()}
    assert learnt == {"backbone", "classifier"}
    assert network.classifier.kernel_size == (1, 1)


def no_new_parameters() -> None:
    parameters = dict(method().network.classifier.named_parameters())
    assert {name: tuple(p.shape) for name, p in parameters.items()} == {"weight": (3, 2048, 1, 1), "bias": (3,)}


def joint_loss() -> None:
    (stage,) = method().stages(20)
    assert stage.trains == ("network.",)
    maps, labels = torch.randn(2, 3, 4, 4), torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    terms = criterion().terms(maps, labels)
    instances = terms["negative"] + terms["soft"] + terms["positive"]
    torch.testing.assert_close(
        method().loss(maps, {"labels": labels}), terms["bag"] + 20 * instances + 1.0 * terms["l2"]
    )


def whole_image_at_test() -> None:
    with torch.no_grad():
        assert method().predict(torch.zeros(1, 1, 512, 512), "instances").maps.shape == (1, 3, 16, 16)
    assert SGL.augmentation(torch.rand(1, 512, 512), torch.zeros(0, 4))[0].shape == (1, 448, 448)


def other_augmentation() -> None:
    image = torch.arange(64.0 * 64).reshape(1, 64, 64) / 64**2
    crop, _ = SGL.augmentation(image, torch.zeros(0, 4))
    row, column = divmod(int((crop[0, 0, 0] * 64**2).round()), 64)
    torch.testing.assert_close(crop, image[:, row : row + 56, column : column + 56])


def pytorch() -> None:
    assert issubclass(SGL, nn.Module)


def auc() -> None:
    scores, labels = torch.tensor([[0.1], [0.4], [0.35], [0.8]]), torch.tensor([[0], [0], [1], [1]])
    assert auroc(scores, labels).item() == 0.75


# --- §4.1 and §4.4: chest X-rays ------------------------------------------------------------------------------------
def chestxray14() -> None:
    assert len(CLASSES) == 14
    assert build_config({"method": "sgl", "data": Path("x")}).classes is None  # all that the data have


def boxes() -> None:
    assert len(BOXED_CLASSES) == 8


def nearest_neighbours() -> None:
    maps = torch.rand(1, 1, 16, 16)
    threshold = torch.tensor([0.5])
    rule = RegionRule("boxes", "peak")
    fine = F.interpolate(maps, size=(512, 512), mode="nearest")
    assert torch.equal(rule.find(maps, threshold).boxes.boxes * 32, rule.find(fine, threshold).boxes.boxes)


def peak_component() -> None:
    maps = torch.full((1, 3, 8, 8), 0.1)
    maps[:, :, 1:3, 1:6] = 0.6
    maps[:, :, 5, 6], maps[:, :, 6, 5] = 0.7, 0.9
    found = method().region_rule.find(maps, method().map_thresholds, scores=torch.full((1, 3), 0.6))
    assert found.boxes.boxes.tolist() == [[5, 5, 7, 7]] * 3


def figure_7_drawing() -> None:
    maps = torch.full((1, 8, 8), 0.1)
    maps[0, 2:4, 2:4] = 0.9
    predictor = FakePredictor(("Mass",), 32, constant_answer([0.9], maps))
    figure = draw(localize(predictor, np.zeros((64, 64), np.float32)))
    assert any(len(axes.patches) for axes in figure.axes)


PROBES = {
    "independent-classes": independent_classes,
    "bag-labels-only": bag_labels_only,
    "instance-predictions": instance_predictions,
    "pooled-predictions": pooled_predictions,
    "bag-loss": bag_loss,
    "empty-bags": empty_bags,
    "three-kinds": three_kinds,
    "equal-predictions": equal_predictions,
    "thresholds": thresholds,
    "mask": mask,
    "negative-bags": negative_bags,
    "soft-targets": soft_targets,
    "targets-are-constants": targets_are_constants,
    "instance-loss": instance_loss,
    "missing-kinds": missing_kinds,
    "patches-are-instances": patches_are_instances,
    "patch-grid": patches_are_instances,
    "classification-layer": classification_layer,
    "joint-loss": joint_loss,
    "chestxray14": chestxray14,
    "boxes": boxes,
    "no-new-parameters": no_new_parameters,
    "whole-image-at-test": whole_image_at_test,
    "other-augmentation": other_augmentation,
    "pytorch": pytorch,
    "auc": auc,
    "nearest-neighbours": nearest_neighbours,
    "peak-component": peak_component,
    "figure-7-drawing": figure_7_drawing,
}
