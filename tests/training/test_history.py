"""Which epoch is the best, and a training that explodes or never improves."""

import math

import pytest

from cxrfast.errors import CxrfastError
from cxrfast.runs import RunDirectory
from cxrfast.training import build_config, resume, train
from cxrfast.training.history import LIMIT, History, has_exploded, has_stalled
from cxrfast.training.train import is_finished


def row(loss, score=None, auroc=None):
    return {"stage": "one", "train_loss": loss, "val_score": score, "val_auroc": auroc}


def test_what_an_explosion_is():
    assert not has_exploded(3.0, 3.0 * LIMIT)
    assert has_exploded(3.0, 3.1 * LIMIT)
    assert not has_exploded(0.01, 0.9 * LIMIT)  # a small loss at the start is no measure
    assert has_exploded(-5.0, 1.1 * LIMIT)
    assert has_exploded(1.0, math.nan)
    assert not has_exploded(None, 1e9)


def test_what_a_stall_is():
    assert has_stalled(1.0, [row(2.0, auroc=0.5), row(3.0, auroc=0.4)])
    assert not has_stalled(1.0, [row(2.0, auroc=0.5), row(3.0, auroc=0.6)])  # it ranks
    assert not has_stalled(1.0, [row(2.0, auroc=0.5), row(0.9, auroc=0.4)])  # the loss fell
    assert not has_stalled(1.0, [row(2.0, auroc=0.5), row(1.5, auroc=0.4)])  # below the first epoch's
    assert not has_stalled(1.0, [row(2.0)])  # one epoch without validation says too little
    assert has_stalled(1.0, [row(2.0), row(2.0)])
    assert not has_stalled(None, [row(2.0), row(2.0)])


def test_an_exploded_epoch_is_never_the_best():
    history = History()
    history.start = 1.0
    assert history.add(row(0.9, score=0.6), last=False)
    assert not history.add(row(1e4, score=0.9), last=False)
    assert history.add(row(0.8, score=0.7), last=True)
    assert [kept["best"] for kept in history.rows] == [True, False, True]
    assert [kept.get("exploded") for kept in history.rows] == [None, True, None]
    assert history.best_row == 2
    again = History()
    again.load_state(history.state(), [])
    assert again.rows == history.rows
    assert (again.best, again.best_row, again.start) == (0.7, 2, 1.0)


def test_a_run_that_explodes_has_no_best_epoch(phantoms, tmp_path, logged):
    run = RunDirectory(tmp_path / "run")
    settings = {
        "method": "chexnet", "data": phantoms, "image_size": 64, "epochs": 2, "batch_size": 8, "device": "cpu",
        "lr": 1e6, "options": {"backbone": "densenet_nano", "output_stride": 8},
    }  # fmt: skip
    message = r"exploded in stage \w+: the loss was .* before the first step, .* with a smaller learning rate than 1e"
    with pytest.raises(CxrfastError, match=message) as error:
        train(build_config(settings), run.path)
    assert "\n" not in str(error.value)
    rows = run.read_metrics()
    assert all(kept["exploded"] and not kept["best"] for kept in rows)
    assert not run.best.exists()
    assert any(line.endswith("  exploded") for line in logged.messages)
    assert not is_finished(run)
    with pytest.raises(CxrfastError, match="training exploded in stage"):
        resume(run.path)


def test_a_run_that_never_improves_says_so(small_settings, tmp_path, logged):
    run = train(build_config({**small_settings, "lr": 1e6}), tmp_path / "run")
    rows = run.read_metrics()
    assert [kept["best"] for kept in rows[:2]] == [False, False]
    assert rows[1]["never_improved"]
    assert any("stage unary never improved over its start: the loss was" in line for line in logged.messages)
