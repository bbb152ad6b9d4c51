"""AUROC against scikit-learn and against its definition, and means that name what they leave out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import multilabel_average_precision

from cxrfast.metrics.classification import Mean, auroc, average_precision, mean_without_nan, operating_points


@given(data=st.data(), n=st.integers(0, 30), k=st.integers(0, 4), levels=st.integers(1, 12))
def test_auroc_is_the_share_of_pairs_in_order(data, n, k, levels):
    def column(values):
        return st.lists(values, min_size=n, max_size=n)

    scores = [data.draw(column(st.integers(0, levels))) for _ in range(k)]
    labels = [data.draw(column(st.sampled_from([0.0, 1.0, math.nan]))) for _ in range(k)]
    result = auroc(torch.tensor(scores).reshape(k, n).T / 7, torch.tensor(labels).reshape(k, n).T)
    assert result.shape == (k,)
    assert result.dtype == torch.float64
    for area, score, label in zip(result.tolist(), scores, labels, strict=True):
        pairs = [
            (p > q) + 0.5 * (p == q)
            for p, is_p in zip(score, label, strict=True)
            for q, is_q in zip(score, label, strict=True)
            if is_p == 1 and is_q == 0
        ]
        assert area == sum(pairs) / len(pairs) if pairs else math.isnan(area)


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_equals_scikit_learn(ties):
    generator = torch.Generator().manual_seed(3)
    scores = torch.rand(3000, 3, generator=generator)
    if ties:
        scores = (scores * 20).round() / 20
    labels = torch.rand(3000, 3, generator=generator) < scores * torch.tensor([0.02, 0.5, 1.0])
    expected = [roc_auc_score(labels[:, k], scores[:, k]) for k in range(3)]
    torch.testing.assert_close(auroc(scores, labels).tolist(), expected, rtol=0, atol=1e-12)


def test_auroc_of_a_class_without_positives_or_without_negatives_is_nan():
    labels = torch.tensor([[0, 1, 1], [0, 1, 0]])
    result = auroc(torch.rand(2, 3), labels)
    assert result[:2].isnan().all()
    assert not result[2].isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_auroc_takes_any_dtype_and_infinities(dtype):
    scores = torch.tensor([[0.0], [1.0], [2.0]]).to(dtype)
    assert auroc(scores, torch.tensor([[False], [True], [True]])) == 1
    if dtype.is_floating_point:
        assert auroc(scores.log(), torch.tensor([[True], [False], [False]])) == 0


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (torch.rand(3), torch.ones(3), r"\[N, K\]"),
        (torch.rand(3, 2), torch.ones(3, 1), r"\[N, K\]"),
        (torch.tensor([[math.nan], [1.0]]), torch.ones(2, 1), "NaN in 1 of 2"),
        (torch.rand(2, 1), torch.tensor([[0.0], [-1.0]]), "expected labels 0, 1 or NaN, got -1.0"),
    ],
)
def test_auroc_refuses(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        auroc(scores, labels)


def test_mean_names_the_classes_it_leaves_out():
    assert mean_without_nan([0.5, math.nan, 1.0], ["a", "b", "c"]) == Mean(0.75, ("b",))
    assert mean_without_nan(torch.tensor([0.25]), ["a"]) == Mean(0.25, ())
    nothing = mean_without_nan([math.nan], ["a"])
    assert math.isnan(nothing.value)
    assert nothing.left_out == ("a",)
    assert nothing.to_dict() == {"value": None, "left_out": ["a"]}
    sure = mean_without_nan([0.5, 1.0], ["a", "b"], (0.6, math.nan))
    assert sure.to_dict() == {"value": 0.75, "left_out": [], "interval": [0.6, None]}


@given(
    positive=st.lists(st.integers(0, 20), min_size=5, max_size=15),
    negative=st.lists(st.integers(0, 20), min_size=5, max_size=15),
)
def test_no_threshold_separates_better_than_the_operating_point(positive, negative):
    def youden(threshold):
        return sum(s >= threshold for s in positive) / len(positive) - sum(s >= threshold for s in negative) / len(
            negative
        )

    scores = torch.tensor(positive + negative, dtype=torch.float64)[:, None]
    labels = torch.tensor([1.0] * len(positive) + [0.0] * len(negative))[:, None]
    point = operating_points(scores, labels).item()
    assert youden(point) == pytest.approx(max(youden(t) for t in range(22) if t <= max(positive + negative)))


def test_operating_points_lie_between_the_groups_and_need_enough_images():
    scores = torch.tensor([[0.1, 0.1]] * 5 + [[0.7, 0.7]] * 5)
    labels = torch.tensor([[0.0, 0.0]] * 5 + [[1.0, 1.0]] * 4 + [[1.0, float("nan")]])
    points = operating_points(scores, labels)
    assert points[0] == pytest.approx(0.4)
    assert points[1].isnan()


@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.1, 0.5, 0.9]), levels=st.integers(2, 30))
def test_unknown_labels_are_as_if_removed_by_hand(seed, share, levels):
    """Three classes of which some labels are unknown, and one of which nothing is known."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (40, 4), generator=generator) / levels
    labels = (torch.rand(40, 4, generator=generator) < 0.4).double()
    labels[torch.rand(40, 4, generator=generator) < share] = math.nan
    labels[:, 3] = math.nan
    known = ~labels.isnan()
    for measure in (auroc, average_precision, operating_points):
        found = measure(scores, labels)
        for k in range(4):
            rows = known[:, k]
            expected = measure(scores[rows, k, None], labels[rows, k, None].bool())
            assert torch.equal(found[k, None].nan_to_num(-1), expected.nan_to_num(-1))
        assert found[3].isnan()
        full = labels.nan_to_num(0.0)
        assert torch.equal(measure(scores, full).nan_to_num(-1), measure(scores, full.bool()).nan_to_num(-1))


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_equals_scikit_learn_and_torchmetrics(ties):
    generator = torch.Generator().manual_seed(4)
    scores = torch.rand(3000, 3, generator=generator)
    if ties:
        scores = (scores * 20).round() / 20
    labels = torch.rand(3000, 3, generator=generator) < scores * torch.tensor([0.02, 0.5, 1.0])
    result = average_precision(scores, labels)
    expected = [average_precision_score(labels[:, k], scores[:, k]) for k in range(3)]
    torch.testing.assert_close(result.tolist(), expected, rtol=0, atol=1e-12)
    other = multilabel_average_precision(scores, labels.long(), 3, average="none")
    torch.testing.assert_close(result.float(), other, rtol=0, atol=1e-5)


def test_average_precision_leaves_out_what_does_not_exist():
    labels = torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, math.nan], [0.0, 1.0, 0.0]])
    scores = torch.tensor([[0.3, 0.3, 0.5], [0.2, 0.2, 0.9], [0.1, 0.1, 0.7]])
    result = average_precision(scores, labels)
    assert result[0].isnan()
    assert result[1:].tolist() == [1.0, 0.5]  # the unknown one, over both others, does not count


def test_a_whole_test_list_equals_scikit_learn_to_six_decimals():
    """As many rows as the official test list has, fourteen classes from 0.2 % to 20 %, float32 as in files."""
    generator = torch.Generator().manual_seed(5)
    share = torch.logspace(-2.7, -0.7, 14)
    labels = torch.rand(25596, 14, generator=generator) < share
    scores = (torch.randn(25596, 14, generator=generator) + labels * torch.linspace(0.2, 2.5, 14)).sigmoid()
    for ours, theirs in ((auroc, roc_auc_score), (average_precision, average_precision_score)):
        expected = [theirs(labels[:, k], scores[:, k]) for k in range(14)]
        torch.testing.assert_close(ours(scores, labels).tolist(), expected, rtol=0, atol=5e-7)


def test_operating_points_refuse_what_auroc_refuses():
    scores, labels = torch.rand(12, 2), torch.arange(24).view(12, 2) % 3 == 0
    for wrong in (
        (scores, labels[:, :1]),
        (scores[:, 0], labels[:, 0]),
        (scores / 0 * 0, labels),
        (scores, labels * 2),
    ):
        with pytest.raises(ValueError, match="expected"):
            operating_points(*wrong, minimum=1)
    arrays = operating_points(scores.numpy(), labels.numpy(), minimum=1)
    assert torch.equal(arrays, operating_points(scores, labels, minimum=1))
    assert torch.equal(auroc(scores.numpy(), labels.numpy()), auroc(scores, labels))
