"""What the grid holds, and how its results are put together."""

import dataclasses

import pytest

from cxrfast.errors import UsageError
from cxrfast.experiments.bags import BagSettings, make_grid, markdown, summarize
from cxrfast.experiments.bags.plots import plot_summaries
from cxrfast.experiments.bags.results import RunSpread, Summary

BASE = BagSettings(batch_size=4, epochs=7)


def test_every_combination_once_and_first_runs_first():
    grid = make_grid(BASE, ["sgl", "max", "bil"], [50, 10], [20, 10], 2)
    assert len(set(grid)) == len(grid) == 3 * 2 * 2 * 2
    assert [settings.run for settings in grid] == [0] * 12 + [1] * 12
    assert {settings.epochs for settings in grid} == {7}
    options = {(s.method, s.pool, s.delta, s.lam) for s in grid}
    assert options == {("sgl", "max", 0.3, 1.0), ("max", None, None, None), ("bil", "mean", None, 1.0)}


def test_poolings_of_their_own_in_one_grid():
    """BIL with the mean, as the paper trains it, beside SGL with the maximum, and BIL with another one."""
    chosen = [(s.method, s.pool) for s in make_grid(BASE, ["bil", "sgl", "bil:max", "bil:mean", "mmm"], [4], [4], 1)]
    assert chosen == [("bil", "mean"), ("sgl", "max"), ("bil", "max"), ("mmm", "max")]
    softmax = dataclasses.replace(BASE, pool="softmax")
    chosen = [(s.method, s.pool) for s in make_grid(softmax, ["bil", "sgl:noisy_or", "max", "bil-script"], [4], [4], 1)]
    assert chosen == [("bil", "softmax"), ("sgl", "noisy-or"), ("max", None), ("bil-script", "softmax")]
    assert make_grid(BASE, ["bil-script"], [4], [4], 1)[0].pool == "mean-logit"


def test_positives_are_an_axis_and_sizes_have_their_deviations():
    grid = make_grid(BASE, ["max"], [5, 9], [4, 8], 1, positives=["1", "20%", "natural"], bag_size_std=[0, 2.5])
    assert len(set(grid)) == len(grid) == 2 * 2 * 3
    assert {(s.bag_size, s.bag_size_std) for s in grid} == {(5, 0), (9, 2.5)}
    assert {s.positives for s in grid} == {"1", "20%", "natural"}
    with pytest.raises(UsageError, match="positives: expected at most 5, the bag size, got 6; reduce --positives"):
        make_grid(BASE, ["max"], [5, 9], [4], 1, positives=["6"])
    with pytest.raises(UsageError, match="bag-size-std: expected one number, or one for each of 2 bag sizes, got 3"):
        make_grid(BASE, ["max"], [5, 9], [4], 1, bag_size_std=[1, 2, 3])


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("median", "method: expected some of max, .*, got 'median'"),
        ("bil:median", "pool: expected one of noisy-or, .*, mean-logit, got 'median'"),
        ("bil:", "pool: expected one of .*, got ''"),
        ("mean:max", "method: expected no pooling for mean, got 'mean:max'"),
    ],
)
def test_spellings_that_are_none(method, message):
    with pytest.raises(UsageError, match=message):
        make_grid(BASE, [method], [4], [4], 1)


def test_epochs_and_steps():
    grid = make_grid(BASE, ["max"], [50, 10], [8, 20], 1, epochs=[3, 5])
    assert {(s.bag_size, s.epochs) for s in grid} == {(50, 3), (10, 5)}
    grid = make_grid(BASE, ["max"], [10], [4, 8, 9, 400], 1, steps=[20])
    assert {s.train_bags: s.epochs for s in grid} == {4: 20, 8: 10, 9: 7, 400: 1}


def test_lengths_that_do_not_fit():
    with pytest.raises(UsageError, match="steps: expected one number, or one for each of 3 bag sizes, got 2"):
        make_grid(BASE, ["max"], [1, 2, 3], [4], 1, steps=[3, 4])
    with pytest.raises(UsageError, match="either --epochs or --steps"):
        make_grid(BASE, ["max"], [1], [4], 1, steps=[3], epochs=[2])


def row(method, size, bags, iou, auc, *, pool=None, positives="natural", count=2.0) -> dict[str, str]:
    pool = {"max": ""}.get(method, "max") if pool is None else pool
    values = {"method": method, "pool": pool, "bag_size": size, "train_bags": bags, "iou": iou, "auc": auc}
    return {name: str(value) for name, value in values.items()} | {
        "positives": positives,
        "positives_per_bag": str(count),
    }


def test_summary_and_table():
    rows = [row("sgl", 10, 50, 0.5, 0.9), row("max", 10, 50, 0.25, 1), row("sgl", 10, 50, 0.75, 0.8)]
    rows += [row("sgl", 20, 50, 1, 1)]
    summaries = summarize(rows)
    iou, auc = RunSpread(0.625, 0.5, 0.75), RunSpread(pytest.approx(0.85), 0.8, 0.9)
    assert summaries[0] == Summary("sgl", 10, 50, "natural", 2.0, 2, iou, auc)
    assert [summary.runs for summary in summaries] == [2, 1, 1]
    assert markdown(summaries, "iou").splitlines() == [
        "| training bags | method | bags of 10 | bags of 20 |",
        "|---|---|---|---|",
        "| 50 | SGL | **0.62** (0.50–0.75) | **1.00** (1.00–1.00) |",
        "| 50 | max | 0.25 (0.25–0.25) | – |",
    ]


def test_summary_groups_by_pooling_and_positives():
    rows = [row("bil", 10, 50, 0.5, 0.9, pool=pool) for pool in ("mean", "max", "mean")]
    assert [(s.method, s.label, s.runs) for s in summarize(rows)] == [
        ("bil", "BIL", 2),
        ("bil:max", "BIL (max pooling)", 1),
    ]
    rows = [row("sgl", 10, 50, 0.1 * n, 0.5, positives=p, count=n) for n, p in ((10, "10"), (1, "1"), (1.2, "natural"))]
    rows += [row("max", 10, 50, 0.3, 0.5, positives="10", count=10)]
    summaries = summarize(rows)
    assert [(s.method, s.positives, s.positives_per_bag) for s in summaries] == [
        ("sgl", "10", 10),
        ("sgl", "1", 1),
        ("sgl", "natural", 1.2),
        ("max", "10", 10),
    ]
    assert markdown(summaries, "iou").splitlines() == [
        "| training bags | positives | method | bags of 10 |",
        "|---|---|---|---|",
        "| 50 | natural | SGL | **0.12** (0.12–0.12) |",
        "| 50 | 1 | SGL | **0.10** (0.10–0.10) |",
        "| 50 | 10 | SGL | **1.00** (1.00–1.00) |",
        "| 50 | 10 | max | 0.30 (0.30–0.30) |",
    ]


def test_pictures_are_of_the_axes_that_have_several_values(tmp_path):
    def names(sizes, counts, positives):
        folder = tmp_path / f"{len(sizes)}{len(counts)}{len(positives)}"
        rows = [
            row(method, size, bags, 0.5, 0.7, positives=text, count=float(text))
            for method in ("sgl", "max", "bil")
            for size in sizes
            for bags in counts
            for text in positives
        ]
        written = plot_summaries(summarize(rows), folder)
        assert sorted(written) == sorted(folder.iterdir())
        return sorted(path.name for path in written)

    assert names([10], [50], ["1"]) == ["by_train_bags.png"]
    assert names([10, 50], [50], ["1", "5"]) == [
        "by_bag_size-1.png",
        "by_bag_size-5.png",
        "by_positives.png",
    ]
    assert names([10], [50, 100], ["1", "5"]) == [
        "by_positives-100.png",
        "by_positives-50.png",
        "by_train_bags-1.png",
        "by_train_bags-5.png",
    ]
