"""A whole run: what it leaves, that it can stop and go on, and that the same seed gives the same numbers."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from cxrfast.data import Splits
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.training import RunDirectory, build_config, load_config, load_predictor, resume, train
from cxrfast.training.loop import Trainer, freeze, set_training


def quiet(line):
    pass


def same_weights(a, b):
    a, b = load_file(a), load_file(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def numbers(run):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.read_metrics()]


def test_what_a_run_leaves(trained):
    run = RunDirectory(trained)
    assert {path.name for path in trained.iterdir()} == {
        "config.yaml", "splits.json", "env.json", "metrics.jsonl", "last.ckpt", "weights",
    }  # fmt: skip
    assert {path.name for path in run.best.parent.iterdir()} == {"best.safetensors", "last.safetensors"}
    rows = run.read_metrics()
    assert [(row["stage"], row["epoch"]) for row in rows] == [("unary", 1), ("unary", 2), ("crf", 1)]
    assert all(row["train_loss"] > 0 and 0 <= row["val_auroc"] <= 1 for row in rows)
    assert "tau" in rows[0]  # thresholds were fitted after the first epoch
    assert json.loads((trained / "env.json").read_text())["torch"] == torch.__version__
    splits = Splits.load(run.splits)
    assert len(splits.train) + len(splits.val) + len(splits.test) == 40


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(trained, small_settings, tmp_path):
    again = train(build_config(small_settings), tmp_path / "again", say=quiet)
    assert numbers(again) == numbers(RunDirectory(trained))
    assert same_weights(again.last, RunDirectory(trained).last)
    other = train(build_config({**small_settings, "seed": 1, "epochs": 1}), tmp_path / "other", say=quiet)
    assert numbers(other)[0] != numbers(again)[0]


def test_a_configuration_file_repeats_a_run(trained, tmp_path):
    again = train(build_config(load_config(trained / "config.yaml")), tmp_path / "again", say=quiet)
    assert same_weights(again.last, RunDirectory(trained).last)


@pytest.mark.parametrize("finished", [1, 2])  # inside the first stage, and between the stages
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    trained, small_settings, tmp_path, monkeypatch, finished
):
    epoch = Trainer._epoch
    done = []

    def interrupted(*args):
        if len(done) == finished:
            raise KeyboardInterrupt
        done.append(1)
        return epoch(*args)

    monkeypatch.setattr(Trainer, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(build_config(small_settings), tmp_path / "run", say=quiet)
    monkeypatch.undo()
    said = []
    run = resume(tmp_path / "run", say=said.append)
    assert f"going on after epoch {finished}" in said[-1]
    assert numbers(run) == numbers(RunDirectory(trained))
    assert same_weights(run.last, RunDirectory(trained).last)
    assert same_weights(run.best, RunDirectory(trained).best)
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_resuming_a_finished_run_does_nothing(trained):
    said = []
    before = (trained / "last.ckpt").stat().st_mtime_ns
    resume(trained, say=said.append)
    assert "nothing to do" in said[0]
    assert (trained / "last.ckpt").stat().st_mtime_ns == before


def test_resuming_what_cannot_be_resumed(trained, tmp_path):
    with pytest.raises(CxrfastError, match="is not a run of cxrfast train"):
        resume(tmp_path, say=quiet)
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    (copy / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(CxrfastError, match="last.ckpt cannot be read"):
        resume(copy, say=quiet)
    (copy / "last.ckpt").unlink()
    with pytest.raises(CxrfastError, match="stopped before its first epoch ended; start it again"):
        resume(copy, say=quiet)


def test_an_output_folder_is_never_overwritten(trained, small_settings):
    with pytest.raises(UsageError, match="exists and is not empty; choose another folder, or go on with --resume"):
        train(build_config(small_settings), trained, say=quiet)


def test_classes_are_those_that_occur(trained):
    names = load_predictor(trained).class_names
    assert names == tuple(load_config(trained / "config.yaml")["classes"])
    assert "Hernia" not in names  # phantoms have none


@pytest.mark.parametrize(
    ("classes", "message"),
    [(["Hernia"], "no training image shows Hernia"), (["Mas"], "unknown class 'Mas'")],
)
def test_classes_that_cannot_be_learnt(small_settings, tmp_path, classes, message):
    with pytest.raises(UsageError, match=message):
        train(build_config({**small_settings, "classes": classes}), tmp_path / "run", say=quiet)
    assert not (tmp_path / "run").exists()


def test_the_crf_stage_leaves_the_unaries_alone(trained):
    method = load_predictor(trained).network
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    stage = method.stages(2)[1]
    freeze(method, stage)
    set_training(method, stage)
    trainable = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.1)
    method(torch.randn(4, 1, 64, 64), stage.name).square().mean().backward()
    optimizer.step()
    changed = {name for name, tensor in method.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith(("network.guide.", "network.crf.")) for name in changed)


def test_li_trains_too(small_settings, small_options, tmp_path):
    settings = {**small_settings, "method": "li", "epochs": 1, "options": {**small_options, "floor": 0.98}}
    run = train(build_config(settings), tmp_path / "li", say=quiet)
    assert load_predictor(run.path).method == "li"
