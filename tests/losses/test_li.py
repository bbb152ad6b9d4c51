"""LiLoss against Eq. 1 to 3 written as products over patches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.losses import LiLoss
from cxrfast.ops import box_log_likelihood
from tests.losses.inputs import batch
from tests.tolerances import assert_close


def equation_3(logits, labels, annotated, region, lambda_box, floor):
    total = 0.0
    images, classes, height, width = logits.shape
    for n in range(images):
        for k in range(classes):
            box, none = 1.0, 1.0  # p(y | x, box) and Π (1 − p)
            for i in range(height):
                for j in range(width):
                    p = 1 / (1 + math.exp(-logits[n, k, i, j]))
                    has, lacks = floor + (1 - floor) * p, floor + (1 - floor) * (1 - p)
                    box *= has if region[n, k, i, j] else lacks
                    none *= lacks
            if annotated[n, k]:
                total -= lambda_box * math.log(box)
            elif labels[n, k]:
                total -= math.log(1 - none)
            else:
                total -= math.log(none)
    return total / images


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    images=st.integers(1, 3),
    classes=st.integers(1, 3),
    size=st.integers(2, 5),
    lambda_box=st.sampled_from((0.0, 1.0, 5.0)),
    floor=st.sampled_from((0.0, 0.5, 0.98)),
)
def test_equals_the_equations(seed, images, classes, size, lambda_box, floor):
    inputs = batch(images, classes, size, seed)
    loss = LiLoss(lambda_box, floor)(*inputs)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(equation_3(*inputs, lambda_box, floor), rel=1e-9)


def test_terms_add_up_and_exclude_each_other():
    criterion = LiLoss(lambda_box=3.0)
    logits, labels, annotated, region = batch(images=5, classes=4)
    terms = criterion.terms(logits, labels, annotated, region)
    total = 3 * terms["box"] + terms["positive"] + terms["negative"]
    assert_close(total.sum() / 5, criterion(logits, labels, annotated, region))
    assert torch.equal(terms["box"] > 0, annotated)
    assert torch.equal(terms["positive"] > 0, ~annotated & (labels == 1))
    assert torch.equal(terms["negative"] > 0, ~annotated & (labels == 0))


def test_a_box_counts_whatever_the_label():
    logits, labels, annotated, region = batch()
    flipped = torch.where(annotated, 1 - labels, labels)
    assert torch.equal(LiLoss()(logits, labels, annotated, region), LiLoss()(logits, flipped, annotated, region))


def test_classes_images_and_patches_may_be_reordered():
    inputs = batch(images=4, classes=3)
    for floor in (0.0, 0.98):
        criterion = LiLoss(floor=floor)
        expected = criterion(*inputs)
        assert_close(criterion(*[x.flip(0) for x in inputs]), expected)
        assert_close(criterion(*[x.flip(1) for x in inputs]), expected)
        assert_close(criterion(*[x.transpose(2, 3) if x.dim() == 4 else x for x in inputs]), expected)


@pytest.mark.parametrize("floor", [0.0, 0.98])
@pytest.mark.parametrize("value", [50.0, -50.0, 1000.0, -1000.0])
def test_extreme_logits_have_finite_loss_and_gradient(value, floor):
    logits, labels, annotated, region = batch(dtype=torch.float32)
    logits = torch.full_like(logits, value).requires_grad_()
    loss = LiLoss(floor=floor)(logits, labels, annotated, region)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("floor", [0.0, 0.98])
def test_a_missed_image_still_pulls(floor):
    """−log p(y | x) of an image whose patches all say no: the gradient of the logit does not vanish."""
    logits = torch.full((1, 1, 4, 4), -60.0, requires_grad=True)
    none = torch.zeros(1, 1, dtype=torch.bool)
    LiLoss(floor=floor)(logits, torch.ones(1, 1), none, torch.zeros(1, 1, 4, 4, dtype=torch.bool)).backward()
    assert logits.grad.flatten().tolist() == pytest.approx([-1 / 16] * 16)


def test_rescaled_noisy_or_is_the_empty_box_likelihood():
    logits, labels, _, region = batch()
    none = torch.zeros_like(labels, dtype=torch.bool)
    terms = LiLoss(floor=0.98).terms(logits, torch.zeros_like(labels), none, region)
    assert_close(terms["negative"], -box_log_likelihood(logits, torch.zeros_like(region), floor=0.98))


def test_floor_that_float32_rounds_to_one():
    loss = LiLoss(floor=1 - 1e-9)
    assert_close(loss(*batch(dtype=torch.float32)), loss(*batch(dtype=torch.float64)).float())


def test_gradcheck():
    logits, *rest = batch()
    logits = logits.contiguous().requires_grad_()
    for floor in (0.0, 0.98):
        assert torch.autograd.gradcheck(lambda x: LiLoss(floor=floor)(x, *rest), logits)


def test_half_precision_and_empty_batch():
    logits, *rest = batch(dtype=torch.float32)
    half = LiLoss()(logits.half(), *rest)
    assert half.dtype == torch.float32
    assert_close(half, LiLoss()(logits.half().float(), *rest))
    assert LiLoss()(*[x[:0] for x in (logits, *rest)]).item() == 0


def test_compiles():
    logits, *rest = batch()
    criterion = LiLoss(floor=0.98)
    assert_close(torch.compile(criterion, fullgraph=True, backend="aot_eager")(logits, *rest), criterion(logits, *rest))


LOGITS, LABELS, ANNOTATED, REGION = batch()


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "lambda_box: expected a finite number of at least 0, got -1", lambda: LiLoss(-1)),
        (ValueError, "floor: expected at least 0 and below 1", lambda: LiLoss(floor=1.0)),
        (
            ValueError,
            r"labels: expected \[3, 2\], got \[3\]",
            lambda: LiLoss()(LOGITS, LABELS[:, 0], ANNOTATED, REGION),
        ),
        (TypeError, "annotated: expected a boolean", lambda: LiLoss()(LOGITS, LABELS, ANNOTATED.long(), REGION)),
        (TypeError, "region: expected a boolean", lambda: LiLoss()(LOGITS, LABELS, ANNOTATED, REGION.double())),
        (ValueError, "mask: expected a shape", lambda: LiLoss()(LOGITS, LABELS, ANNOTATED, REGION[..., :3])),
        (ValueError, r"logits: expected \[B, K, P, P\]", lambda: LiLoss()(LOGITS[0], LABELS, ANNOTATED, REGION)),
    ],
)
def test_wrong_input(error, message, call):
    with pytest.raises(error, match=message):
        call()
