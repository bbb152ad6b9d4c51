"""Weighted statistics against those of repeated images; intervals and tests on data whose truth is known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from cxrfast.evaluation import (
    auroc,
    average_precision,
    bootstrap_interval,
    paired_bootstrap,
    weighted_auroc,
    weighted_average_precision,
    weighted_mean,
)


@st.composite
def weighted_tables(draw):
    """Scores with ties, labels with unknowns, weights, and how often each image is then there."""
    n, k = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    scores = torch.tensor(draw(st.lists(st.integers(0, 6), min_size=n * k, max_size=n * k)), dtype=torch.float32)
    labels = torch.tensor(draw(st.lists(st.sampled_from([0.0, 1.0, math.nan]), min_size=n * k, max_size=n * k)))
    weights = torch.tensor(draw(st.lists(st.integers(0, 3), min_size=n * 4, max_size=n * 4)))
    return scores.view(n, k), labels.view(n, k), weights.view(4, n)


@given(weighted_tables())
def test_a_weight_is_a_repetition(table):
    scores, labels, weights = table
    means = weighted_mean(
        labels,
    )(weights.double())
    for weighted, plain in ((weighted_auroc, auroc), (weighted_average_precision, average_precision)):
        values = weighted(scores, labels)(weights.double())
        for row, times in zip(values, weights, strict=True):
            expected = plain(scores.repeat_interleave(times, dim=0), labels.repeat_interleave(times, dim=0))
            torch.testing.assert_close(row, expected, rtol=0, atol=1e-12, equal_nan=True)
    for row, times in zip(means, weights, strict=True):
        expected = labels.repeat_interleave(times, dim=0).double().nanmean(dim=0)
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-12, equal_nan=True)


def clustered(generator, patients, auc, *, by_patient=True):
    """Images of `patients` patients, 1 to 5 each and alike in their scores, whose AUROC is `auc` in the population."""
    images = torch.randint(1, 6, (patients,), generator=generator)
    patient = torch.arange(patients).repeat_interleave(images)
    label = torch.rand(patients if by_patient else len(patient), generator=generator) < 0.25
    if by_patient:
        label = label[patient]
    noise = torch.randn(patients, generator=generator)[patient] + torch.randn(len(patient), generator=generator)
    # Positive and negative scores are normal with variance 2: AUROC = Φ(shift / √(2 + 2)).
    shift = 2 * torch.special.ndtri(torch.tensor(auc))
    return (noise + shift * label)[:, None], label[:, None].double(), [str(p) for p in patient.tolist()]


def covered(simulations, patients, auc, *, by_patient):
    generator = torch.Generator().manual_seed(0)
    count = 0
    for seed in range(simulations):
        scores, labels, names = clustered(generator, patients, auc, by_patient=by_patient)
        interval = bootstrap_interval(weighted_auroc(scores, labels), names, resamples=200, seed=seed)
        count += bool(interval.low <= auc <= interval.high)
    return count / simulations


@pytest.mark.slow
@pytest.mark.parametrize(("simulations", "by_patient"), [(1000, True), (600, False)])
def test_the_interval_covers_the_truth(simulations, by_patient):
    """docs/evaluation.md has these numbers and those of other settings."""
    assert 0.93 <= covered(simulations, 200, 0.8, by_patient=by_patient) <= 0.97


def test_drawing_images_instead_of_patients_is_overconfident():
    generator = torch.Generator().manual_seed(1)
    widths = []
    for seed in range(20):
        scores, labels, patients = clustered(generator, 150, 0.8)
        images = [str(n) for n in range(len(patients))]
        by_patient, by_image = (
            bootstrap_interval(weighted_auroc(scores, labels), names, resamples=300, seed=seed)
            for names in (patients, images)
        )
        widths.append(((by_patient.high - by_patient.low) / (by_image.high - by_image.low)).item())
    assert sum(widths) / len(widths) > 1.2


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    """One image a patient: the bootstrap of a mean has the standard error √(p(1−p)/n)."""
    values = (torch.arange(400) < 120).double()[:, None]
    interval = bootstrap_interval(weighted_mean(values), [str(n) for n in range(400)], resamples=4000)
    error = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    assert interval.value.item() == 0.3
    assert interval.low.item() == pytest.approx(0.3 - error, abs=0.005)
    assert interval.high.item() == pytest.approx(0.3 + error, abs=0.005)


@pytest.mark.parametrize("patients", [3, 5, 20, 200])
def test_the_quantile_is_students(patients):
    """Two hits among many images of few patients: the interval's half-width in logits over its standard error."""
    values = (torch.rand(patients, 1, generator=torch.Generator().manual_seed(1)) * 0.5).double()
    names = [str(n) for n in range(patients)]
    other = torch.zeros_like(values)
    result = paired_bootstrap(weighted_mean(values), weighted_mean(other), names, resamples=20000)
    expected = ttest_rel(values[:, 0], other[:, 0]).confidence_interval(0.95)
    assert result.low.item() == pytest.approx(expected.low, abs=0.03 * (expected.high - expected.low))
    assert result.high.item() == pytest.approx(expected.high, abs=0.03 * (expected.high - expected.low))


def test_all_or_nothing_found_has_an_interval():
    """The exact binomial bound of n patients, where resamples have no spread."""
    names = [str(n) for n in range(10)]
    interval = bootstrap_interval(weighted_mean(torch.tensor([[1.0, 0.0]]).expand(10, 2)), names, resamples=50)
    assert interval.low.tolist() == pytest.approx([0.025 ** (1 / 10), 0.0])
    assert interval.high.tolist() == pytest.approx([1.0, 1 - 0.025 ** (1 / 10)])


def test_no_interval_without_enough_patients():
    labels = torch.zeros(60, 3)
    labels[:2, 0] = 1  # of two patients
    labels[:20, 1] = 1
    scores = torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
    interval = bootstrap_interval(weighted_auroc(scores, labels), [str(n) for n in range(60)], resamples=500)
    assert interval.low.isnan().tolist() == [True, False, True]
    assert interval.high.isnan().tolist() == [True, False, True]
    assert interval.value.isnan().tolist() == [False, False, True]


def test_the_same_seed_gives_the_same_interval_and_chunks_do_not_count(monkeypatch):
    scores, labels, patients = clustered(torch.Generator().manual_seed(2), 40, 0.7)
    statistic = weighted_auroc(scores, labels)
    first = bootstrap_interval(statistic, patients, resamples=50, seed=3)
    monkeypatch.setattr("cxrfast.evaluation.bootstrap._CHUNK", 7 * len(patients))
    torch.testing.assert_close(bootstrap_interval(statistic, patients, resamples=50, seed=3), first, rtol=0, atol=0)
    assert bootstrap_interval(statistic, patients, resamples=50, seed=4).low != first.low


def test_the_paired_test_keeps_its_level_and_finds_differences():
    generator = torch.Generator().manual_seed(5)
    rejected = found = 0
    for seed in range(200):
        scores, labels, patients = clustered(generator, 80, 0.75)
        one, other = (scores + torch.randn(scores.shape, generator=generator) for _ in range(2))
        noise = scores + 4 * torch.randn(scores.shape, generator=generator)
        null = paired_bootstrap(
            weighted_auroc(one, labels), weighted_auroc(other, labels), patients, resamples=200, seed=seed
        )
        real = paired_bootstrap(
            weighted_auroc(scores, labels), weighted_auroc(noise, labels), patients, resamples=200, seed=seed
        )
        rejected += bool(null.p_value < 0.05)
        found += bool(real.p_value < 0.05)
        assert bool(null.p_value < 0.05) == (not null.low <= 0 <= null.high)
    assert 0.01 <= rejected / 200 <= 0.1
    assert found / 200 > 0.7


def test_a_run_does_not_differ_from_itself():
    scores, labels, patients = clustered(torch.Generator().manual_seed(6), 30, 0.7)
    statistic = weighted_auroc(scores, labels)
    same = paired_bootstrap(statistic, statistic, patients, resamples=100)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_refusals():
    with pytest.raises(ValueError, match="patients: expected"):
        bootstrap_interval(weighted_mean(torch.zeros(0, 1)), [])
    with pytest.raises(ValueError, match="a level"):
        bootstrap_interval(weighted_mean(torch.zeros(2, 1)), ["a", "b"], level=95)
    with pytest.raises(ValueError, match=r"\[N, K\]"):
        weighted_auroc(torch.zeros(3), torch.zeros(3))


@pytest.mark.parametrize("weighted", [weighted_auroc, weighted_average_precision])
def test_what_is_no_table_of_scores(weighted):
    scores, labels = torch.tensor([[0.1], [0.9]]), torch.tensor([[0.0], [1.0]])
    for wrong, message in (
        ((scores, labels[:1]), r"expected scores and labels \[N, K\]"),
        ((torch.full_like(scores, math.nan), labels), "got NaN in 2 of 2"),
        ((scores, 2 * labels), "expected labels 0, 1 or NaN, got 2.0"),
    ):
        with pytest.raises(ValueError, match=message):
            weighted(*wrong)
    with pytest.raises(ValueError, match="patients: expected one for each of 2 images, got 1"):
        bootstrap_interval(weighted(scores, labels), ["a"])
    found = weighted(scores.numpy(), labels.numpy())(torch.ones(1, 2, dtype=torch.float64))
    assert found.item() == 1.0
