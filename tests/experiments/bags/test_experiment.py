"""One run: it learns, repeats itself, is chosen by validation bags, and is measured as it says."""

import dataclasses
import math

import pytest
import torch

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.experiments.bags import METHODS, BagSettings, bag_iou, train_bags
from cxrfast.experiments.bags.experiment import _draw, _split
from cxrfast.experiments.bags.methods import AttentionModel, InstanceModel, Options, make_model
from cxrfast.experiments.bags.networks import LeNet5, default_network, make_network
from cxrfast.nn import AttentionPool
from cxrfast.ops import mil_pool

SMALL = BagSettings(bag_size=6, train_bags=40, val_bags=20, test_bags=60, epochs=6, batch_size=4, lr=3e-3)


@pytest.mark.parametrize("method", ["max", "sgl"])
def test_learns_bags_and_instances(squares, method):
    outcome = train_bags(squares, dataclasses.replace(SMALL, method=method, train_bags=60, epochs=20))
    # By chance: an AUC of 0.5, and an IoU of 0.27 for "all instances are positive"
    assert outcome.auc > 0.85
    assert outcome.iou > 0.55
    assert len(outcome.history) == 20


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_repeats_itself(squares, method):
    settings = dataclasses.replace(SMALL, method=method, epochs=1, bag_size_std=3)
    first, second = train_bags(squares, settings), train_bags(squares, settings)
    assert torch.equal(first.scores, second.scores)
    assert first._replace(seconds=0, test=None, scores=None) == second._replace(seconds=0, test=None, scores=None)
    assert math.isfinite(first.history[0].loss)
    assert ((first.scores >= 0) & (first.scores <= 1)).all()
    other = train_bags(squares, dataclasses.replace(settings, run=1))
    assert not (
        len(other.test.instances) == len(first.test.instances)
        and torch.equal(other.test.instances, first.test.instances)
    )


def test_epoch_is_chosen_by_validation_bags_and_measures_are_of_the_test_bags(squares):
    outcome = train_bags(squares, dataclasses.replace(SMALL, method="max", lr=1e-3))
    best = max(outcome.history, key=lambda epoch: (epoch.val_auc, -epoch.val_loss))
    assert outcome.epoch == best.epoch
    assert outcome.val_auc == best.val_auc
    # Trained just that far, the network is the same
    shorter = train_bags(squares, dataclasses.replace(SMALL, method="max", lr=1e-3, epochs=best.epoch))
    assert torch.equal(shorter.scores, outcome.scores)
    bags = outcome.test
    assert torch.equal(squares.test.positive[bags.instances], bags.positive)
    iou = bag_iou(outcome.scores > 0.5, bags.positive, bags.offsets)
    assert outcome.iou == iou[bags.labels].mean().item()
    # AUC from its definition, with max as the bag's score
    maxima = torch.segment_reduce(outcome.scores, "max", lengths=bags.sizes)
    positive, negative = maxima[bags.labels], maxima[~bags.labels]
    wins = (positive[:, None] > negative).double() + 0.5 * (positive[:, None] == negative).double()
    assert outcome.auc == pytest.approx(wins.mean().item(), abs=1e-3)  # scores are rounded where logits are not


def test_methods_see_the_same_bags_and_validation_images_are_apart(squares):
    train, validation = _split(squares.train, SMALL)
    assert len(train.images) + len(validation.images) == len(squares.train.images)
    assert len(validation.images) == pytest.approx(60, abs=1)
    seen = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in seen for image in validation.images)
    again, _ = _split(squares.train, dataclasses.replace(SMALL, method="max", bag_size=3))
    assert torch.equal(again.images, train.images)
    test, more = (
        _draw(squares.test, SMALL.test_bags, "test", s) for s in (SMALL, dataclasses.replace(SMALL, train_bags=7))
    )
    assert torch.equal(test.instances, more.instances)


def test_attention_model_is_ilses():
    torch.manual_seed(0)
    model = make_model("attention", torch.nn.Identity(), 5, Options())
    assert isinstance(model, AttentionModel)
    assert isinstance(model.pool, AttentionPool)
    features, offsets = torch.randn(7, 5), torch.tensor([0, 4, 5, 7])
    logits, scores = model.bag_logits(features, offsets), model.instance_scores(features, offsets)
    for bag, (begin, end) in enumerate([(0, 4), (4, 5), (5, 7)]):
        rows = features[begin:end]
        weights = model.pool.w(torch.tanh(model.pool.V(rows)))[:, 0].softmax(0)
        torch.testing.assert_close(logits[bag], model.head(weights @ rows)[0])
        spread = weights.max() - weights.min()
        expected = (weights - weights.min()) / spread if spread > 0 else torch.ones(end - begin)
        torch.testing.assert_close(scores[begin:end], expected)


def test_instance_model_pools_probabilities():
    model = make_model("noisy-or", torch.nn.Identity(), 3, Options())
    assert isinstance(model, InstanceModel)
    encoded, offsets = torch.randn(6, 1), torch.tensor([0, 2, 6])
    expected = torch.cat([mil_pool(encoded[None, a:b, 0][:, None], "noisy_or") for a, b in ((0, 2), (2, 6))])[:, 0]
    torch.testing.assert_close(model.bag_logits(encoded, offsets), expected)


def test_lenet_is_lecuns():
    network = LeNet5(1)
    assert sum(p.numel() for p in network.parameters()) == 156 + 2416 + 48120 + 10164
    conv1, conv2 = network[0], network[3]
    images = torch.randn(2, 1, 32, 32)
    maps = torch.max_pool2d(torch.relu(conv2(torch.max_pool2d(torch.relu(conv1(images)), 2))), 2)
    torch.testing.assert_close(network(images), torch.nn.Sequential(*list(network)[7:])(maps.flatten(1)))


def test_resnet18(squares):
    assert [default_network(channels) for channels in (1, 3)] == ["lenet5", "resnet18"]
    assert make_network("resnet18", 3).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 512)
    small = dataclasses.replace(SMALL, network="resnet18", epochs=1, train_bags=4, val_bags=4, test_bags=8, bag_size=3)
    assert 0 <= train_bags(squares, small).iou <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "median"}, "method: expected one of max, mean, .*, got 'median'"),
        ({"pool": "median"}, "pool: expected one of noisy-or, mean, .*, got 'median'"),
        ({"delta": 0.7}, "delta: expected .* got 0.7"),
        ({"lam": -1.0}, "lam: expected .* got -1.0"),
        ({"network": "vgg"}, "network: expected one of lenet5, resnet18, got 'vgg'"),
        ({"positives": "many"}, "positives: expected 'natural'"),
    ],
)
def test_wrong_usage(squares, change, message):
    with pytest.raises(UsageError, match=message):
        train_bags(squares, dataclasses.replace(SMALL, **change))


def test_divergence_is_said(squares):
    with pytest.raises(CxrfastError, match="mean: expected a finite loss, got nan in epoch .; reduce --lr 1e\\+30"):
        train_bags(squares, dataclasses.replace(SMALL, method="mean", lr=1e30))
