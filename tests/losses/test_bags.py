"""BagLoss, BILLoss and MMMLoss against their formulas, bag by bag."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.losses import BagLoss, BILLoss, MMMLoss
from cxrfast.nn import MILPool
from tests.losses.test_self_guiding import bags, bce
from tests.ops.inputs import tensor
from tests.tolerances import assert_close


def bag_loss(p, y, pool=torch.max):
    return bce(pool(p), y)


def instance_loss(p, y):
    return torch.stack([bce(each, 1.0 if y and each > 0.5 else 0.0) for each in p])


def script_loss(p, y, lam):
    bag, instance = bag_loss(p, y, torch.mean), instance_loss(p, y).mean()
    return bag + lam * (bag.detach() - instance) ** 2 if y else lam * instance


def minmax_loss(p, y):
    return (bce(p.max(), y) + bce(p.mean(), y / 2) + bce(p.min(), 0.0)) / 3


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), sizes=st.lists(st.integers(1, 5), min_size=1, max_size=5), classes=st.integers(1, 3))
def test_equal_their_formulas_for_maps_masks_and_ragged_bags(seed, sizes, classes):
    x = tensor((sum(sizes), classes), dtype=torch.float64, seed=seed, scale=3).contiguous().requires_grad_()
    labels = (tensor((len(sizes), classes), seed=seed + 1) > 0).long()
    pairs = [
        (p.sigmoid(), y.item())
        for part, row in zip(x.split(sizes), labels, strict=True)
        for p, y in zip(part.unbind(1), row, strict=True)
    ]
    expected = {
        BagLoss("max"): torch.stack([bag_loss(p, y) for p, y in pairs]).mean(),
        BILLoss(lam=3.0): torch.stack([bag_loss(p, y, torch.mean) for p, y in pairs]).mean()
        + 3 * torch.cat([instance_loss(p, y) for p, y in pairs]).mean(),
        BILLoss("max", lam=3.0): torch.stack([bag_loss(p, y) for p, y in pairs]).mean()
        + 3 * torch.cat([instance_loss(p, y) for p, y in pairs]).mean(),
        BILLoss(lam=2.0, form="script"): torch.stack([script_loss(p, y, 2.0) for p, y in pairs]).mean(),
        MMMLoss(): torch.stack([minmax_loss(p, y) for p, y in pairs]).mean(),
    }
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    mask = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None, None]
    padded = torch.nn.utils.rnn.pad_sequence(x.split(sizes), batch_first=True).movedim(1, 2)
    for criterion, value in expected.items():
        (expected_grad,) = torch.autograd.grad(value, x, retain_graph=True)
        for loss in (criterion(x, labels, offsets=offsets), criterion(padded, labels, mask=mask)):
            assert loss.item() == pytest.approx(value.item(), rel=1e-9)
            (grad,) = torch.autograd.grad(loss, x, retain_graph=True)
            torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-12)


def test_terms_add_up():
    logits, labels = bags()
    terms = BILLoss("softmax", lam=2.0).terms(logits, labels)
    assert_close(terms["bag"] + 2 * terms["instance"], BILLoss("softmax", lam=2.0)(logits, labels))
    terms = BILLoss(lam=2.0, form="script").terms(logits, labels)
    assert_close(terms["bag"] + 2 * terms["instance"], BILLoss(lam=2.0, form="script")(logits, labels))
    terms = MMMLoss("mean").terms(logits, labels)
    assert_close(terms["bag"] + terms["mean"] + terms["min"], 3 * MMMLoss("mean")(logits, labels))
    assert_close(BagLoss("max").terms(logits, labels)["bag"], BagLoss("max")(logits, labels))


def test_an_instance_label_needs_more_than_a_half():
    """p = 0.5 is not more than 0.5: an untrained network's instances are all negative."""
    logits = torch.zeros(1, 1, 4, requires_grad=True)
    BILLoss("mean").terms(logits, torch.ones(1, 1))["instance"].backward()
    assert (logits.grad == 0.5 / 4).all()


@pytest.mark.parametrize("criterion", [BagLoss("noisy_or"), BILLoss(), BILLoss("max", form="script"), MMMLoss()])
def test_extreme_and_empty_bags(criterion):
    for value in (50.0, -50.0, 1000.0, -1000.0):
        logits = torch.full((2, 1, 3), value, requires_grad=True)
        loss = criterion(logits, torch.tensor([[0], [1]]))
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()
    logits, labels = bags()
    mask = torch.ones(4, 1, 3, 4, dtype=torch.bool)
    mask[2] = False
    others = [0, 1, 3]
    logits = logits.contiguous().requires_grad_()
    loss = criterion(logits, labels, mask=mask)
    assert_close(loss.detach(), criterion(logits[others], labels[others]).detach())
    (grad,) = torch.autograd.grad(loss, logits)
    assert grad.isfinite().all()
    assert (grad[2] == 0).all()
    assert criterion(logits[:0], labels[:0]).item() == 0


@pytest.mark.parametrize("criterion", [BagLoss("noisy_or"), BILLoss(), BILLoss("max", form="script"), MMMLoss()])
def test_half_precision_and_compile(criterion):
    logits, labels = bags(dtype=torch.float32)
    assert criterion(logits.half(), labels).dtype == torch.float32
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    assert_close(compiled(logits, labels), criterion(logits, labels))


def test_learnable_pooling():
    logits, labels = bags()
    pool = MILPool("lse", learnable=True)
    criterion = BagLoss(pool)
    assert list(criterion.parameters()) == [pool.sharpness]
    criterion(logits, labels).backward()
    assert pool.sharpness.grad != 0


LOGITS, LABELS = bags()


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "pool: expected one of", lambda: BagLoss("median")),
        (ValueError, "lam: expected a finite number", lambda: BILLoss(lam=-1)),
        (ValueError, "form: expected one of sum, script, got 'product'", lambda: BILLoss(form="product")),
        (ValueError, r"labels: expected \[4, 2\], got \[4\]", lambda: MMMLoss()(LOGITS, LABELS[:, 0])),
        (TypeError, "mask: expected a boolean tensor", lambda: BILLoss()(LOGITS, LABELS, mask=LOGITS)),
    ],
)
def test_wrong_input(error, message, call):
    with pytest.raises(error, match=message):
        call()
