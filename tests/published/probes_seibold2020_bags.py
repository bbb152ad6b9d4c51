"""What the bag experiments of Seibold et al. do by default, where no option says it: a check for each statement."""

import dataclasses
import inspect
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

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
from cxrfast.losses import BILLoss, MMMLoss
from tests.published.probes_seibold2020 import P, logits_of


@cache
def images() -> BagSource:
    """Bright images are positive, dark ones are not."""
    generator = torch.Generator().manual_seed(0)
    positive = torch.arange(80) % 4 == 0
    pixels = torch.randint(60, (80, 1, 32, 32), generator=generator) + 150 * positive[:, None, None, None]
    part = LabelledImages(pixels.to(torch.uint8), positive)
    return BagSource("made up", "bright", part, part, torch.tensor([60.0]), torch.tensor([60.0]))


SMALL = BagSettings(bag_size=4, bag_size_std=0, train_bags=6, val_bags=6, test_bags=10, epochs=2, batch_size=3)


def mil_assumption() -> None:
    bags = draw_bags(images().train.positive, 20, 5)
    for bag in range(20):
        inside = bags.positive[bags.offsets[bag] : bags.offsets[bag + 1]]
        assert bool(inside.any()) == bool(bags.labels[bag])


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


PROBES = {
    "mil-assumption": mil_assumption,
    "bil": bil,
    "mmm": mmm,
    "mnist-images": mnist_images,
    "mnist-positive-class": positive_classes,
    "mnist-bag-sizes": mnist_bag_sizes,
    "mnist-positives": mnist_positives,
    "mnist-test-bags": mnist_test_bags,
    "runs-differ": runs_differ,
    "cifar-positive-class": positive_classes,
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
    "bag-iou": iou_of_bags,
    "bag-iou-average": bag_iou_average,
    "fig4-curves": fig4_curves,
    "fig5b-examples": fig5b_examples,
}
