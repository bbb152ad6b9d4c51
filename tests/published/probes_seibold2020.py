"""What `sgl` and the bag experiments do by default, where no option says it: a check for each statement."""

import dataclasses
import inspect
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cxrfast.data import BOXED_CLASSES, CLASSES
from cxrfast.experiments.bags import (
    PRESETS,
    BagPlan,
    BagSettings,
    BagSource,
    draw_bags,
    make_grid,
    read_source,
    run_grid,
    train_bags,
)
from cxrfast.experiments.bags.experiment import VALIDATION_SHARE, _split
from cxrfast.experiments.bags.images import DATASETS, LabelledImages
from cxrfast.experiments.bags.methods import METHODS, Options, make_model
from cxrfast.experiments.bags.metrics import bag_iou
from cxrfast.experiments.bags.networks import LeNet5, default_network, make_network
from cxrfast.inference import draw, localize
from cxrfast.losses import BagLoss, BILLoss, MMMLoss, SelfGuidingLoss
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


@cache
def images() -> BagSource:
    """Bright images are positive, dark ones are not."""
    generator = torch.Generator().manual_seed(0)
    positive = torch.arange(80) % 4 == 0
    pixels = torch.randint(60, (80, 1, 32, 32), generator=generator) + 150 * positive[:, None, None, None]
    part = LabelledImages(pixels.to(torch.uint8), positive)
    return BagSource("made up", "bright", part, part, torch.tensor([60.0]), torch.tensor([60.0]))


SMALL = BagSettings(bag_size=4, bag_size_std=0, train_bags=6, val_bags=6, test_bags=10, epochs=2, batch_size=3)


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


def mil_assumption() -> None:
    bags = draw_bags(images().train.positive, 20, 5)
    for bag in range(20):
        inside = bags.positive[bags.offsets[bag] : bags.offsets[bag + 1]]
        assert bool(inside.any()) == bool(bags.labels[bag])


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


def of_model(name: str) -> nn.Module:
    return make_model(name, nn.Identity(), 1, Options()).bag_loss  # type: ignore[return-value]


def bil() -> None:
    loss = of_model("bil")
    assert isinstance(loss, BILLoss)
    assert (loss.lam, loss.form) == (1.0, "sum")
    target = torch.tensor([0.0, 0, 0, 0, 1], dtype=torch.float64)  # more than 0.5, not 0.5
    terms = loss.terms(logits_of(P), torch.ones(1, 1))
    torch.testing.assert_close(terms["instance"], F.binary_cross_entropy(P, target))
    torch.testing.assert_close(terms["bag"], -P.mean().log())


def mmm() -> None:
    loss = of_model("mmm")
    assert isinstance(loss, MMMLoss)
    half = torch.tensor(0.5, dtype=torch.float64)
    expected = -P.max().log() - (1 - P.min()).log() + F.binary_cross_entropy(P.mean(), half)
    torch.testing.assert_close(loss(logits_of(P), torch.ones(1, 1)), expected / 3)


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


# --- §4.1 to §4.3: bags ---------------------------------------------------------------------------------------------
def mnist_images() -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "digits.npz"
        pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
        np.savez(path, images=pixels, labels=np.arange(40) % 2)
        assert read_source(str(path), positive_class="1").train.images.shape[1:] == (1, 32, 32)


def positive_classes() -> None:
    assert DATASETS == {"mnist": "9", "cifar10": "dog"}


def mnist_bag_sizes() -> None:
    sizes = draw_bags(images().train.positive, 4000, 50, size_std=BagSettings().bag_size_std).sizes.double()
    assert abs(sizes.mean() - 50) < 0.2
    assert abs(sizes.std() - 2) < 0.2
    assert PRESETS["seibold4"].plan.bag_size_std == (2, 10, 20)


def mnist_positives() -> None:
    positive = torch.arange(1000) % 10 == 0
    bags = draw_bags(positive, 4000, 10)
    assert BagSettings().positives == "natural"
    assert bags.labels.double().mean() == 0.5
    per_bag = bags.positive.sum() / bags.labels.sum()
    assert abs(per_bag - 10 * 0.1 / (1 - 0.9**10)) < 0.1


def mnist_test_bags() -> None:
    assert (BagPlan().test_bags, BagSettings().test_bags) == (1000, 1000)
    outcome = train_bags(images(), SMALL)
    assert set(outcome.test.sizes.tolist()) == {SMALL.bag_size}
    assert len(outcome.test.labels) == SMALL.test_bags


def runs_differ() -> None:
    runs = [train_bags(images(), dataclasses.replace(SMALL, run=run, method=name)) for run, name in
            ((0, "sgl"), (0, "max"), (1, "sgl"))]  # fmt: skip
    assert torch.equal(runs[0].test.instances, runs[1].test.instances)
    assert not torch.equal(runs[0].test.instances, runs[2].test.instances)


def lenet() -> None:
    assert default_network(1) == "lenet5"
    shapes = [tuple(p.shape) for p in LeNet5(1).parameters() if p.dim() > 1]
    assert shapes == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120)]


def pool_of(name: str) -> str | None:
    (settings,) = make_grid(BagSettings(), [name], [4], [4], 1)
    return settings.pool


def bags_pooling() -> None:
    assert pool_of("sgl") == "max"


def bil_mean_pooling() -> None:
    assert pool_of("bil") == "mean"
    assert inspect.signature(BILLoss).parameters["pool"].default == "mean"


def mmm_pooling() -> None:
    assert pool_of("mmm") == "max"


def bags_delta() -> None:
    assert {plan.delta for plan in plans()} == {0.3}


def bags_lambda() -> None:
    assert {plan.lam for plan in plans()} == {1.0}


def plans() -> list[BagPlan]:
    return [BagPlan(), *(preset.plan for preset in PRESETS.values())]


def bags_optimiser() -> None:
    found = {(plan.lr, plan.weight_decay, plan.batch_size) for plan in plans()[1:]}
    assert found == {(1e-4, 1e-4, 64)}
    assert {PRESETS[name].plan.epochs for name in ("seibold4", "seibold5a")} == {(300,)}
    assert (BagPlan().lr, BagPlan().batch_size, BagPlan().epochs) == (1e-3, 8, (50,))


def bags_epoch() -> None:
    outcome = train_bags(images(), SMALL)
    assert outcome.epoch == max(outcome.history, key=lambda epoch: (epoch.val_auc, -epoch.val_loss)).epoch
    train, validation = _split(images().train, SMALL)
    assert len(validation.images) == VALIDATION_SHARE * 80
    assert len(train.images) + len(validation.images) == 80


def cifar_network() -> None:
    assert default_network(3) == "resnet18"
    network = make_network("resnet18", 3)
    assert network.num_features == 512
    assert sum(p.numel() for p in network.parameters()) == 11_176_512  # He et al.'s without the classifier


def cifar_loss() -> None:
    plan = PRESETS["seibold6"].plan
    assert (plan.delta, plan.lam, METHODS["sgl"].pool) == (0.3, 1.0, "max")


def auc() -> None:
    scores, labels = torch.tensor([[0.1], [0.4], [0.35], [0.8]]), torch.tensor([[0], [0], [1], [1]])
    assert auroc(scores, labels).item() == 0.75


def iou_of_bags() -> None:
    ground_truth = torch.tensor([True, True, False, False, True])
    found = torch.tensor([True, False, True, False, True])
    assert bag_iou(found, ground_truth, torch.tensor([0, 4, 5])).tolist() == [1 / 3, 1]


def bag_iou_average() -> None:
    outcome = train_bags(images(), SMALL)
    of_bags = bag_iou(outcome.scores > 0.5, outcome.test.positive, outcome.test.offsets)
    assert outcome.iou == of_bags[outcome.test.labels].mean().item()


@cache
def written() -> set[str]:
    grid = make_grid(dataclasses.replace(SMALL, epochs=1), ["sgl", "max"], [4], [6, 8], 2)
    with TemporaryDirectory() as folder:
        summaries = run_grid(images(), grid, Path(folder))
        assert all(s.runs == 2 and s.iou.min <= s.iou.mean <= s.iou.max for s in summaries)
        return {path.name for path in Path(folder).iterdir()}


def fig4_curves() -> None:
    assert {"by_train_bags.png", "summary.csv"} <= written()


def fig5b_examples() -> None:
    assert "examples.png" in written()


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
    "mil-assumption": mil_assumption,
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
    "bil": bil,
    "mmm": mmm,
    "patches-are-instances": patches_are_instances,
    "patch-grid": patches_are_instances,
    "classification-layer": classification_layer,
    "joint-loss": joint_loss,
    "mnist-images": mnist_images,
    "mnist-positive-class": positive_classes,
    "mnist-bag-sizes": mnist_bag_sizes,
    "mnist-positives": mnist_positives,
    "mnist-test-bags": mnist_test_bags,
    "runs-differ": runs_differ,
    "cifar-positive-class": positive_classes,
    "chestxray14": chestxray14,
    "boxes": boxes,
    "lenet": lenet,
    "bags-pooling": bags_pooling,
    "bags-delta": bags_delta,
    "bags-lambda": bags_lambda,
    "bil-mean-pooling": bil_mean_pooling,
    "mmm-pooling": mmm_pooling,
    "bags-optimiser": bags_optimiser,
    "bags-epoch": bags_epoch,
    "cifar-network": cifar_network,
    "cifar-loss": cifar_loss,
    "no-new-parameters": no_new_parameters,
    "whole-image-at-test": whole_image_at_test,
    "other-augmentation": other_augmentation,
    "pytorch": pytorch,
    "auc": auc,
    "bag-iou": iou_of_bags,
    "bag-iou-average": bag_iou_average,
    "fig4-curves": fig4_curves,
    "fig5b-examples": fig5b_examples,
    "nearest-neighbours": nearest_neighbours,
    "peak-component": peak_component,
    "figure-7-drawing": figure_7_drawing,
}
