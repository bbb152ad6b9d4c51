"""TripletLoss against Eq. 4 and 5 written as loops, and against torch's own."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.losses import TripletLoss, certain_triplets
from tests.ops.inputs import tensor
from tests.tolerances import assert_close


def triplets(count=4, features=6, seed=0, scale=1.0, dtype=torch.float64):
    return [tensor((count, features), dtype=dtype, seed=3 * seed + i, scale=scale) for i in range(3)]


def mean_of_equation_4(anchor, positive, negative, margin):
    total = 0.0
    for x, near, far in zip(anchor.tolist(), positive.tolist(), negative.tolist(), strict=True):
        total += max(math.dist(x, near) - math.dist(x, far) + margin, 0.0)
    return total / len(anchor)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 5),
    features=st.integers(1, 9),
    margin=st.sampled_from((0.0, 0.5, 3.0)),
    scale=st.sampled_from((1e-3, 1.0, 100.0)),
)
def test_equals_the_equations(seed, count, features, margin, scale):
    inputs = triplets(count, features, seed, scale)
    loss = TripletLoss(margin)(*inputs)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(mean_of_equation_4(*inputs, margin), rel=1e-9, abs=1e-12)


def test_equals_torch_s_own():
    inputs = triplets(50)
    expected = torch.nn.TripletMarginLoss(margin=0.5, p=2, eps=0)(*inputs)
    assert_close(TripletLoss()(*inputs), expected)


def test_gradcheck():
    inputs = [x.contiguous().requires_grad_() for x in triplets()]
    assert torch.autograd.gradcheck(TripletLoss(2.0), inputs)
    anchor, positive, negative = inputs
    # The gradient by hand: unit vectors, where the hinge is open.
    loss = TripletLoss(100.0)(*inputs)
    grad = torch.autograd.grad(loss, anchor)[0]
    units = [(anchor - x) / (anchor - x).square().sum(1, keepdim=True).sqrt() for x in (positive, negative)]
    assert_close(grad, (units[0] - units[1]).detach() / len(anchor))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_at_and_near_distance_zero(dtype):
    x = torch.ones(2, 3, dtype=dtype, requires_grad=True)
    far = torch.zeros(2, 3, dtype=dtype)
    loss = TripletLoss(5.0)(x, x, far)  # the anchor as its own positive
    (grad,) = torch.autograd.grad(loss, x)
    assert_close(grad, torch.full_like(grad, -1 / math.sqrt(3) / 2))
    same = TripletLoss(0.5)(x, x, x)
    assert same.item() == 0.5
    assert torch.autograd.grad(same, x)[0].abs().max() == 0
    near = torch.full((1, 3), 1e-12, dtype=dtype, requires_grad=True)
    zero = torch.zeros(1, 3, dtype=dtype)
    (grad,) = torch.autograd.grad(TripletLoss()(near, zero, near.detach()), near)
    assert grad.norm().item() == pytest.approx(1, rel=1e-6)


def test_satisfied_triplets_are_silent():
    x = torch.zeros(3, 2, requires_grad=True)
    loss = TripletLoss()(x, x.detach(), torch.full((3, 2), 10.0))
    loss.backward()
    assert loss.item() == 0
    assert x.grad.abs().max() == 0


def test_half_precision_and_empty_batch():
    inputs = triplets(dtype=torch.float16)
    half = TripletLoss()(*inputs)
    assert half.dtype == torch.float32
    assert_close(half, TripletLoss()(*[x.float() for x in inputs]))
    large = [torch.full((1, 3), value, dtype=torch.float16) for value in (0.0, 60_000.0, 0.0)]
    assert TripletLoss()(*large).item() == pytest.approx(60_000 * math.sqrt(3) + 0.5, rel=1e-3)
    empty = [x[:0] for x in triplets()]
    assert TripletLoss()(*empty).item() == 0


def test_compiles():
    inputs = triplets()
    criterion = TripletLoss()
    assert_close(torch.compile(criterion, fullgraph=True, backend="aot_eager")(*inputs), criterion(*inputs))


def related(a, b):
    """(similar, dissimilar) of two lists of labels, by the classes that are known in both; None where unknown."""
    if None not in (*a, *b):
        return True, True  # whoever chose the pair knew all classes
    both = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    shared, healthy = (1, 1) in both, (0, 0) in both and 1 not in (*a, *b)
    return shared or healthy, not shared and ((0, 1) in both or (1, 0) in both)


LABELS = st.lists(st.sampled_from((0, 1, None)), min_size=3, max_size=3)


@settings(max_examples=200, deadline=None)
@given(triplets=st.lists(st.tuples(LABELS, LABELS, LABELS), max_size=4))
def test_triplets_are_confirmed_by_classes_that_are_known_in_both_images(triplets):
    anchor, positive, negative = (
        torch.tensor([[math.nan if y is None else float(y) for y in row] for row in rows]).reshape(-1, 3)
        for rows in (zip(*triplets, strict=True) if triplets else ([], [], []))
    )
    expected = [related(a, p)[0] and related(a, n)[1] for a, p, n in triplets]
    assert certain_triplets(anchor, positive, negative).tolist() == expected


def test_an_image_of_which_nothing_is_known_is_in_no_triplet():
    ill, healthy, nothing = torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 0]]), torch.full((1, 2), torch.nan)
    assert certain_triplets(ill, ill, healthy)
    for triplet in ((nothing, ill, healthy), (ill, nothing, healthy), (ill, ill, nothing), (healthy, nothing, ill)):
        assert not certain_triplets(*triplet)


def test_labels_of_triplets_that_do_not_match():
    with pytest.raises(ValueError, match=r"negative: expected anchor's shape \[2, 3\], got \[3, 3\]"):
        certain_triplets(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"anchor: expected \[B, K\]"):
        certain_triplets(torch.zeros(3), torch.zeros(3), torch.zeros(3))


A, P, N = triplets()


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "margin: expected a finite number of at least 0, got -1", lambda: TripletLoss(-1)),
        (TypeError, "margin: expected a number, got '1'", lambda: TripletLoss("1")),
        (ValueError, r"anchor: expected \[B, D\], got shape \(4,\)", lambda: TripletLoss()(A[:, 0], P, N)),
        (ValueError, r"negative: expected anchor's shape \[4, 6\], got \[3, 6\]", lambda: TripletLoss()(A, P, N[:3])),
        (TypeError, "positive: expected anchor's dtype", lambda: TripletLoss()(A, P.float(), N)),
        (TypeError, "anchor: expected a floating-point tensor", lambda: TripletLoss()(A.long(), P, N)),
    ],
)
def test_wrong_input(error, message, call):
    with pytest.raises(error, match=message):
        call()
