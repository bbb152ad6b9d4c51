"""RozenbergLoss against Eq. 9 to 12 written as loops over patches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.losses import RozenbergLoss
from tests.losses.inputs import batch
from tests.tolerances import assert_close

NAMES = ("tau", "rho", "tau_hat", "rho_hat")


def relu(value):
    return max(value, 0.0)


def equation_12(logits, labels, annotated, region, criterion):
    total = 0.0
    images, classes, height, width = logits.shape
    for n in range(images):
        for k in range(classes):
            tau, rho, tau_hat, rho_hat = (getattr(criterion, name)[k].item() for name in NAMES)
            inside, outside = [], []
            for i in range(height):
                for j in range(width):
                    z = 1 / (1 + math.exp(-logits[n, k, i, j]))
                    (inside if region[n, k, i, j] else outside).append(z)
            area = sum(inside) + sum(outside)
            if criterion.area_unit == "fraction":
                area /= height * width
            if annotated[n, k]:  # Eq. 9
                lacking = relu(tau - sum(inside) / len(inside)) if inside else 0.0
                spilt = relu(sum(outside) / len(outside) - rho) if outside else 0.0
                total += criterion.lambda_ann * (lacking + criterion.gamma * spilt)
            elif labels[n, k]:
                total += relu(tau_hat - area)  # Eq. 10
            else:
                total += relu(area - rho_hat)  # Eq. 11
    return total / images


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 1000),
    images=st.integers(1, 3),
    classes=st.integers(1, 3),
    size=st.integers(2, 5),
    scale=st.sampled_from((0.5, 5.0)),
    area_unit=st.sampled_from(("patches", "fraction")),
    box=st.sampled_from(("random", "everything", "nothing")),
)
def test_equals_the_equations(seed, images, classes, size, scale, area_unit, box):
    logits, labels, annotated, region = batch(images, classes, size, seed, scale)
    if box != "random":
        region = torch.full_like(region, box == "everything")
    generator = torch.Generator().manual_seed(seed)
    tau, rho, tau_hat, rho_hat = torch.rand(4, classes, generator=generator)
    area = 1.0 if area_unit == "fraction" else size**2
    criterion = RozenbergLoss(
        classes,
        lambda_ann=7.0,
        gamma=0.3,
        tau=tau,
        rho=rho,
        tau_hat=tau_hat * area,
        rho_hat=rho_hat * area,
        area_unit=area_unit,
    )
    loss = criterion(logits, labels, annotated, region)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(equation_12(logits, labels, annotated, region, criterion), rel=1e-9, abs=1e-12)


def test_terms_add_up_and_exclude_each_other():
    criterion = RozenbergLoss(4, lambda_ann=3.0, tau=1.0, rho=0.0, tau_hat=16.0)
    logits, labels, annotated, region = batch(images=5, classes=4)
    terms = criterion.terms(logits, labels, annotated, region)
    total = 3 * terms["annotated"] + terms["positive"] + terms["negative"]
    assert_close(total.sum() / 5, criterion(logits, labels, annotated, region))
    assert torch.equal(terms["annotated"] > 0, annotated)
    assert torch.equal(terms["positive"] > 0, ~annotated & (labels == 1))
    assert torch.equal(terms["negative"] > 0, ~annotated & (labels == 0))


def test_kept_bounds_cost_nothing_and_pull_nowhere():
    region = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    region[..., :2, :2] = True
    right = torch.where(region, 40.0, -40.0).requires_grad_()
    yes, no = torch.ones(1, 1), torch.zeros(1, 1)
    criterion = RozenbergLoss(1, rho_hat=4.5)
    for label, annotated in ((yes, yes > 0), (yes, no > 0), (no, no > 0)):
        loss = criterion(right, label, annotated, region)
        (grad,) = torch.autograd.grad(loss, right)
        assert loss.item() == 0
        assert (grad == 0).all()
    on_the_bound = torch.zeros(1, 1, 2, 2, requires_grad=True)  # Σz = 2 exactly
    loss = RozenbergLoss(1, tau_hat=2.0)(on_the_bound, yes, no > 0, region[..., :2, :2])
    assert (torch.autograd.grad(loss, on_the_bound)[0] == 0).all()


def test_gradients_point_the_way():
    logits, labels, annotated, region = batch(images=6, classes=3)
    logits = logits.detach().clone().requires_grad_()
    criterion = RozenbergLoss(3, tau=1.0, rho=0.0, tau_hat=16.0, rho_hat=0.0)
    criterion(logits, labels, annotated, region).backward()
    boxed, positive = annotated[..., None, None], labels.bool()[..., None, None]
    upwards = (boxed & region) | (~boxed & positive)
    assert torch.equal(logits.grad < 0, upwards.expand_as(logits))


def test_classes_images_and_patches_may_be_reordered():
    inputs = batch(images=4, classes=3)
    thresholds = {
        "tau": [0.5, 0.7, 0.9],
        "rho": [0.1, 0.2, 0.3],
        "tau_hat": [4.0, 5.0, 6.0],
        "rho_hat": [0.0, 1.0, 2.0],
    }
    criterion = RozenbergLoss(3, **thresholds)
    expected = criterion(*inputs)
    assert_close(criterion(*[x.flip(0) for x in inputs]), expected)
    assert_close(criterion(*[x.transpose(2, 3) if x.dim() == 4 else x for x in inputs]), expected)
    flipped = RozenbergLoss(3, **{name: values[::-1] for name, values in thresholds.items()})
    assert_close(flipped(*[x.flip(1) for x in inputs]), expected)


def test_finer_patches_change_areas_in_patches_only():
    logits, labels, annotated, region = batch()
    fine = [x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in (logits, region)]
    criterion = RozenbergLoss(2, tau_hat=0.9, rho_hat=0.1, area_unit="fraction")
    assert_close(criterion(fine[0], labels, annotated, fine[1]), criterion(logits, labels, annotated, region))
    in_patches = RozenbergLoss(2, tau_hat=0.0, rho_hat=0.0)
    coarse = in_patches.terms(logits, labels, annotated, region)
    finer = in_patches.terms(fine[0], labels, annotated, fine[1])
    assert_close(finer["annotated"], coarse["annotated"])
    assert_close(finer["negative"], 4 * coarse["negative"])


@pytest.mark.parametrize("value", [50.0, -50.0, 1000.0, -1000.0])
def test_extreme_logits_have_finite_loss_and_gradient(value):
    logits, labels, annotated, region = batch(dtype=torch.float32)
    logits = torch.full_like(logits, value).requires_grad_()
    loss = RozenbergLoss(2)(logits, labels, annotated, region)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_gradcheck_away_from_the_kinks():
    logits, *rest = batch(images=2)
    logits = logits.contiguous().requires_grad_()
    for area_unit in ("patches", "fraction"):
        criterion = RozenbergLoss(2, tau=0.95, rho=0.01, tau_hat=0.99, rho_hat=0.01, area_unit=area_unit)
        assert torch.autograd.gradcheck(lambda x: criterion(x, *rest), logits)


def test_thresholds_are_frozen_buffers():
    criterion = RozenbergLoss(2, tau=[0.7, 0.8])
    assert list(criterion.parameters()) == []
    assert set(criterion.state_dict()) == set(NAMES)
    other = RozenbergLoss(2)
    other.load_state_dict(criterion.state_dict())
    assert other.tau.tolist() == pytest.approx([0.7, 0.8])
    before = criterion.rho.clone()
    criterion.set_thresholds(tau=0.5, tau_hat=torch.tensor([2.0, 3.0]))
    assert criterion.tau.tolist() == [0.5, 0.5]
    assert criterion.tau_hat.tolist() == [2, 3]
    assert torch.equal(criterion.rho, before)
    with pytest.raises(ValueError, match="rho"):
        criterion.set_thresholds(tau=0.9, rho=2.0)
    assert criterion.tau.tolist() == [0.5, 0.5]


def test_half_precision_and_empty_batch():
    logits, *rest = batch(dtype=torch.float32)
    criterion = RozenbergLoss(2)
    half = criterion(logits.half(), *rest)
    assert half.dtype == torch.float32
    assert_close(half, criterion(logits.half().float(), *rest))
    assert criterion(*[x[:0] for x in (logits, *rest)]).item() == 0


def test_compiles():
    logits, *rest = batch()
    criterion = RozenbergLoss(2)
    assert_close(torch.compile(criterion, fullgraph=True, backend="aot_eager")(logits, *rest), criterion(logits, *rest))


LOGITS, LABELS, ANNOTATED, REGION = batch()


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "lambda_ann: expected a finite number", lambda: RozenbergLoss(2, lambda_ann=float("nan"))),
        (TypeError, "gamma: expected a number, got '1'", lambda: RozenbergLoss(2, gamma="1")),
        (ValueError, "num_classes: expected at least 1, got 0", lambda: RozenbergLoss(0)),
        (ValueError, "tau: expected finite values from 0 to 1, got 1.5", lambda: RozenbergLoss(2, tau=1.5)),
        (ValueError, r"rho: expected a number or 2 of them, got \[3\]", lambda: RozenbergLoss(2, rho=[0.1] * 3)),
        (ValueError, "tau_hat: expected finite values from 0 to inf", lambda: RozenbergLoss(2, tau_hat=float("inf"))),
        (
            ValueError,
            "rho_hat: expected finite values from 0 to 1",
            lambda: RozenbergLoss(2, rho_hat=2.0, area_unit="fraction"),
        ),
        (ValueError, "area_unit: expected one of patches, fraction", lambda: RozenbergLoss(2, area_unit="pixels")),
        (ValueError, "logits: expected 3 classes, got 2", lambda: RozenbergLoss(3)(LOGITS, LABELS, ANNOTATED, REGION)),
        (ValueError, "annotated: expected", lambda: RozenbergLoss(2)(LOGITS, LABELS, ANNOTATED[0], REGION)),
    ],
)
def test_wrong_input(error, message, call):
    with pytest.raises(error, match=message):
        call()
