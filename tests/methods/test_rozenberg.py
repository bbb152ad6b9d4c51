"""Rozenberg's method: stages, γ, thresholds, the readings of the CRF's unary term."""

from pathlib import Path

import pytest
import torch
from torch import nn

from cxrfast.data import Record
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.losses import LiLoss
from cxrfast.methods.rozenberg import Rozenberg, RozenbergOptions
from tests.methods.test_methods import batch, build
from tests.tolerances import assert_close


def records(*label_sets):
    return [Record(f"{i}.png", Path(f"{i}.png"), str(i), frozenset(labels)) for i, labels in enumerate(label_sets)]


def test_rozenberg_trains_unaries_first_and_then_the_crf_alone():
    unary, crf = build("rozenberg").stages(9)
    assert (unary.epochs, crf.epochs) == (9, 3)
    names = [name for name, _ in build("rozenberg").named_parameters()]
    assert not {n for n in names if n.startswith(unary.trains)} & {n for n in names if n.startswith(crf.trains)}
    assert {n for n in names if n.startswith((*unary.trains, *crf.trains))} == set(names)


def test_thresholds_are_buffers_not_parameters():
    method = build("rozenberg")
    assert not any("tau" in name or "rho" in name for name, _ in method.named_parameters())
    assert {"criterion.tau", "criterion.rho", "criterion.tau_hat", "criterion.rho_hat"} <= set(method.state_dict())


def test_thresholds_are_fitted_in_alternation_and_not_at_the_end():
    method = build("rozenberg", fit_every=2)
    stage = method.stages(6)[0]
    calls = []

    def maps():
        calls.append(1)
        data = batch()
        return [(method(data["image"], stage.name).detach(), data)]

    rows = [method.after_epoch(stage, epoch, maps) for epoch in range(1, 7)]
    assert [bool(row) for row in rows] == [False, True, False, True, False, False]
    assert len(calls) == 2


def test_lambda_ann_is_constant_or_falls_in_the_second_half_of_the_unary_stage():
    method = build("rozenberg")
    unary, crf = method.stages(5)
    method.before_epoch(unary, 5)
    assert method.criterion.lambda_ann == 70.0
    method = build("rozenberg", lambda_ann=16.0, lambda_ann_end=1.0)
    values = []
    for stage, epoch in ((unary, 1), (unary, 3), (unary, 4), (unary, 5), (crf, 1)):
        method.before_epoch(stage, epoch)
        values.append(method.criterion.lambda_ann)
    assert values == pytest.approx([16.0, 16.0, 4.0, 1.0, 1.0])


def test_li_s_loss_in_place_of_the_area_loss():
    method, li = (
        build("rozenberg", loss="li", unary_loss="li", lambda_box=3.0, lambda_ann_end=1.0),
        build("li", lambda_box=3.0),
    )
    data = batch()
    logits = torch.randn(6, 2, 6, 6)
    assert_close(method.loss(logits, data), li.loss(logits, data))
    assert [stage.name for stage in method.stages(9)] == [stage.name for stage in build("rozenberg").stages(9)]
    method.before_epoch(method.stages(9)[0], 9)  # neither weights nor thresholds to move
    assert method.after_epoch(method.stages(9)[0], 5, list) == {}


def test_gamma_is_the_ratio_of_positive_to_negative_training_examples():
    images = records(["Mass"], ["Mass", "Nodule"], ["Nodule", "Hernia"], [], [], [])  # Hernia is not trained
    for gamma, expected in (
        ("data", [4 / 8, 4 / 8]),
        ("data-per-class", [2 / 4, 2 / 4]),
        (0.25, [0.25, 0.25]),
        ([0.1, 0.2], [0.1, 0.2]),
    ):
        method = build("rozenberg", gamma=gamma)
        method.before_training(images)
        method.before_epoch(method.stages(3)[0], 1)
        assert_close(method.criterion.gamma, torch.tensor(expected))
        other = build("rozenberg", gamma=gamma)
        other.load_state_dict(method.state_dict())  # it is kept in the weights
        assert_close(other.criterion.gamma, method.criterion.gamma)


def test_gamma_of_the_data_has_to_be_known_before_training():
    method = build("rozenberg", gamma="data")
    with pytest.raises(CxrfastError, match="gamma: not known yet"):
        method.before_epoch(method.stages(3)[0], 1)


@pytest.mark.parametrize(
    ("gamma", "label_sets", "message"),
    [
        ("data-per-class", (["Mass"], []), r"no positive example of Nodule .* is 0; .*--classes"),
        ("data-per-class", (["Mass", "Nodule"], ["Nodule"]), r"no negative example of Nodule .* infinite; "),
        ("data", (["Mass", "Nodule"], ["Mass", "Nodule"]), r"no negative example among 2 .* infinite; give a number"),
    ],
)
def test_data_without_positives_or_negatives(gamma, label_sets, message):
    with pytest.raises(UsageError, match=message):
        build("rozenberg", gamma=gamma).before_training(records(*label_sets))


def test_a_gamma_of_the_wrong_length():
    with pytest.raises(UsageError, match=r"gamma: expected .* 2 numbers, one for each of Mass, Nodule; got 3 numbers"):
        build("rozenberg", gamma=[0.1, 0.2, 0.3])


@pytest.mark.parametrize("gamma", [0, -1, "all", [], [0.1, 0], float("inf"), float("nan"), None])
def test_a_gamma_that_is_none(gamma):
    with pytest.raises(ValueError, match="expected data, data-per-class, a number above 0, or a list"):
        RozenbergOptions(gamma=gamma)


def test_the_unaries_can_be_trained_as_the_base_model():
    method, li = build("rozenberg", unary_loss="li"), build("li")
    data, logits = batch(), torch.randn(6, 2, 6, 6)
    unary, crf = method.stages(9)
    method.before_epoch(unary, 5)
    assert_close(method.loss(logits, data), li.loss(logits, data))
    assert method.after_epoch(unary, 5, list) == {}  # Li's loss has no thresholds
    method.before_epoch(crf, 1)
    assert_close(method.loss(logits, data), build("rozenberg").loss(logits, data))


def test_learnt_thresholds_train_in_both_stages():
    method = build("rozenberg", thresholds="learnt")
    names = {name for name, _ in method.named_parameters() if "learnt" in name}
    assert names == {f"criterion.learnt.{name}" for name in ("tau", "rho", "tau_hat", "rho_hat")}
    for stage in method.stages(3):
        assert all(name.startswith(stage.trains) for name in names)
        assert set(method.after_epoch(stage, 1, list)) == {"tau", "rho", "tau_hat", "rho_hat"}


@pytest.mark.parametrize(("form", "activation"), [("logit", "sigmoid"), ("probability", "softmax")])
def test_without_neighbours_z_is_p(form, activation):
    """§3.3, for both readings of the unary term."""
    method = build("rozenberg", crf_unary=form, crf_activation=activation).eval()
    for parameter in method.network.crf.pairwise.parameters():
        nn.init.zeros_(parameter)
    images = torch.randn(2, 1, 64, 64)
    assert_close(torch.sigmoid(method(images, "crf")), torch.sigmoid(method(images, "unary")))


def test_probabilities_as_unary_term_train():
    method = build("rozenberg", crf_unary="probability", crf_activation="softmax")
    data = batch()
    method.before_epoch(method.stages(3)[1], 1)
    method.loss(method(data["image"], "crf"), data).backward()
    gradients = [p.grad for p in method.network.crf.pairwise.parameters()]
    assert all(grad.abs().sum() > 0 for grad in gradients)
    z = torch.sigmoid(method(data["image"], "crf"))
    assert ((z >= 0) & (z <= 1)).all()


def test_the_guide_is_relu_before_batch_norm_with_a_channel_per_class():
    method = Rozenberg(("A", "B", "C"), 64, RozenbergOptions(backbone="resnetv2_nano", grid=6))
    kinds = [type(module) for module in method.network.guide]
    assert kinds[:6] == 2 * [nn.Conv2d, nn.ReLU, nn.BatchNorm2d]
    assert method.network.guide(torch.randn(2, 1, 64, 64)).shape == (2, 3, 6, 6)


def test_the_first_pass_is_an_option_and_li_takes_the_criterion_s_place():
    assert build("rozenberg", loss="area_sigmoid").criterion.relaxation == "sigmoid"
    assert isinstance(build("rozenberg", loss="li").criterion, LiLoss)
