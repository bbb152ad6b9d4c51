"""What the grid holds, and how its results are put together."""

import pytest

from cxrfast.bags import Settings, make_grid, markdown, summarize
from cxrfast.bags.results import Spread, Summary
from cxrfast.errors import UsageError

BASE = Settings(batch_size=4, epochs=7)


def test_every_combination_once_and_first_runs_first():
    grid = make_grid(BASE, ["sgl", "max", "bil"], [50, 10], [20, 10], 2)
    assert len(set(grid)) == len(grid) == 3 * 2 * 2 * 2
    assert [settings.run for settings in grid] == [0] * 12 + [1] * 12
    assert {settings.epochs for settings in grid} == {7}
    options = {(s.method, s.pool, s.delta, s.lam) for s in grid}
    assert options == {("sgl", "max", 0.3, 1.0), ("max", None, None, None), ("bil", "max", None, 1.0)}


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


def row(method: str, size: int, bags: int, iou: float, auc: float) -> dict[str, str]:
    return {"method": method, "bag_size": str(size), "train_bags": str(bags), "iou": str(iou), "auc": str(auc)}


def test_summary_and_table():
    rows = [row("sgl", 10, 50, 0.5, 0.9), row("max", 10, 50, 0.25, 1), row("sgl", 10, 50, 0.75, 0.8)]
    rows += [row("sgl", 20, 50, 1, 1)]
    summaries = summarize(rows)
    assert summaries[0] == Summary("sgl", 10, 50, 2, Spread(0.625, 0.5, 0.75), Spread(pytest.approx(0.85), 0.8, 0.9))
    assert [summary.runs for summary in summaries] == [2, 1, 1]
    assert markdown(summaries, "iou").splitlines() == [
        "| training bags | method | bags of 10 | bags of 20 |",
        "|---|---|---|---|",
        "| 50 | SGL | **0.62** (0.50–0.75) | **1.00** (1.00–1.00) |",
        "| 50 | max | 0.25 (0.25–0.25) | – |",
    ]
