"""RozenbergLoss against Eq. 5 to 12, written from the paper's text as loops over patches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.losses import RozenbergLoss, positive_to_negative
from tests.losses.inputs import batch
from tests.tolerances import assert_close

NAMES = ("tau", "rho", "tau_hat", "rho_hat")


def sigma(x):
    return 1 / (1 + torch.exp(-x))


def relu(x):
    return x if x > 0 else 0 * x


def equation_12(logits, labels, annotated, region, criterion):
    """Σ_k λ_ann a^k L_ann^k + (1 − a^k) L_un^k, averaged over images."""
    total = logits.new_zeros(())
    images, classes, height, width = logits.shape
    for n in range(images):
        for k in range(classes):
            tau, rho, tau_hat, rho_hat = (getattr(criterion, name)[k].double() for name in NAMES)
            gamma = criterion.gamma[k].double()
            inside, outside = [], []
            for i in range(height):
                for j in range(width):
                    (inside if region[n, k, i, j] else outside).append(sigma(logits[n, k, i, j]))
            sum_inside, sum_outside = sum(inside, 0 * total), sum(outside, 0 * total)
            size, rest = len(inside), len(outside)  # |b|, |b̄|
            if criterion.relaxation == "sigmoid":
                if annotated[n, k]:  # Eq. 5
                    found = sigma(sum_inside - tau * size) * sigma(rho * rest - sum_outside)
                    total = total - criterion.lambda_ann * found
                elif labels[n, k]:  # Eq. 6
                    total = total - sigma(sum_inside + sum_outside - tau_hat)
                else:  # Eq. 7
                    total = total - gamma * sigma(rho_hat - sum_inside - sum_outside)
                continue
            if annotated[n, k]:  # Eq. 9
                lacking = relu(tau * size - sum_inside) / size if size else 0
                spilt = relu(sum_outside - rho * rest) / rest if rest else 0
                total = total + criterion.lambda_ann * (lacking + spilt)
                continue
            area = sum_inside + sum_outside
            if criterion.area_unit == "fraction":
                area = area / (height * width)
            total = total + (relu(tau_hat - area) if labels[n, k] else gamma * relu(area - rho_hat))  # Eq. 11
    return total / images


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 1000),
    images=st.integers(1, 3),
    classes=st.integers(1, 3),
    size=st.integers(2, 5),
    scale=st.sampled_from((0.5, 5.0)),
    form=st.sampled_from((("patches", "relu"), ("fraction", "relu"), ("patches", "sigmoid"))),
    box=st.sampled_from(("random", "everything", "nothing")),
)
def test_equals_the_equations_with_its_gradient(seed, images, classes, size, scale, form, box):
    logits, labels, annotated, region = batch(images, classes, size, seed, scale)
    area_unit, relaxation = form
    if box != "random":
        region = torch.full_like(region, box == "everything")
    generator = torch.Generator().manual_seed(seed)
    tau, rho, tau_hat, rho_hat, gamma = torch.rand(5, classes, generator=generator)
    area = 1.0 if area_unit == "fraction" else size**2
    criterion = RozenbergLoss(
        classes,
        lambda_ann=7.0,
        gamma=gamma,
        tau=tau,
        rho=rho,
        tau_hat=tau_hat * area,
        rho_hat=rho_hat * area,
        area_unit=area_unit,
        relaxation=relaxation,
    )
    logits = logits.detach().contiguous().requires_grad_()
    loss = criterion(logits, labels, annotated, region)
    assert loss.shape == ()
    expected = equation_12(logits, labels, annotated, region, criterion)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)
    grad, right = (
        torch.autograd.grad(x, logits, allow_unused=True, materialize_grads=True)[0] for x in (loss, expected)
    )
    torch.testing.assert_close(grad, right, rtol=1e-9, atol=1e-12)


def test_gamma_weighs_the_negatives_and_nothing_else():
    inputs = batch(images=5, classes=3)
    one, other = RozenbergLoss(3), RozenbergLoss(3, gamma=[0.0, 0.5, 2.0])
    before, after = one.terms(*inputs), other.terms(*inputs)
    assert torch.equal(before["annotated"], after["annotated"])
    assert torch.equal(before["positive"], after["positive"])
    assert_close(after["negative"], before["negative"] * torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64))


def test_the_first_pass_has_vanishing_gradients_where_the_final_loss_has_none():
    """The paper's reason for Eq. 9 to 12: 400 patches of p = 0.5 saturate the sigmoids of Eq. 7."""
    logits = torch.zeros(1, 1, 20, 20, dtype=torch.float64, requires_grad=True)
    no = torch.zeros(1, 1)
    arguments = (logits, no, no > 0, torch.zeros(1, 1, 20, 20, dtype=torch.bool))
    norm = {}
    for relaxation in ("sigmoid", "relu"):
        loss = RozenbergLoss(1, relaxation=relaxation)(*arguments)
        norm[relaxation] = torch.autograd.grad(loss, logits)[0].norm().item()
    assert norm["sigmoid"] < 1e-80
    assert norm["relu"] == pytest.approx(20 * 0.25)


def test_learnt_thresholds_go_to_the_degenerate_solution():
    """§4: τ, τ̂ → 0, ρ → 1, ρ̂ → P². Each moves until its term is silent, whatever the network says: here z = ½."""
    logits = torch.zeros(3, 1, 4, 4)
    labels, annotated = torch.tensor([[1.0], [1.0], [0.0]]), torch.tensor([[True], [False], [False]])
    region = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    region[0, 0, :2] = True
    criterion = RozenbergLoss(1, tau_hat=12.0, rho_hat=1.0, learnt_thresholds=16)
    for name, value in criterion.thresholds().items():
        torch.testing.assert_close(value, getattr(criterion, name), rtol=1e-3, atol=1e-3)
    optimizer = torch.optim.Adam(criterion.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        loss = criterion(logits, labels, annotated, region)
        loss.backward()
        optimizer.step()
    assert loss.item() == 0
    found = {name: value.item() for name, value in criterion.thresholds().items()}
    assert found["tau"] <= 0.5 <= found["rho"]
    assert found["tau_hat"] <= 8 <= found["rho_hat"]


@pytest.mark.parametrize("per_class", [False, True])
def test_gamma_from_the_data(per_class):
    labels = torch.tensor([[1, 0], [1, 1], [0, 0], [0, 0], [1, 0]]).float()
    found = positive_to_negative(labels, ("Mass", "Nodule"), per_class=per_class)
    assert_close(found, torch.tensor([3 / 2, 1 / 4]) if per_class else torch.full((2,), 4 / 6))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000))
def test_gamma_counts_known_labels_only(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.tensor([[1.0] * 3, [0.0] * 3]), torch.rand(20, 3, generator=generator).round()])
    labels[2:][torch.rand(20, 3, generator=generator) < 0.4] = torch.nan
    names, known = ("Mass", "Nodule", "Edema"), ~labels.isnan()
    pooled = positive_to_negative(labels[known][:, None], ("all",))
    assert torch.equal(positive_to_negative(labels, names), pooled.expand(3))
    alone = [positive_to_negative(labels[known[:, k], k, None], names[k : k + 1]) for k in range(3)]
    assert torch.equal(positive_to_negative(labels, names, per_class=True), torch.cat(alone))
    full = labels.nan_to_num(0.0)
    assert torch.equal(positive_to_negative(full, names), positive_to_negative(full.bool(), names))


def test_gamma_of_a_class_without_known_labels():
    labels = torch.tensor([[1, torch.nan], [0, torch.nan]])
    assert positive_to_negative(labels, ("Mass", "Nodule")).tolist() == [1, 1]
    with pytest.raises(ValueError, match="no known example of Nodule among 2 .* is undefined"):
        positive_to_negative(labels, ("Mass", "Nodule"), per_class=True)


def test_gamma_of_data_that_have_none():
    labels = torch.tensor([[1, 0], [1, 0]]).float()
    with pytest.raises(ValueError, match="no negative example of Mass among 2 .* is infinite"):
        positive_to_negative(labels, ("Mass", "Nodule"), per_class=True)
    with pytest.raises(ValueError, match="no positive example of Nodule among 2 .* is 0"):
        positive_to_negative(labels[:, 1:], ("Nodule",), per_class=True)
    with pytest.raises(ValueError, match="no positive example among 2"):
        positive_to_negative(labels[:, 1:], ("Nodule",))
    with pytest.raises(ValueError, match="no negative example among 2"):
        positive_to_negative(labels[:, :1], ("Mass",))
    assert positive_to_negative(labels, ("Mass", "Nodule")).tolist() == [1, 1]  # both together have both


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


def test_thresholds_and_gamma_are_frozen_buffers():
    criterion = RozenbergLoss(2, tau=[0.7, 0.8], gamma=0.25)
    assert list(criterion.parameters()) == []
    assert set(criterion.state_dict()) == {"gamma", *NAMES}
    other = RozenbergLoss(2)
    other.load_state_dict(criterion.state_dict())
    assert other.tau.tolist() == pytest.approx([0.7, 0.8])
    assert other.gamma.tolist() == [0.25, 0.25]
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
        (ValueError, r"gamma: expected a number or 2 of them, got \[3\]", lambda: RozenbergLoss(2, gamma=[0.1] * 3)),
        (ValueError, "gamma: expected a finite number", lambda: RozenbergLoss(2, gamma=-1.0)),
        (ValueError, "relaxation: expected one of relu, sigmoid", lambda: RozenbergLoss(2, relaxation="tanh")),
        (ValueError, "learnt_thresholds: expected", lambda: RozenbergLoss(2, learnt_thresholds=0)),
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
