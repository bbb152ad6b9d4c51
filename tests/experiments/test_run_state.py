"""How far a run has come: new, started, trained, evaluated, or of other settings."""

import os
import shutil

import pytest

from cxrfast.errors import UsageError
from cxrfast.experiments.evaluate_run import evaluate_run
from cxrfast.experiments.run_state import RunState, is_pooled, refuse_other_settings, run_state
from cxrfast.runs import RunDirectory
from cxrfast.training import build_config
from cxrfast.training.loop import Trainer
from cxrfast.training.train import train


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """A finished run with an evaluation in its own folder and one in a folder by protocol. Not to be changed."""
    run = RunDirectory(shutil.copytree(trained, tmp_path_factory.mktemp("state") / "run"))
    evaluate_run(run.path, page=False)
    evaluate_run(run.path, page=False, protocol="own", out=run.by_protocol("own").path)
    return run


@pytest.fixture
def run(evaluated, tmp_path):
    return RunDirectory(shutil.copytree(evaluated.path, tmp_path / "copy"))


@pytest.mark.parametrize(("interrupted_in", "state"), [(1, RunState.NEW), (2, RunState.STARTED)])
def test_new_until_an_epoch_is_done_then_started(small_settings, tmp_path, monkeypatch, interrupted_in, state):
    run = RunDirectory(tmp_path / "run")
    assert run_state(run, {"strict": run}) == RunState.NEW
    epoch = Trainer._epoch

    def interrupted(trainer, number, stage, at, optimizer):
        if (number, at) == (0, interrupted_in):
            raise KeyboardInterrupt
        return epoch(trainer, number, stage, at, optimizer)

    monkeypatch.setattr(Trainer, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(build_config(small_settings), run.path)
    assert run.exists
    assert run_state(run, {"strict": run}) == state


def test_evaluated_by_every_protocol(run):
    own = run.by_protocol("own")
    assert run_state(run, {"strict": run}) == RunState.EVALUATED
    assert run_state(run, {"strict": run, "own": own}) == RunState.EVALUATED
    assert run_state(run, {"own": run}) == RunState.TRAINED  # there are results, by another protocol
    assert run_state(run, {"strict": run, "li2018": run.by_protocol("li2018")}) == RunState.TRAINED


@pytest.mark.parametrize("damage", ["other T", "no predictions", "not JSON", "older than the weights"])
def test_results_that_do_not_count(run, damage):
    if damage == "other T":
        evaluate_run(run.path, page=False, thresholds=[0.2])
    elif damage == "no predictions":
        run.predictions().unlink()
    elif damage == "not JSON":
        run.evaluation().write_text("{")
    else:
        after = run.evaluation().stat().st_mtime + 10
        os.utime(run.checkpoint, (after, after))
    assert run_state(run, {"strict": run}) == RunState.TRAINED
    # Of a folder that only a finished run is evaluated into, the times say nothing: a copy may have others.
    assert run_state(run, {"own": run.by_protocol("own")}) == RunState.EVALUATED


def test_results_are_enough_where_the_checkpoint_has_been_deleted(run):
    run.checkpoint.unlink()
    assert run_state(run, {"own": run.by_protocol("own")}) == RunState.EVALUATED
    assert run_state(run, {"strict": run}) == RunState.NEW  # whose weights the results are of, nobody knows


def test_other_settings_are_refused(run, small_settings, tmp_path):
    config = build_config(small_settings)
    refuse_other_settings(run, config)
    refuse_other_settings(run, config.model_copy(update={"workers": 3}))
    refuse_other_settings(RunDirectory(tmp_path / "nothing"), config)
    with pytest.raises(UsageError, match=r"out: .*copy has a run with epochs 2, not 3; choose another folder"):
        refuse_other_settings(run, config.model_copy(update={"epochs": 3}))
    with pytest.raises(UsageError, match="has a run with folds None, not 5"):
        refuse_other_settings(run, config, folds=5)


def test_no_pooled_result(tmp_path):
    folder = RunDirectory(tmp_path)
    assert not is_pooled(folder, "strict", 2)
    folder.pooled.write_text("{")
    assert not is_pooled(folder, "strict", 2)


def test_a_run_that_was_stopped_within_its_first_epoch_has_started(run, tmp_path):
    run.partial.write_bytes(run.checkpoint.read_bytes())
    run.checkpoint.unlink()
    run.evaluation().unlink(missing_ok=True)
    assert run_state(run, {"strict": run}) == RunState.STARTED


def test_a_run_whose_best_weights_are_not_written_yet_is_not_trained(run):
    """It was killed between its last checkpoint and the weights."""
    run.evaluation().unlink(missing_ok=True)
    run.best.unlink()
    assert run_state(run, {"strict": run}) == RunState.STARTED
