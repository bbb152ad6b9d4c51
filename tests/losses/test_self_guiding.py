"""SelfGuidingLoss against Eq. 4 to 9, written bag by bag and instance by instance."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.losses import BagLoss, SelfGuidingLoss
from cxrfast.nn import MILPool
from tests.ops.inputs import tensor
from tests.tolerances import assert_close


def bags(seed=0, images=4, classes=2, size=(3, 4), scale=3.0, dtype=torch.float64):
    """Random logits and labels, both kinds of label in every class."""
    logits = tensor((images, classes, *size), dtype=dtype, seed=seed, scale=scale)
    labels = (tensor((images, classes), seed=seed + 1) > 0).long()
    labels[0], labels[1] = 0, 1
    return logits, labels


def bce(p, target):
    return -target * p.log() - (1 - target) * (1 - p).log()


POOLS = {
    "max": lambda p: p.max(),
    "mean": lambda p: p.mean(),
    "softmax": lambda p: (p * p.exp()).sum() / p.exp().sum(),
}


def equation_9(
    bags_of, labels, pool, delta, lam, rescale, weighted, normalize, average_weight, median, l2, l2_form="squares"
):
    """bags_of[i][c] are the logits of a bag."""
    bag, squares, used, norms = [], [], [], []
    parts = {"zero": [], "soft": [], "one": []}  # (sum, weight, count) of every bag
    for row, row_labels in zip(bags_of, labels.tolist(), strict=True):
        for x, y in zip(row, row_labels, strict=True):
            p = x.sigmoid()
            bag.append(bce(POOLS[pool](p), y))  # Eq. 4
            with torch.no_grad():
                theta = (p - p.min()) / (p.max() - p.min()) if rescale else p  # Eq. 5
                targets = [  # Eq. 6
                    ("zero", 0.0) if y == 0 or t < delta else ("one", 1.0) if t > 1 - delta else ("soft", t.item())
                    for t in theta
                ]
                ordered = sorted(p.tolist())
                middle = ordered[(len(ordered) - 1) // 2]
                if median == "mean":
                    middle = (middle + ordered[len(ordered) // 2]) / 2
                alpha = max(max(ordered) - middle, 1 - y)  # Eq. 8
            weight = 2 ** (alpha - 1) if weighted else 1.0
            for kind, values in parts.items():  # Eq. 7
                terms = [bce(each, t) for each, (name, t) in zip(p, targets, strict=True) if name == kind]
                values.append((sum(terms, torch.zeros(())), weight, len(terms)))
            positives = [each**2 for each, (name, _) in zip(p, targets, strict=True) if name != "zero"]
            squares.append(sum(positives, torch.zeros(())))
            used.append(len(positives))
            # ‖M‖₂, with the gradient of θ where M = θ
            live = (p - p.min()) / (p.max() - p.min()) if rescale else p
            values = {"zero": lambda j: 0.0, "soft": lambda j, live=live: live[j] ** 2, "one": lambda j: 1.0}
            total = sum((values[name](j) for j, (name, _) in enumerate(targets)), torch.zeros((), dtype=p.dtype))
            norms.append(total.sqrt() if total > 0 else total.detach())

    def instance(values):
        if normalize == "bag":
            return sum(weight * total / max(n, 1) for total, weight, n in values) / len(values)
        count = max(sum(n for _, _, n in values), 1)
        if average_weight:
            mean_weight = sum(weight * n for _, weight, n in values) / count
            return sum(total for total, _, _ in values) / count * mean_weight
        return sum(weight * total for total, weight, _ in values) / count

    penalty = sum(squares) / max(sum(used), 1)
    if normalize == "bag":
        penalty = sum(s / max(n, 1) for s, n in zip(squares, used, strict=True)) / len(squares)
    if l2_form == "norm":
        penalty = sum(norms) / len(norms)
    return sum(bag) / len(bag) + lam * sum(instance(v) for v in parts.values()) + l2 * penalty  # Eq. 9


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    images=st.integers(2, 5),
    classes=st.integers(1, 3),
    size=st.sampled_from([(2,), (7,), (3, 4), (2, 2, 2)]),
    pool=st.sampled_from(list(POOLS)),
    delta=st.sampled_from((0.05, 0.3, 0.45)),
    lam=st.sampled_from((0.0, 1.0, 20.0)),
    rescale=st.booleans(),
    weighted=st.booleans(),
    normalization=st.sampled_from((("batch", False), ("batch", True), ("bag", False))),
    median=st.sampled_from(("lower", "mean")),
    l2=st.sampled_from((0.0, 0.1)),
    l2_form=st.sampled_from(("squares", "norm")),
)
def test_equals_the_equations(
    seed, images, classes, size, pool, delta, lam, rescale, weighted, normalization, median, l2, l2_form
):
    logits, labels = bags(seed, images, classes, size)
    logits = logits.contiguous().requires_grad_()
    options = {"rescale": rescale, "weighted": weighted, "median": median, "l2": l2, "l2_form": l2_form}
    options["normalize"], options["average_weight"] = normalization
    rows = [list(row.unbind()) for row in logits.flatten(2)]
    expected = equation_9(rows, labels, pool, delta, lam, **options)
    loss = SelfGuidingLoss(pool, delta, lam, **options)(logits, labels)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    (grad,), (expected_grad,) = torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 6), min_size=2, max_size=6),
    seed=st.integers(0, 100),
    l2_form=st.sampled_from(("squares", "norm")),
)
def test_bags_of_different_sizes(sizes, seed, l2_form):
    x = tensor((sum(sizes), 2), dtype=torch.float64, seed=seed, scale=3).contiguous().requires_grad_()
    labels = torch.arange(2 * len(sizes)).view(-1, 2) % 3 == 1
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    rows = [list(part.unbind(1)) for part in x.split(sizes)]
    options = ("softmax", 0.3, 2.0, True, True, "batch", False, "lower", 0.4, l2_form)
    expected = equation_9(rows, labels.long(), *options)
    criterion = SelfGuidingLoss("softmax", 0.3, 2.0, l2=0.4, l2_form=l2_form)
    loss = criterion(x, labels, offsets=offsets)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    (grad,), (expected_grad,) = torch.autograd.grad(loss, x), torch.autograd.grad(expected, x)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-12)
    padded = torch.nn.utils.rnn.pad_sequence(x.detach().split(sizes), batch_first=True, padding_value=float("nan"))
    mask = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None, None]
    assert_close(criterion(padded.movedim(1, 2), labels, mask=mask), loss.detach())


@pytest.mark.parametrize("pool", ["softmax", "max", "noisy_or"])
@pytest.mark.parametrize("value", [0.0, 50.0, -50.0])
@pytest.mark.parametrize("l2_form", ["squares", "norm"])
def test_degenerate_batches_are_finite(pool, value, l2_form):
    criterion = SelfGuidingLoss(pool, l2=0.1, l2_form=l2_form)
    for shape in ((3, 2, 4, 4), (3, 2, 1), (3, 2, 2)):  # constant bags; bags of one instance
        for label in (0.0, 1.0):
            logits = torch.full(shape, value, requires_grad=True)
            loss = criterion(logits, torch.full((3, 2), label))
            loss.backward()
            assert loss.isfinite()
            assert logits.grad.isfinite().all()


def test_a_batch_without_positives_has_only_negative_targets():
    logits, labels = bags()
    logits = logits.contiguous().requires_grad_()
    criterion = SelfGuidingLoss("max")
    terms = criterion.terms(logits, torch.zeros_like(labels))
    assert terms["soft"] == terms["positive"] == 0
    torch.testing.assert_close(terms["negative"], -(1 - logits.sigmoid()).log().mean())
    criterion(logits, torch.zeros_like(labels)).backward()
    assert (logits.grad > 0).all()


def test_constant_positive_bags_leave_only_the_bag_loss():
    logits = torch.full((2, 3, 5), 0.7, dtype=torch.float64, requires_grad=True)
    loss, bag = SelfGuidingLoss("mean")(logits, torch.ones(2, 3)), BagLoss("mean")(logits, torch.ones(2, 3))
    assert_close(loss.detach(), bag.detach())
    assert_close(torch.autograd.grad(loss, logits)[0], torch.autograd.grad(bag, logits)[0])


def test_bags_without_instances_do_not_count():
    logits, labels = bags()
    mask = torch.ones(4, 1, 3, 4, dtype=torch.bool)
    mask[2] = False
    others = [0, 1, 3]
    for options in ({}, {"l2": 0.1, "median": "mean"}, {"l2": 0.1, "l2_form": "norm"}):
        for pool in ("softmax", "max", "noisy_or"):
            criterion = SelfGuidingLoss(pool, **options)
            expected = criterion(logits[others], labels[others])
            x = logits.contiguous().requires_grad_()
            loss = criterion(x, labels, mask=mask)
            assert_close(loss.detach(), expected)
            (grad,) = torch.autograd.grad(loss, x)
            assert grad.isfinite().all()
            assert (grad[2] == 0).all()
    for criterion in (SelfGuidingLoss(), SelfGuidingLoss(l2=0.1, l2_form="norm")):
        assert criterion(logits[..., :0], labels).item() == 0
        assert criterion(logits[:0], labels[:0]).item() == 0


def test_terms_add_up():
    logits, labels = bags()
    for l2_form in ("squares", "norm"):
        criterion = SelfGuidingLoss("max", lam=5.0, l2=0.2, l2_form=l2_form)
        terms = criterion.terms(logits, labels)
        total = terms["bag"] + 5 * (terms["negative"] + terms["soft"] + terms["positive"]) + 0.2 * terms["l2"]
        assert_close(total, criterion(logits, labels))
    assert_close(terms["bag"], BagLoss("max")(logits, labels))
    assert "l2" not in SelfGuidingLoss().terms(logits, labels)


def test_weights_lie_between_a_half_and_one():
    """α of a positive bag is what separates its greatest prediction from its median."""
    sure = torch.tensor([[[20.0, -20.0, -20.0]]], dtype=torch.float64)
    plain, weighted = (SelfGuidingLoss(weighted=each).terms(sure, torch.ones(1, 1)) for each in (False, True))
    torch.testing.assert_close(weighted["negative"], plain["negative"])  # α = 1
    unsure = sure.flip(2).abs() - torch.tensor([0.0, 0.0, 0.1])
    plain, weighted = (SelfGuidingLoss(weighted=each).terms(unsure, torch.ones(1, 1)) for each in (False, True))
    torch.testing.assert_close(weighted["positive"], plain["positive"] / 2, rtol=1e-6, atol=0)  # α = 0


def test_classes_bags_and_instances_may_be_reordered():
    logits, labels = bags(classes=3)
    for criterion in (SelfGuidingLoss("softmax"), SelfGuidingLoss("max", normalize="bag", median="mean")):
        expected = criterion(logits, labels)
        assert_close(criterion(logits.flip(0), labels.flip(0)), expected)
        assert_close(criterion(logits.flip(1), labels.flip(1)), expected)
        assert_close(criterion(logits.transpose(2, 3), labels), expected)


def test_any_pooling():
    logits, labels = bags()
    auto = MILPool("auto", num_classes=2, learnable=True)
    SelfGuidingLoss(auto)(logits, labels).backward()
    assert (auto.sharpness.grad != 0).all()
    assert_close(
        SelfGuidingLoss(MILPool("lse", sharpness=4.0))(logits, labels),
        SelfGuidingLoss("lse", sharpness=4.0)(logits, labels),
    )

    class Mean(torch.nn.Module):
        def forward(self, logits):
            return logits.flatten(2).mean(2)

    assert SelfGuidingLoss(Mean())(logits, labels).isfinite()
    offsets = torch.tensor([0, 2, 3])
    flat = logits[0, :, 0].T  # [4, 2]
    assert SelfGuidingLoss(auto)(flat[:3], labels[:2], offsets=offsets).isfinite()


def test_half_precision_and_kinds_of_labels():
    logits, labels = bags(dtype=torch.float32)
    half = SelfGuidingLoss()(logits.half(), labels)
    assert half.dtype == torch.float32
    assert_close(half, SelfGuidingLoss()(logits.half().float(), labels))
    for dtype in (torch.bool, torch.int32, torch.float16):
        assert_close(SelfGuidingLoss()(logits, labels.to(dtype)), SelfGuidingLoss()(logits, labels))


def test_compiles():
    logits, labels = bags()
    mask = torch.ones(4, 1, 3, 4, dtype=torch.bool)
    for l2_form in ("squares", "norm"):
        criterion = SelfGuidingLoss("max", lam=20.0, l2=0.1, l2_form=l2_form)
        compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
        assert_close(compiled(logits, labels), criterion(logits, labels))
        assert_close(compiled(logits, labels, mask=mask), criterion(logits, labels))


def test_the_norm_of_the_mask_falls_where_targets_are_soft():
    """‖M‖₂ of (0, θ, 1): θ is pushed down, and the extremes apart."""
    logits = torch.tensor([[[-1.0, 0.0, 1.0]]], dtype=torch.float64, requires_grad=True)
    p = logits.detach().sigmoid().flatten()
    theta = ((p[1] - p[0]) / (p[2] - p[0])).item()
    norm = SelfGuidingLoss("max", lam=0.0, l2=1.0, l2_form="norm").terms(logits, torch.ones(1, 1))["l2"]
    assert norm.item() == pytest.approx(math.sqrt(theta**2 + 1), rel=1e-12)
    norm.backward()
    low, soft, high = logits.grad.flatten().tolist()
    assert low < 0 < soft
    assert high < 0
    assert SelfGuidingLoss(l2=1.0, l2_form="norm").terms(logits, torch.zeros(1, 1))["l2"] == 0


def test_learns_which_instances_are_positive():
    """Bags of numbers, positive where one of them is beyond 1: SGL marks those, as the bag loss alone does not."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 1, 20, generator=generator)
    y = (x.amax(2) > 1.8).float()
    network = torch.nn.Sequential(torch.nn.Linear(1, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    optimizer, criterion = torch.optim.Adam(network.parameters(), 0.02), SelfGuidingLoss("max")
    for _ in range(150):
        loss = criterion(network(x.view(-1, 1)).view(200, 1, 20), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predicted = network(x.view(-1, 1)).view(200, 1, 20) > 0
    truth = (x > 1.8) & (y > 0)[..., None]
    assert (predicted & truth).sum() / (predicted | truth).sum() > 0.5


LOGITS, LABELS = bags()


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "pool: expected one of noisy_or, .*, got 'median'", lambda: SelfGuidingLoss("median")),
        (TypeError, "pool: expected the name of a mode or a torch.nn.Module, got 3", lambda: SelfGuidingLoss(3)),
        (ValueError, "delta: expected at least 0 and at most 0.5, got 0.6", lambda: SelfGuidingLoss(delta=0.6)),
        (ValueError, "lam: expected a finite number of at least 0, got -1", lambda: SelfGuidingLoss(lam=-1)),
        (ValueError, f"l2: .* got {math.nan}", lambda: SelfGuidingLoss(l2=math.nan)),
        (ValueError, "l2_form: expected one of squares, norm, got 'l2'", lambda: SelfGuidingLoss(l2_form="l2")),
        (ValueError, "normalize: expected one of batch, bag, got 'image'", lambda: SelfGuidingLoss(normalize="image")),
        (ValueError, "average_weight: .*", lambda: SelfGuidingLoss(normalize="bag", average_weight=True)),
        (ValueError, "median: expected one of lower, mean", lambda: SelfGuidingLoss(median="upper")),
        (ValueError, "sharpness: expected None, because pool 'max'", lambda: SelfGuidingLoss("max", sharpness=1.0)),
        (ValueError, "sharpness: .* has its own", lambda: SelfGuidingLoss(MILPool(), sharpness=1.0)),
        (ValueError, r"labels: expected \[4, 2\], got \[4\]", lambda: SelfGuidingLoss()(LOGITS, LABELS[:, 0])),
        (ValueError, r"logits: expected \[B, K, \*\]", lambda: SelfGuidingLoss()(LOGITS[:, :, 0, 0], LABELS)),
        (
            ValueError,
            "mask: expected None, because offsets are given",
            lambda: SelfGuidingLoss()(LOGITS[:, :, 0, 0], LABELS[:1], mask=LABELS > 0, offsets=torch.tensor([0, 4])),
        ),
    ],
)
def test_wrong_input(error, message, call):
    with pytest.raises(error, match=message):
        call()
