"""The losses of Seibold et al. 2020 against §3.2 of the text in plain Python: numbers, loops and derivatives by hand.

Nothing here is shared with the package, and nothing is differentiated by torch but the losses that are tested.
"""

import math
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.losses import BagLoss, BILLoss, MMMLoss, SelfGuidingLoss


def cross_entropy(p, target):
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def pooled(p, pool):
    """Φ of Eq. 3 and its derivative by every p_j."""
    n = len(p)
    if pool == "mean":
        return sum(p) / n, [1 / n] * n
    if pool == "max":
        return max(p), [float(j == p.index(max(p))) for j in range(n)]
    weights = [math.exp(v) for v in p]  # softmax pooling
    total = sum(weights)
    value = sum(w * v for w, v in zip(weights, p, strict=True)) / total
    return value, [w / total * (1 + v - value) for w, v in zip(weights, p, strict=True)]


@dataclass
class Bag:
    """One bag for one class: its predictions p, label y, and the derivative of the loss by each logit so far."""

    logits: list[float]
    y: int
    gradient: list[float] = field(default_factory=list)

    def __post_init__(self):
        self.p = [1 / (1 + math.exp(-x)) for x in self.logits]
        self.gradient = [0.0] * len(self.p)

    def add(self, j, by_p):
        """A derivative by p_j: times dp/dx = p (1 − p)."""
        self.gradient[j] += by_p * self.p[j] * (1 - self.p[j])

    def bag_loss(self, pool, target, factor):
        """L(Φ(p), target), times a factor."""
        value, slopes = pooled(self.p, pool)
        for j, slope in enumerate(slopes):
            self.add(j, factor * slope * (value - target) / (value * (1 - value)))
        return factor * cross_entropy(value, target)

    def instance_loss(self, j, target, factor):
        """L(p_j, target), times a factor; its derivative by the logit is p − target."""
        self.gradient[j] += factor * (self.p[j] - target)
        return factor * cross_entropy(self.p[j], target)


def theta_of(bag):
    """Eq. 5."""
    low, high = min(bag.p), max(bag.p)
    return [(v - low) / (high - low) for v in bag.p]


def mask_of(bag, delta):
    """Eq. 6, and the kind of supervision of each instance: 0, θ or 1."""
    values, kinds = [], []
    for theta in theta_of(bag):
        if theta < delta or bag.y == 0:
            values.append(0.0)
            kinds.append("0")
        elif theta <= 1 - delta:
            values.append(theta)
            kinds.append("θ")
        else:
            values.append(1.0)
            kinds.append("1")
    return values, kinds


def alpha_of(bag, median):
    """Eq. 8."""
    ordered = sorted(bag.p)
    n = len(ordered)
    lower, upper = ordered[(n - 1) // 2], ordered[n // 2]
    middle = lower if median == "lower" else (lower + upper) / 2
    return max(max(bag.p) - middle, 1 - bag.y)


def self_guiding(bags, pool, delta, lam, *, normalize="batch", median="lower", l2=0.0, l2_form="squares"):
    """Eq. 9 and the penalty of §3.3."""
    count = len(bags)  # C · N
    loss = sum(bag.bag_loss(pool, bag.y, 1 / count) for bag in bags)  # Eq. 4
    masks = [mask_of(bag, delta) for bag in bags]
    numbers = {kind: sum(kinds.count(kind) for _, kinds in masks) for kind in "0θ1"}
    for bag, (mask, kinds) in zip(bags, masks, strict=True):  # Eq. 7
        weight = 2 ** (alpha_of(bag, median) - 1)
        for j, (target, kind) in enumerate(zip(mask, kinds, strict=True)):
            number = numbers[kind] if normalize == "batch" else kinds.count(kind) * count
            loss += bag.instance_loss(j, target, lam * weight / number)
    if l2 and l2_form == "squares":
        used = [(bag, j) for bag, (mask, _) in zip(bags, masks, strict=True) for j, v in enumerate(mask) if v != 0]
        for bag, j in used:
            bag.add(j, l2 * 2 * bag.p[j] / len(used))
            loss += l2 * bag.p[j] ** 2 / len(used)
    elif l2:
        loss += sum(norm(bag, *mask, l2 / count) for bag, mask in zip(bags, masks, strict=True))
    return loss


def norm(bag, mask, kinds, factor):
    """‖M‖₂; θ_j moves with p_j, with the least and with the greatest prediction."""
    value = math.sqrt(sum(v**2 for v in mask))
    if value == 0:
        return 0.0
    low, high = bag.p.index(min(bag.p)), bag.p.index(max(bag.p))
    spread = bag.p[high] - bag.p[low]
    for j, (theta, kind) in enumerate(zip(mask, kinds, strict=True)):
        if kind == "θ":
            slope = factor * theta / value / spread
            bag.add(j, slope)
            bag.add(low, slope * (theta - 1))
            bag.add(high, -slope * theta)
    return factor * value


def bil(bags, pool, lam):
    """Figure 2, center left: the bag's label for the bag, and 1 for what is over 0.5."""
    instances = sum(len(bag.p) for bag in bags)
    loss = 0.0
    for bag in bags:
        loss += bag.bag_loss(pool, bag.y, 1 / len(bags))
        for j, p in enumerate(bag.p):
            loss += bag.instance_loss(j, 1.0 if p > 0.5 and bag.y else 0.0, lam / instances)
    return loss


def mmm(bags):
    """Figure 2, center right: the maximum has the bag's label, the minimum 0, the mean half the label."""
    loss, factor = 0.0, 1 / (3 * len(bags))
    for bag in bags:
        loss += bag.bag_loss("max", bag.y, factor)
        loss += bag.bag_loss("mean", bag.y / 2, factor)
        least = bag.p.index(min(bag.p))
        loss += bag.instance_loss(least, 0.0, factor)
    return loss


@st.composite
def batches(draw):
    """Logits of bags of different sizes for some classes, none equal; labels of both kinds or of one."""
    sizes = draw(st.lists(st.integers(2, 7), min_size=1, max_size=5))
    classes = draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([0.01, 1.0, 4.0]))
    logits = scale * torch.randn(sum(sizes), classes, dtype=torch.float64, generator=generator)
    labels = torch.randint(2, (len(sizes), classes), generator=generator)
    return sizes, logits, labels


def check(criterion, plain, batch):
    """Value and gradient, for ragged bags and for the same bags padded under a mask."""
    sizes, x, labels = batch
    bags = [
        [Bag(part[:, k].tolist(), int(labels[b, k])) for k in range(x.shape[1])]
        for b, part in enumerate(x.split(sizes))
    ]
    value = plain([bag for row in bags for bag in row])
    gradient = torch.cat([torch.tensor([bag.gradient for bag in row], dtype=torch.float64).T for row in bags])
    leaf = x.clone().requires_grad_()
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    padded = torch.nn.utils.rnn.pad_sequence(leaf.split(sizes), batch_first=True).movedim(1, 2)
    mask = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None, None]
    for loss in (criterion(leaf, labels, offsets=offsets), criterion(padded, labels, mask=mask)):
        assert loss.item() == pytest.approx(value, rel=1e-9, abs=1e-9)
        (found,) = torch.autograd.grad(loss, leaf)
        torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-9)


EXAMPLES = settings(max_examples=30, deadline=None)


@EXAMPLES
@given(batches(), st.sampled_from(["softmax", "max", "mean"]))
def test_the_bag_loss_is_equation_4(batch, pool):
    check(BagLoss(pool), lambda bags: sum(bag.bag_loss(pool, bag.y, 1 / len(bags)) for bag in bags), batch)


@EXAMPLES
@given(
    batches(),
    st.sampled_from(["softmax", "max", "mean"]),
    st.sampled_from([0.0, 0.3, 0.45, 0.5]),
    st.sampled_from([1.0, 20.0]),
    st.sampled_from(["batch", "bag"]),
    st.sampled_from(["lower", "mean"]),
)
def test_the_self_guiding_loss_is_equations_4_to_9(batch, pool, delta, lam, normalize, median):
    options = {"normalize": normalize, "median": median}
    check(
        SelfGuidingLoss(pool, delta, lam, **options),
        lambda bags: self_guiding(bags, pool, delta, lam, **options),
        batch,
    )


@EXAMPLES
@given(batches(), st.sampled_from(["squares", "norm"]), st.sampled_from([0.1, 0.3]))
def test_the_penalty_in_both_readings(batch, l2_form, delta):
    options = {"l2": 0.7, "l2_form": l2_form}
    check(
        SelfGuidingLoss("softmax", delta, 20.0, **options),
        lambda bags: self_guiding(bags, "softmax", delta, 20.0, **options),
        batch,
    )


@EXAMPLES
@given(batches(), st.sampled_from(["max", "mean"]), st.sampled_from([1.0, 3.0]))
def test_bil_is_what_figure_2_shows(batch, pool, lam):
    check(BILLoss(pool, lam), lambda bags: bil(bags, pool, lam), batch)


@EXAMPLES
@given(batches())
def test_mmm_is_what_figure_2_shows(batch):
    check(MMMLoss(), mmm, batch)


def test_the_weight_of_a_bag_runs_from_a_half_to_one():
    """§3.2 after Eq. 8: α is 0 for equal predictions, near 1 where few stand out, and 1 for negative bags."""
    flat, clear = Bag([0.0, 0.0, 1e-9], 1), Bag([30.0, -30.0, -30.0, -30.0], 1)
    assert alpha_of(flat, "lower") == pytest.approx(0, abs=1e-9)
    assert alpha_of(clear, "lower") == pytest.approx(1, abs=1e-9)
    assert alpha_of(Bag([3.0, 1.0], 0), "lower") == 1
