"""WeightedBCE against Eq. 1 written as loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.losses import WeightedBCE
from tests.ops.inputs import tensor
from tests.tolerances import assert_close


def batch(images=4, classes=3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(images, classes, generator=generator) < 0.3).to(dtype)
    return tensor((images, classes), dtype=dtype, seed=seed, scale=3.0), labels


def equation_1(logits, labels):
    pairs = list(zip(logits.flatten().tolist(), labels.flatten().tolist(), strict=True))
    positives = [x for x, y in pairs if y == 1]
    negatives = [x for x, y in pairs if y == 0]
    total = 0.0
    if positives:
        total += len(pairs) / len(positives) * sum(-math.log(1 / (1 + math.exp(-x))) for x in positives)
    if negatives:
        total += len(pairs) / len(negatives) * sum(-math.log(1 - 1 / (1 + math.exp(-x))) for x in negatives)
    return total / len(pairs)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), images=st.integers(1, 5), classes=st.integers(1, 4))
def test_equals_the_equation(seed, images, classes):
    logits, labels = batch(images, classes, seed)
    assert WeightedBCE()(logits, labels).item() == pytest.approx(equation_1(logits, labels), rel=1e-9)


def test_positives_and_negatives_weigh_the_same_however_few():
    labels = torch.zeros(10, 8, dtype=torch.float64)
    labels[0, 0] = 1
    logits = torch.zeros(10, 8, dtype=torch.float64, requires_grad=True)
    WeightedBCE()(logits, labels).backward()
    assert_close(logits.grad[labels == 1].sum(), torch.tensor(-0.5, dtype=torch.float64))
    assert_close(logits.grad[labels == 0].sum(), torch.tensor(0.5, dtype=torch.float64))


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("value", [50.0, -50.0, 1000.0])
def test_one_sided_batches_and_extreme_logits_are_finite(label, value):
    logits = torch.full((2, 3), value, requires_grad=True)
    loss = WeightedBCE()(logits, torch.full((2, 3), label))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    missed = abs(value) if (value > 0) != bool(label) else 0.0
    assert loss.item() == pytest.approx(missed, abs=1e-6)


def test_half_precision_and_empty_batch():
    logits, labels = batch(dtype=torch.float32)
    assert_close(WeightedBCE()(logits.half(), labels), WeightedBCE()(logits.half().float(), labels))
    assert WeightedBCE()(logits[:0], labels[:0]).item() == 0


def test_gradcheck():
    logits, labels = batch()
    assert torch.autograd.gradcheck(lambda x: WeightedBCE()(x, labels), logits.contiguous().requires_grad_())


def test_wrong_input():
    logits, labels = batch()
    with pytest.raises(ValueError, match=r"logits: expected \[B, K\]"):
        WeightedBCE()(logits[0], labels)
    with pytest.raises(ValueError, match=r"labels: expected \[4, 3\], got \[4, 2\]"):
        WeightedBCE()(logits, labels[:, :2])
    with pytest.raises(TypeError, match="logits: expected a floating-point tensor"):
        WeightedBCE()(labels.long(), labels)
