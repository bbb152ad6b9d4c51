"""The learning rate: divided once by validation, after given epochs, or after the best of several E; resumed at any
epoch with the same numbers."""

import pytest
import torch
from safetensors.torch import load_file

from cxrfast.errors import UsageError
from cxrfast.experiments.evaluate_run import evaluate_run
from cxrfast.methods import Stage
from cxrfast.runs.settings import load_config
from cxrfast.runs.weights import read_weights
from cxrfast.training import build_config, resume, train
from cxrfast.training.checkpoint import load_checkpoint
from cxrfast.training.loop import Trainer, search_result
from cxrfast.training.schedule import DividedOnce, Leg, make_schedule, plan_legs


def numbers(run):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.read_metrics()]


def same_weights(a, b):
    a, b = load_file(a), load_file(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def optimizer(lr=1.0):
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(config, scores):
    """The learning rate of every epoch."""
    adam = optimizer(config.lr)
    schedule = make_schedule(adam, config)
    found = []
    for score in scores:
        found.append(adam.param_groups[0]["lr"])
        adam.step()
        schedule.step(score)
    return found


def config(**settings):
    return build_config({"method": "li", "data": "x", "lr": 1.0, "lr_decay": 0.5, "epochs": 8, **settings})


@pytest.mark.parametrize(
    ("settings", "scores", "expected"),
    [
        ({"lr_step": 2}, [0.0] * 5, [1, 1, 0.5, 0.5, 0.25]),
        ({"lr_milestones": [2]}, [0.0] * 5, [1, 1, 0.5, 0.5, 0.5]),
        ({"lr_milestones": [1, 3]}, [0.0] * 5, [1, 0.5, 0.5, 0.25, 0.25]),
        # The best is the second; two epochs later it has not been beaten. Never again, whatever follows.
        ({"lr_schedule": "plateau", "lr_patience": 2}, [1, 2, 2, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]),
        ({"lr_schedule": "plateau", "lr_patience": 2}, [1, 0, 2, 1, 3, 4, 3, 3], [1] * 8),
        ({"lr_schedule": "plateau", "lr_patience": 1}, [1, None, None, 1, 1], [1, 1, 1, 1, 0.5]),
        ({"lr_schedule": "search", "lr_milestones": [2, 3]}, [1, 0, 0, 0, 0], [1] * 5),  # its legs differ, no leg falls
    ],
)
def test_learning_rates(settings, scores, expected):
    assert rates(config(**settings), scores) == pytest.approx(expected)


def test_a_plateau_goes_on_where_it_stopped():
    scores = [3, 1, 4, 1, 5, 2, 2, 2, 2, 2]
    for stop in range(len(scores)):
        first, second = (DividedOnce(optimizer(), factor=0.5, patience=2) for _ in range(2))
        for score in scores[:stop]:
            first.step(score)
        second.load_state_dict(first.state_dict())
        second.optimizer.load_state_dict(first.optimizer.state_dict())
        for score in scores[stop:]:
            second.step(score)
        assert second.divided
        assert second.optimizer.param_groups[0]["lr"] == 0.5


def test_legs():
    stages = (Stage("unary", 8, ()), Stage("crf", 2, ()))
    assert plan_legs(stages, config()) == (Leg(0, 0, 8), Leg(1, 0, 2))
    legs = plan_legs(stages, config(lr_schedule="search", lr_milestones=[3, 5, 9]))
    assert legs == (Leg(0, 0, 5, forks=(3, 5)), Leg(0, 3, 8, 3), Leg(0, 5, 8, 5), Leg(1, 0, 2))  # 9 is after the end
    assert [leg.epochs for leg in legs] == [5, 5, 3, 2]


@pytest.mark.parametrize(("epochs", "tried"), [(30, (10, 15, 20)), (8, (2, 4, 5)), (2, (1,)), (1, ())])
def test_a_search_tries_a_third_half_and_two_thirds(epochs, tried):
    settings = build_config({"method": "zhang", "data": "x", "epochs": epochs, "lr_schedule": "search"})
    legs = plan_legs((Stage("classifiers", epochs, ()),), settings)
    assert legs[0] == Leg(0, 0, max(tried, default=epochs), forks=tried)
    assert [leg.divided_after for leg in legs[1:]] == list(tried)
    if epochs == 30:
        assert sum(leg.epochs for leg in legs) == 65


@pytest.fixture(scope="module")
def settings(phantoms, small_options):
    return {
        "method": "li", "data": phantoms, "image_size": 64, "batch_size": 16, "device": "cpu",
        "options": small_options, "epochs": 5, "lr": 0.02, "lr_decay": 0.1,
    }  # fmt: skip


def interrupt(monkeypatch, after):
    """Training stops before its epoch number `after` + 1, of all legs."""
    epoch, done = Trainer._epoch, []

    def interrupted(*args):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(1)
        return epoch(*args)

    monkeypatch.setattr(Trainer, "_epoch", interrupted)


def stopped_and_resumed(settings, out, monkeypatch, after):
    interrupt(monkeypatch, after)
    with pytest.raises(KeyboardInterrupt):
        train(build_config(settings), out)
    monkeypatch.undo()
    return resume(out)


def test_a_plateau_in_a_run(settings, tmp_path, monkeypatch):
    settings = {**settings, "lr_schedule": "plateau", "lr_patience": 1}
    run = train(build_config(settings), tmp_path / "run")
    rows = numbers(run)
    scores = [row["val_score"] for row in rows]
    worse = [at for at in range(1, 5) if scores[at] <= max(scores[:at])]
    assert worse, "no epoch was worse: take other settings"
    assert worse[0] < 4, "the rate falls after the last epoch: take other settings"
    expected = [0.02 if at <= worse[0] else 0.002 for at in range(5)]
    assert [row["lr"] for row in rows] == pytest.approx(expected)
    for after in (worse[0], worse[0] + 1):  # before and after the division
        again = stopped_and_resumed(settings, tmp_path / f"stopped-{after}", monkeypatch, after)
        assert numbers(again) == rows
        assert same_weights(again.last, run.last)


@pytest.fixture(scope="module")
def searched(settings, tmp_path_factory):
    """A run that has tried E = 1, 2 and 4 of 5 epochs. Not to be changed."""
    found = {**settings, "lr_schedule": "search", "lr_milestones": [1, 2, 4]}
    return train(build_config(found), tmp_path_factory.mktemp("search") / "run")


def test_a_search_is_the_runs_with_each_e(searched, settings, tmp_path):
    rows = numbers(searched)
    assert [(row["divided_after"], row["epoch"]) for row in rows] == [
        *((None, e) for e in (1, 2, 3, 4)), *((1, e) for e in (2, 3, 4, 5)), *((2, e) for e in (3, 4, 5)), (4, 5),
    ]  # fmt: skip
    best = {}
    for e in (1, 2, 4):
        alone = train(build_config({**settings, "lr_milestones": [e]}), tmp_path / f"e-{e}")
        together = [
            row for row in rows if row["divided_after"] == e or (not row["divided_after"] and row["epoch"] <= e)
        ]
        drop = {"divided_after", "best"}
        assert [{k: v for k, v in row.items() if k not in drop} for row in together] == [
            {k: v for k, v in row.items() if k not in drop} for row in numbers(alone)
        ]
        scores = [row["val_score"] for row in alone.read_metrics()]
        best[e] = max(scores), alone
        if e == 4:
            assert same_weights(alone.last, searched.last)
    chosen = max(best, key=lambda e: best[e][0])
    # The weights that are kept are those that a search by hand would keep.
    assert max(row["val_score"] for row in rows) == best[chosen][0]
    kept = [row for row in rows if row["best"]][-1]
    assert kept["val_score"] == best[chosen][0]
    assert int(read_weights(searched.best)[0]["epoch"]) == kept["epoch"]
    line = search_result(searched.read_metrics())
    assert f"{chosen}: {best[chosen][0]:.4f}" in line
    tied = [e for e in best if best[e][0] == best[chosen][0]]
    assert line.startswith(f"learning rate divided after E = {min(tied)} epochs, by validation (1: ")
    assert not searched.forks.exists()
    assert evaluate_run(searched.path).result.mean_auroc.value > 0


@pytest.mark.parametrize(
    "after", [1, 4, 6, 8, 11]
)  # in the trunk, before a branch, in one, before the next, at the end
def test_an_interrupted_search_goes_on(searched, settings, tmp_path, monkeypatch, logged, after):
    searching = {**settings, "lr_schedule": "search", "lr_milestones": [1, 2, 4]}
    run = stopped_and_resumed(searching, tmp_path / "run", monkeypatch, after)
    assert numbers(run) == numbers(searched)
    assert same_weights(run.last, searched.last)
    assert same_weights(run.best, searched.best)
    assert not run.forks.exists()
    if after == 6:
        line = "after epoch 3 of stage patches, with the learning rate divided after epoch 1"
        assert any(message.endswith(line) for message in logged.messages)
    logged.clear()
    resume(run.path)
    assert "nothing to do" in logged.messages[0]


def test_a_search_fed_back_is_the_same_search(searched):
    saved = load_config(searched.config)
    assert (saved["lr_schedule"], saved["lr_milestones"]) == ("search", [1, 2, 4])
    assert build_config(saved) == build_config(load_config(searched.config))


def test_checkpoints_of_earlier_versions_are_read(searched, tmp_path):
    state = torch.load(searched.checkpoint, weights_only=True)
    state["stage"] = state.pop("leg")
    torch.save(state, tmp_path / "old.ckpt")
    assert load_checkpoint(tmp_path / "old.ckpt")["leg"] == state["stage"]


def test_the_method_s_schedule_and_what_replaces_it():
    assert build_config({"method": "zhang", "data": "x"}).lr_schedule == "plateau"
    assert build_config({"method": "zhang", "data": "x", "lr_step": 2}).lr_schedule == "steps"
    given = build_config({"method": "zhang", "data": "x", "lr_milestones": ["12"]})
    assert (given.lr_schedule, given.lr_milestones) == ("milestones", (12,))
    search = build_config({"method": "zhang", "data": "x", "lr_schedule": "search"})
    assert (search.lr_schedule, search.lr_milestones) == ("search", ())
    assert build_config({"method": "rozenberg", "data": "x"}).lr_schedule == "steps"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_schedule": "cosine"}, "lr_schedule: expected 'steps', 'milestones', 'plateau' or 'search', got"),
        ({"lr_schedule": "milestones"}, "lr_milestones: expected epochs for lr_schedule milestones, got none; for"),
        ({"lr_milestones": []}, "lr_milestones: expected epochs for lr_schedule milestones, got none"),
        ({"lr_milestones": [0]}, "lr_milestones.0: expected a number greater than or equal to 1, got 0"),
        ({"lr_milestones": ["ten"]}, "lr_milestones.0: expected a valid integer.*got 'ten'"),
        ({"lr_milestones": [5, 3]}, "lr_milestones: expected increasing epochs, got 5, 3"),
        ({"lr_milestones": [3, 3]}, "lr_milestones: expected increasing epochs, got 3, 3"),
        (
            {"lr_schedule": "search", "lr_milestones": [9]},
            "lr_milestones: expected an epoch below 8, the last one, got 9",
        ),
        ({"lr_patience": 0}, "lr_patience: expected a number greater than or equal to 1, got 0"),
    ],
)
def test_wrong_schedules(settings, message):
    with pytest.raises(UsageError, match=message) as refusal:
        config(**settings)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("schedule", ["plateau", "search"])
def test_what_validation_chooses_needs_validation(settings, tmp_path, schedule):
    wrong = {**settings, "lr_schedule": schedule, "lr_milestones": [2], "val_share": 0}
    with pytest.raises(UsageError, match=f"lr_schedule: expected steps .* without validation images, got {schedule}"):
        train(build_config(wrong), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_search_result_of_ties_and_of_nothing_measured():
    def row(e, score):
        return {"divided_after": e, "val_score": score}

    rows = [row(None, 0.1), row(None, 0.2), row(1, 0.3), row(2, 0.3)]
    assert search_result(rows) == "learning rate divided after E = 1 epochs, by validation (1: 0.3000, 2: 0.3000)"
    assert "E = 2" in search_result([row(None, 0.1), row(None, 0.2), row(1, None), row(2, None)])
