"""Unknown labels (NaN in a batch) in the loss of every method, and in what methods learn from the training images."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cxrfast.data import Record, read_chestxray14
from cxrfast.errors import CxrfastError
from cxrfast.losses import RozenbergLoss, TripletLoss
from cxrfast.methods import METHODS
from cxrfast.methods.rozenberg_thresholds import ThresholdFit
from cxrfast.methods.zhang import cross_entropy
from tests.methods.test_methods import build
from tests.tolerances import assert_close

NAN = math.nan


def batch():
    """Six images: boxes of the first and the fourth, and unknown labels. The second image has nothing else."""
    labels = torch.tensor([[1.0, NAN], [NAN, NAN], [0.0, 0.0], [NAN, 1.0], [0.0, 1.0], [NAN, 0.0]])
    boxes, has_box = torch.zeros(6, 2, 1, 4), torch.zeros(6, 2, 1, dtype=torch.bool)
    boxes[0, 0, 0] = boxes[3, 0, 0] = torch.tensor([10.0, 10.0, 40.0, 40.0])
    has_box[0, 0] = has_box[3, 0] = True
    image = torch.randn(6, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    return {"image": image, "labels": labels, "boxes": boxes, "has_box": has_box}


def outputs(method, stage, images):
    """What the network gives, as leaves of a graph."""
    with torch.no_grad():
        found = method.eval()(images, stage.name)
    leaves = [part if part is None else part.double().requires_grad_() for part in parts(found)]
    return leaves, (lambda values: values[0]) if isinstance(found, torch.Tensor) else type(found)._make


def parts(output):
    return [output] if isinstance(output, torch.Tensor) else list(output)


def gradients(loss, leaves):
    leaves = [leaf for leaf in leaves if leaf is not None]
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, found, strict=True)]


def with_labels(name, **options):
    """The method and its stages with a loss of the labels. (Without triplets, whose images go together.)"""
    method = build(name, **({"triplet": 0.0} if name == "zhang" else {}), **options).double()
    return method, [stage for stage in method.stages(3) if stage.name != "alignment"]


@pytest.mark.parametrize("name", METHODS)
def test_an_image_of_which_nothing_is_known_is_as_if_it_were_not_there(name):
    method, stages = with_labels(name)
    data = {key: value.double() if value.is_floating_point() else value for key, value in batch().items()}
    rows = torch.tensor([0, 2, 3, 4, 5])
    for stage in stages:
        leaves, made = outputs(method, stage, data["image"])
        loss = method.loss(made(leaves), data)
        kept = made([leaf if leaf is None else leaf[rows] for leaf in leaves])
        expected = method.loss(kept, {key: value[rows] for key, value in data.items()})
        assert loss.item() > 0
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
        for grad, by_hand in zip(gradients(loss, leaves), gradients(expected, leaves), strict=True):
            torch.testing.assert_close(grad, by_hand, rtol=1e-9, atol=1e-12)
            assert (grad[1] == 0).all()


@pytest.mark.parametrize("name", [name for name in METHODS if name != "zhang"])  # classes of one image are mixed there
def test_unknown_pairs_have_no_gradient(name):
    method, stages = with_labels(name)
    data = batch()
    unknown = data["labels"].isnan() & ~data["has_box"].any(dim=-1)
    if name in ("chexnet", "wang", "sgl", "yao"):  # which use no boxes
        unknown = data["labels"].isnan()
    for stage in stages:
        leaves, made = outputs(method, stage, data["image"].double())
        grad, *_ = gradients(method.loss(made(leaves), data), leaves)  # of the logits
        assert grad.isfinite().all()
        assert (grad[unknown] == 0).all()
        assert (grad[~unknown].flatten(1) if grad.dim() > 2 else grad[~unknown]).any()


@pytest.mark.parametrize("name", METHODS)
def test_nothing_known_is_a_loss_of_zero_that_can_be_trained_with(name):
    method, stages = build(name), build(name).stages(3)
    data = batch()
    data["labels"], data["has_box"] = torch.full((6, 2), NAN), torch.zeros(6, 2, 1, dtype=torch.bool)
    for stage in stages:
        if stage.name == "alignment":
            continue
        loss = method.loss(method(data["image"], stage.name), data)
        assert loss.item() == 0
        loss.backward()
        grads = [p.grad for p in method.parameters() if p.grad is not None]
        assert grads
        assert all((grad == 0).all() for grad in grads)


def test_the_cross_entropy_of_zhang_is_a_sum_over_known_classes():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([[1, 0, NAN], [NAN, NAN, NAN], [0, 0, 1], [NAN, 1, NAN], [0, 0, 0]], dtype=torch.float64)
    known = ~labels.isnan()
    expected = F.binary_cross_entropy_with_logits(logits[known], labels[known], reduction="sum") / 4
    assert cross_entropy(logits, labels).item() == pytest.approx(expected.item(), rel=1e-12)
    full = labels.nan_to_num(0.0)
    assert torch.equal(
        cross_entropy(logits, full), F.binary_cross_entropy_with_logits(logits, full, reduction="sum") / 5
    )


def test_a_triplet_in_doubt_is_as_if_its_anchor_had_none():
    method = build("zhang", verification=0.0, margin=5.0).double().eval()
    anchors = [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [NAN, NAN]]
    positives = [[1.0, NAN], [NAN, 0.0], [0.0, NAN], [1.0, 0.0]]  # only the second may have another finding
    negatives = [[0.0, NAN], [0.0, 1.0], [NAN, 0.0], [0.0, 1.0]]  # the third may have none, as its anchor
    labels = torch.tensor([*anchors, *positives, *negatives], dtype=torch.float64)
    with torch.no_grad():
        output = method(torch.randn(12, 1, 64, 64, dtype=torch.float64), "classifiers")
    index = torch.arange(12)
    f = output.features.unflatten(0, (3, 4))
    expected = cross_entropy(output.logits[:4], labels[:4]) + TripletLoss(5.0)(*f[:, :1]) / 3  # three known anchors
    for data in ({"labels": labels, "index": index}, {"labels": labels}):
        assert_close(method.loss(output, data), expected)
    index[4] = index[8] = 0  # no triplet of the first anchor either
    alone = method.loss(output, {"labels": labels, "index": index})
    assert_close(alone, cross_entropy(output.logits[:4], labels[:4]))


def test_the_verifier_looks_at_the_top_class_among_the_known_ones():
    method = build("zhang", triplet=0.0).double().eval()
    with torch.no_grad():
        output = method(torch.randn(1, 1, 64, 64, dtype=torch.float64), "classifiers")
    output = output._replace(logits=torch.tensor([[3.0, 1.0]], dtype=torch.float64))
    seen = []
    method._region = lambda maps, classes: seen.append(classes.tolist()) or torch.ones_like(maps[:, :1]).bool()
    for labels in ([0.0, 0.0], [NAN, 0.0], [NAN, 1.0], [1.0, NAN]):
        method.loss(output, {"labels": torch.tensor([labels], dtype=torch.float64)})
    assert seen == [[[True, False]], [[False, True]], [[False, True]], [[True, False]]]


def test_a_box_outside_the_aligned_frame_makes_an_unknown_label_known():
    method = build("cia").double()
    data = batch()
    stage = method.stages(3)[-1]
    leaves, made = outputs(method, stage, data["image"].double())
    data["boxes"] = data["boxes"] + 1000.0  # no cell is left of them
    known = data | {"labels": data["labels"].clone()}
    known["labels"][0, 0] = known["labels"][3, 0] = 1.0
    assert torch.equal(method.loss(made(leaves), data), method.loss(made(leaves), known))


def test_thresholds_are_fitted_to_known_labels_and_boxes():
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(30, 1, 4, 4, generator=generator)
    labels = (torch.rand(30, 1, generator=generator) < 0.5).float()
    annotated = torch.rand(30, 1, generator=generator) < 0.3
    region = (torch.rand(30, 1, 4, 4, generator=generator) < 0.4) & annotated[..., None, None]
    region[..., 0, 0] |= annotated
    unknown = torch.rand(30, 1, generator=generator) < 0.4
    kept = (~unknown | annotated)[:, 0]
    assert 0 < (unknown & annotated).sum() < unknown.sum()
    rows = []
    for part in (
        (logits, labels.masked_fill(unknown, NAN), annotated, region),
        (logits[kept], labels[kept], annotated[kept], region[kept]),
    ):
        fit = ThresholdFit(1, quantile=0.75, patch_area=1.0)
        fit.add(*part)
        rows.append(fit.update(RozenbergLoss(1)))
    assert rows[0] == rows[1]


def record(labels, known):
    return Record("a.png", Path("a.png"), "1", frozenset(labels), known=frozenset(known))


def test_gamma_is_that_of_the_known_labels():
    records = [record(["Mass"], ["Mass"]), record([], ["Mass", "Nodule"]), record([], ["Nodule"]), record([], [])]
    method = build("rozenberg", gamma="data")
    method.before_training(records)
    assert_close(method.criterion.gamma, torch.full((2,), 1 / 3))  # one positive and three negatives


def test_an_image_with_an_unknown_label_is_no_negative(phantoms):
    records = list(read_chestxray14(phantoms).records)
    arguments = {"batch_size": 1, "seed": 0, "rank": 0, "world_size": 1}
    doubtful = [replace(one, known=one.labels) for one in records]
    with pytest.raises(CxrfastError, match="no training image is known to be without a finding"):
        build("cia", alignment_epochs=0).batch_sampler(doubtful, phantoms, **arguments)
    healthy = next(place for place, one in enumerate(records) if not one.labels and not any(one.boxes.values()))
    doubtful[healthy] = records[healthy]
    sampler = build("cia", alignment_epochs=0).batch_sampler(doubtful, phantoms, **arguments)
    assert set(range(len(records))) - {place for rows in sampler for place in rows} == {healthy}
