"""Unknown labels: every loss equals that of the known pairs alone, with its gradient."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.losses import (
    BagLoss,
    BILLoss,
    LiLoss,
    MMMLoss,
    RozenbergLoss,
    SelfGuidingLoss,
    WeightedBCE,
    binary_cross_entropy,
)
from cxrfast.losses.unknown import mean_of_known
from tests.losses.inputs import batch
from tests.ops.inputs import tensor

SIZE = 4
OF_BAGS = {
    "bag": lambda: BagLoss("lse", sharpness=5.0),
    "bil": lambda: BILLoss("max", lam=2.0),
    "bil-script": lambda: BILLoss(lam=2.0, form="script"),
    "mmm": MMMLoss,
    "sgl": lambda: SelfGuidingLoss(lam=20.0),
    "sgl-squares": lambda: SelfGuidingLoss("max", lam=2.0, l2=0.1, median="mean"),
    "sgl-norm": lambda: SelfGuidingLoss("noisy_or", lam=2.0, l2=0.1, l2_form="norm"),
    "sgl-average": lambda: SelfGuidingLoss("mean", lam=2.0, average_weight=True, rescale=False),
    "sgl-bag": lambda: SelfGuidingLoss("softmax", lam=2.0, normalize="bag", l2=0.1),
}
OF_PAIRS = {"wang": WeightedBCE, "cross-entropy": lambda: binary_cross_entropy}
OF_PATCHES = {
    "li": lambda k: LiLoss(),
    "li-floor": lambda k: LiLoss(2.0, floor=0.98),
    "rozenberg": lambda k: RozenbergLoss(k, gamma=0.3, tau_hat=9.0, rho_hat=0.5),
    "rozenberg-fraction": lambda k: RozenbergLoss(k, gamma=0.3, tau_hat=0.9, rho_hat=0.1, area_unit="fraction"),
    "rozenberg-sigmoid": lambda k: RozenbergLoss(k, gamma=0.3, lambda_ann=7.0, relaxation="sigmoid"),
}


def drawn(seed, images, classes, share):
    """Labels, some of them unknown; logits of patches [B, K, P, P], boxes and their patches."""
    logits, labels, annotated, region = batch(images, classes, SIZE, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    unknown = torch.rand(images, classes, generator=generator) < share
    return logits.contiguous().requires_grad_(), labels.masked_fill(unknown, torch.nan), annotated, region


def alone(criterion, logits, labels, known):
    """The loss of the known pairs, each as an image of one class: all that is unknown is gone."""
    return criterion(logits[known][:, None], labels[known][:, None])


def patches_alone(build, logits, labels, annotated, region):
    """The sum over the known pairs, one after the other, divided by the number of images that have any."""
    total, images, one = logits.sum() * 0, set(), build(1)
    for i in range(logits.shape[0]):
        for k in range(logits.shape[1]):
            if not labels[i, k].isnan() or annotated[i, k]:
                at = (slice(i, i + 1), slice(k, k + 1))
                total = total + one(logits[at], labels[at].nan_to_num(7.0), annotated[at], region[at])
                images.add(i)
    return total / max(len(images), 1)


def check(loss, expected, logits, unknown):
    """Values and gradients to 1e-9; exactly no gradient where unknown."""
    (grad,), (expected_grad,) = (torch.autograd.grad(of, logits, retain_graph=True) for of in (loss, expected))
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-12)
    assert (grad[unknown] == 0).all()


@pytest.mark.parametrize("name", OF_BAGS)
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000), images=st.integers(1, 5), classes=st.integers(1, 3), share=st.sampled_from((0.2, 0.6))
)
def test_bags_with_unknown_labels_equal_the_known_ones_alone(name, seed, images, classes, share):
    criterion = OF_BAGS[name]()
    logits, labels, _, _ = drawn(seed, images, classes, share)
    known = ~labels.isnan()
    expected = alone(criterion, logits, labels, known) if known.any() else logits.sum() * 0
    check(criterion(logits, labels), expected, logits, ~known)


@pytest.mark.parametrize("name", OF_BAGS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_masked_and_ragged_bags_with_unknown_labels(name, seed, sizes):
    criterion, classes = OF_BAGS[name](), 2
    x = tensor((sum(sizes), classes), dtype=torch.float64, seed=seed, scale=3).contiguous().requires_grad_()
    _, labels, _, _ = drawn(seed, len(sizes), classes, 0.4)
    known, offsets = ~labels.isnan(), torch.tensor([0, *sizes]).cumsum(0)
    pairs = [(i, k) for i in range(len(sizes)) for k in range(classes) if known[i, k]]
    bags = [x[offsets[i] : offsets[i + 1], k] for i, k in pairs]
    if bags:
        ends = torch.tensor([0, *(len(bag) for bag in bags)]).cumsum(0)
        expected = criterion(torch.cat(bags)[:, None], labels[known][:, None].long(), offsets=ends)
    else:
        expected = x.sum() * 0
    in_unknown = (~known).repeat_interleave(torch.tensor(sizes), 0)
    check(criterion(x, labels, offsets=offsets), expected + x.sum() * 0, x, in_unknown)
    mask = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None, None]
    padded = torch.nn.utils.rnn.pad_sequence(x.split(sizes), batch_first=True).movedim(1, 2)
    check(criterion(padded, labels, mask=mask) + x.sum() * 0, expected + x.sum() * 0, x, in_unknown)


@pytest.mark.parametrize("name", OF_PAIRS)
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000), images=st.integers(1, 5), classes=st.integers(1, 3), share=st.sampled_from((0.2, 0.6))
)
def test_pairs_with_unknown_labels_equal_the_known_ones_alone(name, seed, images, classes, share):
    criterion = OF_PAIRS[name]()
    _, labels, _, _ = drawn(seed, images, classes, share)
    logits = tensor((images, classes), dtype=torch.float64, seed=seed, scale=3).contiguous().requires_grad_()
    known = ~labels.isnan()
    check(criterion(logits, labels), alone(criterion, logits, labels, known), logits, ~known)


@pytest.mark.parametrize("name", OF_PATCHES)
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000), images=st.integers(1, 5), classes=st.integers(1, 3), share=st.sampled_from((0.2, 0.6))
)
def test_patches_with_unknown_labels_equal_the_known_ones_alone(name, seed, images, classes, share):
    logits, labels, annotated, region = drawn(seed, images, classes, share)
    expected = patches_alone(OF_PATCHES[name], logits, labels, annotated, region)
    loss = OF_PATCHES[name](classes)(logits, labels, annotated, region)
    check(loss, expected, logits, labels.isnan() & ~annotated)


def of_pairs(build):
    """The loss as a function of patch logits [B, K, P, P] and labels [B, K], as the losses of bags are."""
    criterion = build()
    return lambda x, y: criterion(x.mean(dim=(2, 3)), y)


def without_boxes(build):
    of_classes = {classes: build(classes) for classes in (2, 3)}

    def criterion(x, y):
        region = torch.zeros_like(x, dtype=torch.bool)
        return of_classes[x.shape[1]](x, y, region[..., 0, 0], region)

    return criterion


EVERY = {
    **{name: build() for name, build in OF_BAGS.items()},
    **{name: of_pairs(build) for name, build in OF_PAIRS.items()},
    **{name: without_boxes(build) for name, build in OF_PATCHES.items()},
}
every_loss = pytest.mark.parametrize("criterion", list(EVERY.values()), ids=list(EVERY))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_known_labels_give_the_same_bits_as_labels_that_cannot_be_unknown(criterion, dtype):
    for seed in range(5):
        logits, labels, _, _ = batch(3, 3, SIZE, seed, dtype=dtype)
        logits = logits.contiguous().requires_grad_()
        of_floats, of_bools = criterion(logits, labels), criterion(logits, labels.bool())
        assert torch.equal(of_floats, of_bools)
        assert torch.equal(*(torch.autograd.grad(loss, logits)[0] for loss in (of_floats, of_bools)))


@every_loss
def test_an_unknown_class_and_an_unknown_image_are_as_if_they_were_not_there(criterion):
    logits, labels, _, _ = batch(4, 3, SIZE, seed=2)
    logits = logits.contiguous().requires_grad_()
    labels[:, 1], labels[2] = torch.nan, torch.nan
    unknown = labels.isnan()
    kept = torch.tensor([0, 1, 3])[:, None], torch.tensor([0, 2])
    check(criterion(logits, labels), criterion(logits[kept], labels[kept]), logits, unknown)


@every_loss
def test_nothing_known_is_a_loss_of_zero_with_a_graph(criterion):
    logits = tensor((4, 3, SIZE, SIZE), dtype=torch.float32).contiguous().requires_grad_()
    loss = criterion(logits, torch.full((4, 3), torch.nan))
    assert loss.item() == 0
    loss.backward()
    assert (logits.grad == 0).all()


@every_loss
@pytest.mark.parametrize("value", [-1e4, 1e4])
def test_extreme_logits_of_unknown_labels_have_no_gradient(criterion, value):
    logits, labels, _, _ = batch(4, 3, SIZE, seed=1, dtype=torch.float32)
    labels[1, 2] = torch.nan
    with torch.no_grad():
        logits[1, 2] = value
    logits = logits.contiguous().requires_grad_()
    loss = criterion(logits, labels)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert (logits.grad[1, 2] == 0).all()


@every_loss
def test_unknown_labels_compile_into_one_graph(criterion):
    logits, labels, _, _ = batch(2, 3, SIZE, dtype=torch.float32)
    labels[1, 2] = torch.nan
    torch.compiler.reset()  # the losses share a forward method, and there is a limit to how often one is compiled
    compiled = torch.compile(criterion, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(logits, labels), criterion(logits, labels))


def test_the_cross_entropy_is_torch_s_own():
    logits = tensor((5, 3), dtype=torch.float64, scale=3)
    labels = (tensor((5, 3), seed=1) > 0).double()
    assert torch.equal(binary_cross_entropy(logits, labels), F.binary_cross_entropy_with_logits(logits, labels))
    assert binary_cross_entropy(logits[:0], labels[:0]).item() == 0


def test_the_mean_of_many_equal_values_is_that_value():
    """The number of known entries is exact, and all known is a factor of exactly 1."""
    for count in (3, 49, 100, 1021):
        known = torch.ones(count, dtype=torch.bool)
        assert mean_of_known(torch.tensor(0.1), known).item() == torch.tensor(0.1).item()
    known = torch.arange(12) < 9
    assert mean_of_known(torch.tensor(0.75, dtype=torch.float64), known).item() == pytest.approx(1, rel=1e-15)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (
            ValueError,
            r"labels: expected \[2, 3\], got \[3\]",
            lambda: binary_cross_entropy(torch.zeros(2, 3), torch.zeros(3)),
        ),
        (TypeError, "logits: expected", lambda: binary_cross_entropy(torch.zeros(2, 3).long(), torch.zeros(2, 3))),
        (ValueError, r"logits: expected \[B, K\]", lambda: binary_cross_entropy(torch.zeros(3), torch.zeros(3))),
    ],
)
def test_wrong_input(error, message, call):
    with pytest.raises(error, match=message):
        call()
