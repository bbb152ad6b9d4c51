"""Weighted statistics against those of repeated images; intervals and tests on data whose truth is known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind, ttest_rel

from cxrfast.metrics import (
    auroc,
    average_precision,
    bootstrap_interval,
    bootstrap_interval_with_mean,
    paired_bootstrap,
    paired_bootstrap_with_mean,
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


@pytest.mark.parametrize("weighted", [weighted_auroc, weighted_average_precision, weighted_mean])
@given(table=weighted_tables())
def test_a_resample_without_unknown_labels_is_the_same_one(weighted, table):
    """The statistic of a class equals that of its known images under the weights that they have in the resample."""
    scores, labels, weights = table
    for k in range(labels.shape[1]):
        known = ~labels[:, k].isnan()
        whole, rows = [scores[:, k, None], labels[:, k, None]], [scores[known, k, None], labels[known, k, None]]
        found, alone = (weighted(*(part[1:] if weighted is weighted_mean else part)) for part in (whole, rows))
        expected = alone(weights[:, known].double())
        torch.testing.assert_close(found(weights.double()), expected, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("weighted", [weighted_auroc, weighted_average_precision])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_intervals_and_tests_are_those_without_the_unknown_labels(weighted, share):
    """Every patient keeps a known label, so that the resamples are of the same patients."""
    generator = torch.Generator().manual_seed(3)
    scores, labels, patients = clustered(generator, 50, 0.75)
    other = scores + torch.randn(scores.shape, generator=generator)
    unknown = torch.rand(len(patients), generator=generator) < share
    for first in {patient: patients.index(patient) for patient in patients}.values():
        unknown[first] = False
    known, kept = ~unknown, [name for name, gone in zip(patients, unknown.tolist(), strict=True) if not gone]
    masked = torch.where(unknown[:, None], math.nan, labels)
    masked_two = torch.cat([masked, torch.full_like(masked, math.nan)], dim=1)  # and a class of which nothing is known
    runs = [weighted(run.expand(-1, 2), masked_two) for run in (scores, other)]
    alone = [weighted(run[known], labels[known].bool()) for run in (scores, other)]
    interval, mean = bootstrap_interval_with_mean(runs[0], patients, resamples=200)
    expected = bootstrap_interval(alone[0], kept, resamples=200)
    close([column[:1] for column in interval], expected)
    close(mean, expected)
    assert all(column[1].isnan() for column in interval)
    difference, of_mean = paired_bootstrap_with_mean(*runs, patients, resamples=200)
    expected = paired_bootstrap(*alone, kept, resamples=200)
    close([column[:1] for column in difference], expected)
    close(of_mean, expected)
    assert all(column[1].isnan() for column in difference)


def test_nothing_known_has_no_interval_and_no_test():
    statistic = weighted_auroc(torch.rand(6, 2), torch.full((6, 2), math.nan))
    patients = list("aabbcd")
    results = (
        *bootstrap_interval_with_mean(statistic, patients, resamples=20),
        *paired_bootstrap_with_mean(statistic, statistic, patients, resamples=20),
    )
    assert all(column.isnan().all() for result in results for column in result)


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


@st.composite
def hits_by_patient(draw):
    """Hits, misses and NaN of some classes, and the patients."""
    n, k = draw(st.integers(2, 14)), draw(st.integers(1, 4))
    cells = draw(st.lists(st.sampled_from([0.0, 1.0, 1.0, math.nan]), min_size=n * k, max_size=n * k))
    patients = draw(st.lists(st.sampled_from("abcdefghij"), min_size=n, max_size=n))
    return torch.tensor(cells, dtype=torch.float64).view(n, k), patients


def of_mean(values, patients, **options):
    return bootstrap_interval_with_mean(weighted_mean(values), patients, resamples=30, **options)[1]


def close(found, expected):
    torch.testing.assert_close(tuple(found), tuple(expected), rtol=0, atol=1e-9, equal_nan=True)


@settings(max_examples=40)
@given(hits_by_patient(), st.integers(1, 3), st.randoms(use_true_random=False))
def test_the_mean_is_that_of_its_classes(table, copies, random):
    values, patients = table
    for k in range(values.shape[1]):
        one = values[:, [k]]
        alone = bootstrap_interval(weighted_mean(one), patients, resamples=30)
        close(of_mean(one, patients), alone)
        close(of_mean(one.expand(-1, copies), patients), alone)
    found = of_mean(values, patients)
    close(of_mean(torch.cat([values, values[:, :1] * math.nan], dim=1), patients), found)
    images, classes = list(range(len(values))), list(range(values.shape[1]))
    random.shuffle(images)
    random.shuffle(classes)
    close(of_mean(values[images][:, classes], [patients[n] for n in images]), found)
    misses = of_mean(1 - values, patients)
    close((1 - misses.value, 1 - misses.high, 1 - misses.low), found)
    assert found.low.isnan() or 0 <= found.low <= found.value <= found.high <= 1


@settings(max_examples=40)
@given(hits_by_patient())
def test_every_row_has_its_own_mean(table):
    values, patients = table
    more = values.flip(0)
    classes, means = bootstrap_interval_with_mean(
        weighted_mean(torch.cat([values, more], dim=1)), patients, rows=2, resamples=30
    )
    rows = [of_mean(values, patients), of_mean(more, patients)]
    close(means, map(torch.cat, zip(*rows, strict=True)))
    close(classes, bootstrap_interval(weighted_mean(torch.cat([values, more], dim=1)), patients, resamples=30))


def test_the_mean_needs_two_patients_of_each_of_its_classes():
    values = torch.tensor([[1.0, 1.0], [0.0, math.nan], [1.0, math.nan], [0.0, math.nan]])
    found = of_mean(values, list("abcd"))
    assert found.value == 0.75
    assert found.low.isnan()
    assert found.high.isnan()
    # With two, some resamples lack a class, and it has no interval. The mean of many classes has.
    values[1, 1] = 0.0
    classes, found = bootstrap_interval_with_mean(weighted_mean(values), list("abcd"), resamples=300)
    assert classes.low.isnan().tolist() == [False, True]
    assert 0 < found.low < found.value < found.high < 1
    nothing = of_mean(values * math.nan, list("abcd"))
    assert all(column.isnan() for column in nothing)


def test_the_mean_of_classes_without_spread_has_the_bound_of_their_patients():
    """Of all p that 4 and 9 patients miss with a chance of 2.5 %, the largest mean, found on a grid."""
    values = torch.full((13, 2), math.nan)
    values[:4, 0], values[4:, 1] = 0.0, 0.0
    patients = [str(n) for n in range(13)]
    p = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    other = (1 - (0.025 / (1 - p) ** 4) ** (1 / 9)).clamp(min=0)
    bound = (p + other)[(1 - p) ** 4 >= 0.025].amax().item() / 2
    found = of_mean(values, patients)
    assert (found.low.item(), found.high.item()) == (0, pytest.approx(bound, abs=1e-5))
    # Images of one patient in both classes say no more than those of one class.
    assert of_mean(torch.zeros(4, 2), patients[:4]).high.item() == pytest.approx(1 - 0.025 ** (1 / 4))
    # One class all found, the other not at all: each may be wrong in one direction only.
    values[4:, 1] = 1.0
    found = of_mean(values, patients)
    assert found.value == 0.5
    assert found.low.item() == pytest.approx(0.5 - (1 - 0.025 ** (1 / 9)) / 2)
    assert found.high.item() == pytest.approx(0.5 + (1 - 0.025 ** (1 / 4)) / 2)


@pytest.mark.parametrize("sizes", [(8, 8), (8, 40)])
def test_the_means_degrees_of_freedom_are_satterthwaites(sizes):
    """Classes of different patients: Welch's t; of the same patients, the t of the patients' means."""
    generator = torch.Generator().manual_seed(3)
    first, second = (torch.rand(n, generator=generator, dtype=torch.float64) for n in sizes)
    apart = torch.full((sum(sizes), 2), math.nan, dtype=torch.float64)
    apart[: sizes[0], 0], apart[sizes[0] :, 1] = first, second
    welch = ttest_ind(first, -second, equal_var=False).confidence_interval(0.95)
    cases = [(apart, welch.low / 2, welch.high / 2)]
    if sizes[0] == sizes[1]:
        together = torch.stack([first, second], dim=1)
        paired = ttest_rel(first, -second).confidence_interval(0.95)
        cases.append((together, paired.low / 2, paired.high / 2))
    for values, low, high in cases:
        patients = [str(n) for n in range(len(values))]
        zero = weighted_mean(values * 0)
        _, found = paired_bootstrap_with_mean(weighted_mean(values), zero, patients, resamples=20000)
        assert (found.low.item() + found.high.item()) / 2 == pytest.approx((low + high) / 2)
        assert (found.high - found.low).item() == pytest.approx(high - low, rel=0.05)


def several_diseases(generator):
    """150 patients of 1 to 5 images, alike in their scores; 8 classes that 12 to 60 patients have, AUROC 0.7 to 0.9."""
    images = torch.randint(1, 6, (150,), generator=generator)
    patient = torch.arange(150).repeat_interleave(images)
    frequency, auc = torch.linspace(0.08, 0.4, 8), torch.linspace(0.7, 0.9, 8)
    labels = (torch.rand(150, 8, generator=generator) < frequency)[patient]
    of_patient = (torch.randn(150, 8, generator=generator) + torch.randn(150, 1, generator=generator)) / math.sqrt(2)
    noise = of_patient[patient] + torch.randn(len(patient), 8, generator=generator)
    scores = noise + 2 * torch.special.ndtri(auc) * labels
    return weighted_auroc(scores, labels.double()), [str(p) for p in patient.tolist()], auc.mean()


def several_boxes(generator):
    """8 classes of 8 to 22 patients with 1 or 2 boxes found alike, every fifth patient also of the class before."""
    share, values, patients = torch.linspace(0.25, 0.85, 8), [], []
    for k, (p, count) in enumerate(zip(share.tolist(), range(8, 24, 2), strict=True)):
        for n in range(count):
            boxes = int(torch.randint(1, 3, (), generator=generator))
            found = torch.randn(1, generator=generator) + torch.randn(boxes, generator=generator)
            row = torch.full((boxes, 8), math.nan, dtype=torch.float64)
            row[:, k] = (torch.special.ndtr(found / math.sqrt(2)) < p).double()
            values.append(row)
            patients += [f"{k - (n % 5 == 4)}/{n}"] * boxes
    return weighted_mean(torch.cat(values)), patients, share.mean()


@pytest.mark.slow
@pytest.mark.parametrize("simulate", [several_diseases, several_boxes])
def test_the_interval_of_the_mean_over_classes_covers_the_truth(simulate):
    """docs/evaluation.md has the numbers of other settings."""
    generator = torch.Generator().manual_seed(0)
    count, simulations = 0, 800
    for seed in range(simulations):
        statistic, patients, ground_truth = simulate(generator)
        _, found = bootstrap_interval_with_mean(statistic, patients, resamples=150, seed=seed)
        count += bool(found.low <= ground_truth <= found.high)
    assert 0.93 <= count / simulations <= 0.97


@pytest.mark.parametrize("patients", [2, 3, 5, 20, 200])
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
    monkeypatch.setattr("cxrfast.metrics.bootstrap._CHUNK", 7 * len(patients))
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


def test_the_paired_test_of_the_mean_is_that_of_one_class_or_of_equal_ones():
    scores, labels, patients = clustered(torch.Generator().manual_seed(8), 60, 0.75)
    noise = scores + 2 * torch.randn(scores.shape, generator=torch.Generator().manual_seed(9))
    unknown = torch.full_like(labels, math.nan)
    for columns in ((labels,), (labels, labels), (labels, unknown)):
        ground_truth = torch.cat(columns, dim=1)
        runs = (weighted_auroc(run.expand(-1, len(columns)), ground_truth) for run in (scores, noise))
        classes, mean = paired_bootstrap_with_mean(*runs, patients, resamples=100)
        close(mean, [column[:1] for column in classes])
        assert bool(mean.p_value < 0.05) == (not mean.low <= 0 <= mean.high)


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
