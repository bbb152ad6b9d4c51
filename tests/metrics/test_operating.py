"""Operating points: what they maximise, when none is chosen, and what they achieve."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score

from cxrfast.metrics import (
    Criterion,
    auroc,
    choose_operating_points,
    operating_points,
    rates_at_operating_points,
)

NAN = math.nan
CRITERIA = ("youden", "f1", "sensitivity=0.9", "specificity=0.75", "sensitivity=1", "specificity=1")


def separable(
    n: int, seed: int = 0, shift: float = 2.0, levels: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and labels [n, 3] of which a third is positive, a few labels unknown; the third class is at chance."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(n, 3, generator=generator) < 0.35).double()
    raw = torch.randn(n, 3, generator=generator) + labels * torch.tensor([shift, shift / 2, 0.0])
    scores = raw.sigmoid()
    if levels is not None:
        scores = (scores * levels).round() / levels
    labels[torch.rand(n, 3, generator=generator) < 0.1] = NAN
    return scores, labels


def confusion(scores, labels, threshold):
    """TP, FP, FN, TN of one class, by plain loops."""
    counts = {(called, present): 0 for called in (True, False) for present in (0.0, 1.0)}
    for score, label in zip(scores.tolist(), labels.tolist(), strict=True):
        if not math.isnan(label):
            counts[score >= threshold, label] += 1
    return counts[True, 1.0], counts[True, 0.0], counts[False, 1.0], counts[False, 0.0]


def achieved(name, scores, labels, threshold):
    tp, fp, fn, tn = confusion(scores, labels, threshold)
    return {
        "youden": tp / (tp + fn) + tn / (tn + fp) - 1,
        "f1": 2 * tp / (2 * tp + fp + fn),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
    }[name]


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([None, 5, 30]), criterion=st.sampled_from(CRITERIA))
def test_no_threshold_does_better(seed, levels, criterion):
    scores, labels = separable(60, seed, levels=levels)
    found = choose_operating_points(scores, labels, criterion=criterion, minimum=1, resamples=20)
    wanted = Criterion.parse(criterion)
    for k in range(2):
        if found.reason[k]:
            continue
        point, column = found.threshold[k].item(), (scores[:, k].double(), labels[:, k])
        known = sorted(set(column[0][~labels[:, k].isnan()].tolist()))
        own = achieved(wanted.name, *column, point)
        others = {t: achieved(wanted.name, *column, t) for t in known}
        if wanted.share is None:
            assert own == pytest.approx(max(others.values()))
        else:
            assert own >= wanted.share - 1e-9
            worse = [t for t in known if (t > point if wanted.name == "sensitivity" else t < point)]
            assert all(others[t] < wanted.share for t in worse if abs(others[t] - own) > 1e-12)


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([None, 8]))
def test_youden_is_the_one_of_earlier_versions_where_the_data_allow_a_choice(seed, levels):
    scores, labels = separable(80, seed, levels=levels)
    found = choose_operating_points(scores, labels, resamples=50)
    before = operating_points(scores, labels)
    for k in range(3):
        assert found.threshold[k].isnan() == bool(found.reason[k])
        if not found.reason[k]:
            assert found.threshold[k] == before[k]


def test_f1_is_scikit_learns():
    scores, labels = separable(200, 1)
    found = choose_operating_points(scores, labels, criterion="f1", resamples=20)
    known = ~labels[:, 0].isnan()
    own = f1_score(labels[known, 0], scores[known, 0] >= found.threshold[0])
    assert own == pytest.approx(max(f1_score(labels[known, 0], scores[known, 0] >= t) for t in scores[known, 0]))


def test_too_few_images_and_chance_give_no_threshold_and_a_reason():
    scores, labels = separable(100, 2)
    labels[(labels[:, 0] == 1).nonzero()[9:, 0], 0] = NAN
    labels[(labels[:, 1] == 0).nonzero()[1:, 0], 1] = NAN
    found = choose_operating_points(scores, labels, resamples=200)
    assert found.threshold.isnan().all()
    assert found.low.isnan().all()
    assert found.reason[:2] == ("9 known positives, fewer than 10", "1 known negative, fewer than 10")
    assert found.reason[2].startswith(f"AUROC {auroc(scores, labels)[2].item():.2f} (95 % 0.")
    assert found.reason[2].endswith(") is not above chance")
    assert found.auroc.low[2] <= 0.5
    asked = choose_operating_points(scores, labels, criterion="sensitivity=0.9", resamples=200)
    assert asked.reason[2] == ""
    assert achieved("sensitivity", scores[:, 2], labels[:, 2], asked.threshold[2].item()) >= 0.9


def test_the_handful_of_positives_of_the_issue_calls_nothing():
    """Twelve positives whose scores, all near 0, do not separate: the best of the thresholds called 112 of 184."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.zeros(100, 1)
    labels[:12] = 1
    scores = 10 ** (-4 + 1.5 * torch.rand(100, 1, generator=generator))
    assert (scores >= operating_points(scores, labels)).double().mean() > 0.1
    found = choose_operating_points(scores, labels)
    assert found.threshold.isnan().all()
    assert "not above chance" in found.reason[0]


def test_a_specificity_that_no_score_has():
    """The highest score is shared by positives and most negatives."""
    labels = torch.tensor([1.0] * 20 + [0.0] * 20)[:, None]
    scores = torch.tensor([0.9] * 20 + [0.9] * 15 + [0.1] * 5)[:, None]
    found = choose_operating_points(scores, labels, criterion="specificity=0.9", resamples=50)
    assert found.reason == ("no score has a specificity of 0.9",)
    found = choose_operating_points(scores, labels, criterion="specificity=0.25", resamples=50)
    assert found.threshold.item() == pytest.approx(0.5)


def test_the_interval_of_the_threshold_holds_it_and_shrinks_with_more_images():
    widths = []
    for n in (100, 1600):
        scores, labels = separable(n, 3)
        found = choose_operating_points(scores, labels, criterion="sensitivity=0.8")
        assert (found.low[:2] <= found.threshold[:2]).all()
        assert (found.threshold[:2] <= found.high[:2]).all()
        widths.append((found.high - found.low)[:2])
    assert (widths[1] < widths[0] / 2).all()


def test_images_of_one_patient_count_together():
    """Every image four times: the same threshold, and as wide an interval as without the copies only by patient."""
    scores, labels = separable(100, 4)
    patients = [str(n) for n in range(100)]
    once = choose_operating_points(scores, labels, patients, criterion="sensitivity=0.8")
    copies = [torch.cat([column] * 4) for column in (scores, labels)]
    clustered = choose_operating_points(*copies, patients * 4, criterion="sensitivity=0.8")
    apart = choose_operating_points(*copies, criterion="sensitivity=0.8")
    for column in ("threshold", "low", "high"):
        assert torch.equal(getattr(once, column), getattr(clustered, column))
    assert ((apart.high - apart.low)[:2] < (once.high - once.low)[:2]).all()


@pytest.mark.parametrize(
    "text", ["", "Youden", "youden=1", "f1=0.5", "sensitivity", "sensitivity=", "sensitivity=0", "specificity=1.1",
             "sensitivity=nan", "specificity=inf", "recall=0.9", "sensitivity=0.9,f1"],
)  # fmt: skip
def test_other_criteria_are_refused(text):
    with pytest.raises(ValueError, match="expected youden, f1, sensitivity=0.9 or specificity=0.9"):
        choose_operating_points(torch.rand(4, 1), torch.ones(4, 1), criterion=text)


def test_no_images_at_all():
    found = choose_operating_points(torch.zeros(0, 2), torch.zeros(0, 2))
    assert found.threshold.isnan().all()
    assert found.reason == ("0 known positives, fewer than 10",) * 2


@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_rates_are_those_of_the_confusion_matrix(seed, threshold):
    scores, labels = separable(50, seed, levels=10)
    points = torch.full((3,), threshold, dtype=torch.float64)
    rates = rates_at_operating_points(scores, labels, points, [str(n // 2) for n in range(50)])
    for k in range(3):
        known = ~labels[:, k].isnan()
        called = scores[known, k].double() >= threshold
        tn, fp, fn, tp = confusion_matrix(labels[known, k], called, labels=[0, 1]).ravel().tolist()
        expected = [(tp, tp + fn), (tn, tn + fp), (tp, tp + fp), (tn, tn + fn)]
        assert rates.called[k] == tp + fp
        for interval, (right, total) in zip(rates[:4], expected, strict=True):
            value, low, high = (column[k].item() for column in interval)
            if not total:
                assert math.isnan(value)
                continue
            assert value == pytest.approx(right / total)
            assert math.isnan(low) or 0 <= low <= value <= high <= 1
