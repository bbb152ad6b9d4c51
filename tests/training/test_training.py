"""A whole run: what it leaves, that it can stop and go on, and that the same seed gives the same numbers."""

import json
import multiprocessing
import shutil

import pytest
import torch
from safetensors.torch import load_file

from cxrfast.data import Splits
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.experiments.evaluate_run import evaluate_run
from cxrfast.inference import load_predictor, localize
from cxrfast.runs import RunDirectory
from cxrfast.runs.settings import load_config
from cxrfast.training import build_config, resume, train
from cxrfast.training.loop import Trainer, freeze, make_optimizer, set_training


def same_weights(a, b):
    a, b = load_file(a), load_file(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def numbers(run):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.read_metrics()]


def test_what_a_run_leaves(trained):
    run = RunDirectory(trained)
    assert {path.name for path in trained.iterdir()} == {
        "config.yaml", "splits.json", "fingerprint.json", "env.json", "metrics.jsonl", "last.ckpt", "weights",
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
    again = train(build_config(small_settings), tmp_path / "again")
    assert numbers(again) == numbers(RunDirectory(trained))
    assert same_weights(again.last, RunDirectory(trained).last)
    other = train(build_config({**small_settings, "seed": 1, "epochs": 1}), tmp_path / "other")
    assert numbers(other)[0] != numbers(again)[0]


def test_a_configuration_file_repeats_a_run(trained, tmp_path):
    again = train(build_config(load_config(trained / "config.yaml")), tmp_path / "again")
    assert same_weights(again.last, RunDirectory(trained).last)


@pytest.mark.parametrize("finished", [0, 1, 2])  # before the first epoch ends, inside a stage, between the stages
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    trained, small_settings, tmp_path, monkeypatch, finished, logged
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
        train(build_config(small_settings), tmp_path / "run")
    monkeypatch.undo()
    logged.clear()
    run = resume(tmp_path / "run")
    first = logged.messages[0]
    assert (f"resuming after epoch {finished}" if finished else "no finished epoch; starting again") in first
    assert numbers(run) == numbers(RunDirectory(trained))
    assert same_weights(run.last, RunDirectory(trained).last)
    assert same_weights(run.best, RunDirectory(trained).best)
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_resuming_a_finished_run_does_nothing(trained, logged):
    before = (trained / "last.ckpt").stat().st_mtime_ns
    resume(trained)
    assert "nothing to do" in logged.messages[0]
    assert (trained / "last.ckpt").stat().st_mtime_ns == before


def test_resuming_what_cannot_be_resumed(trained, tmp_path):
    with pytest.raises(CxrfastError, match="is not a run of cxrfast train"):
        resume(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    (copy / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(CxrfastError, match="last.ckpt cannot be read"):
        resume(copy)
    shutil.copy(trained / "last.ckpt", copy)
    (copy / "config.yaml").write_text((copy / "config.yaml").read_text().replace("crf_epochs: 1", "crf_epochs: 2"))
    with pytest.raises(CxrfastError, match="began with options.crf_epochs 1, but config.yaml has 2; restore it"):
        resume(copy)


def test_files_beside_the_checkpoint_are_made_from_it(trained, tmp_path):
    run = RunDirectory(shutil.copytree(trained, tmp_path / "copy"))
    run.metrics.write_text("{")
    run.last.unlink()
    resume(run.path)
    assert numbers(run) == numbers(RunDirectory(trained))
    assert same_weights(run.last, RunDirectory(trained).last)


def test_the_checkpoint_of_an_earlier_version_resumes(trained, tmp_path, logged):
    """It has no rows: they are read from metrics.jsonl."""
    run = RunDirectory(shutil.copytree(trained, tmp_path / "copy"))
    state = torch.load(run.checkpoint, weights_only=True)
    for name in ("rows", "best_row", "start_loss", "validation", "precision"):
        del state[name]
    torch.save(state, run.checkpoint)
    run.fingerprint.unlink()
    run.config.write_text(run.config.read_text().replace("crf_epochs: 1", "crf_epochs: 2"))
    resume(run.path)
    assert "has no fingerprint.json, as runs of earlier versions" in logged.messages[0]
    rows = numbers(run)
    assert rows[:3] == numbers(RunDirectory(trained))
    assert [(row["stage"], row["epoch"]) for row in rows[3:]] == [("crf", 2)]
    run.metrics.write_text("{")
    state = torch.load(run.checkpoint, weights_only=True)
    del state["rows"]
    torch.save({**state, "epoch": 1}, run.checkpoint)
    with pytest.raises(CxrfastError, match="metrics.jsonl is damaged .*; delete it"):
        resume(run.path)


def test_an_output_folder_is_never_overwritten(trained, small_settings):
    with pytest.raises(UsageError, match="exists and is not empty; choose another folder, or add --resume"):
        train(build_config(small_settings), trained)


def test_an_output_folder_that_cannot_be_made(small_settings, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(CxrfastError, match="out: .* cannot be created .Not a directory.; choose another folder"):
            train(build_config(small_settings), out)


@pytest.mark.parametrize("batch_size", [8, 48])  # the loss of a second batch, or the scores after the only one
def test_training_that_diverges_says_so_in_one_line(small_settings, tmp_path, batch_size):
    settings = {**small_settings, "lr": 1e30, "batch_size": batch_size}
    with pytest.raises(CxrfastError, match="training diverged .* smaller learning rate") as failure:
        train(build_config(settings), tmp_path / "run")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_one_line_with_worker_processes_too(phantoms, small_settings, tmp_path, workers):
    data = tmp_path / "data"
    shutil.copytree(phantoms, data)
    for image in (data / "images").iterdir():
        image.write_bytes(image.read_bytes()[:500])
    settings = {**small_settings, "data": data, "workers": workers}
    with pytest.raises(CxrfastError, match=r"^\S+\.png is a truncated PNG \(ends after 500 bytes\)[^\n]+$") as error:
        train(build_config(settings), tmp_path / "run")
    assert error.value.__traceback__ is not None  # it keeps the loader's iterator, but not the workers
    assert not multiprocessing.active_children()


def test_what_the_official_split_means_for_boxes_is_said(phantoms, small_settings, tmp_path, logged):
    data = tmp_path / "data"
    shutil.copytree(phantoms, data)
    test = set((data / "test_list.txt").read_text().split())
    lines = (data / "BBox_List_2017.csv").read_text().splitlines()
    kept = [line for number, line in enumerate(lines) if number == 0 or line.split(",")[0] in test]
    (data / "BBox_List_2017.csv").write_text("\n".join(kept) + "\n")
    settings = {**small_settings, "data": data, "split": "official", "method": "li", "epochs": 1}
    settings["options"] = {name: settings["options"][name] for name in ("backbone", "grid", "hidden", "output_stride")}
    train(build_config(settings), tmp_path / "run")
    assert any("training sees image labels only" in line for line in logged.messages)
    assert any("random weights" in line for line in logged.messages)


def test_classes_are_those_that_occur(trained):
    names = load_predictor(trained).class_names
    assert names == tuple(load_config(trained / "config.yaml")["classes"])
    assert "Hernia" not in names  # phantoms have none


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["Hernia"], "classes: expected classes with positive training images, got Hernia; leave it out"),
        (["Mas"], "classes: expected some of Atelectasis, .*, got 'Mas'"),
        (["Mass", "Mass"], "classes: expected each class once, got Mass, Mass"),
    ],
)
def test_classes_that_cannot_be_learnt(small_settings, tmp_path, classes, message):
    with pytest.raises(UsageError, match=message):
        train(build_config({**small_settings, "classes": classes}), tmp_path / "run")
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
    run = train(build_config(settings), tmp_path / "li")
    assert load_predictor(run.path).method == "li"


def test_sgl_trains_on_crops_goes_on_and_finds_regions(phantoms, tmp_path, monkeypatch):
    settings = {
        "method": "sgl",
        "data": phantoms,
        "image_size": 64,
        "epochs": 2,
        "batch_size": 8,
        "device": "cpu",
        "options": {"backbone": "resnet_nano", "output_stride": 8, "gate": 0.0, "region_threshold": 0.05},
    }
    whole = train(build_config(settings), tmp_path / "whole")
    epoch = Trainer._epoch

    def first_only(trainer, number, stage, at, optimizer):
        if at > 1:
            raise KeyboardInterrupt
        return epoch(trainer, number, stage, at, optimizer)

    monkeypatch.setattr(Trainer, "_epoch", first_only)
    with pytest.raises(KeyboardInterrupt):
        train(build_config(settings), tmp_path / "run")
    monkeypatch.undo()
    run = resume(tmp_path / "run")
    assert numbers(run) == numbers(whole)
    assert same_weights(run.last, whole.last)
    result = evaluate_run(run.path, protocol="own", out=tmp_path / "evaluation").result
    assert str(result.localization.rule) == "box around the component of the maximum, map ≥ the threshold"
    assert str(result.localization.tables[0].gate) == "score > 0"
    assert any(0 < overlap <= 1 for overlap in result.predictions.iou.flatten().tolist())
    found = localize(load_predictor(run.path), next((phantoms / "images").iterdir()))
    assert any(finding.boxes for finding in found.classes)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("chexnet", {"backbone": "densenet_nano", "output_stride": 8, "input_mean": [0.485, 0.456, 0.406]}),
        ("wang", {"backbone": "resnet_nano", "transition_channels": 16}),
    ],
)
def test_classifiers_train_too(small_settings, tmp_path, method, options):
    if method == "chexnet":
        options = {**options, "input_std": [0.229, 0.224, 0.225]}
    settings = {**small_settings, "method": method, "options": options}
    whole = train(build_config(settings), tmp_path / "whole")
    model = load_predictor(whole.path)
    assert model.method == method
    scores, maps = model(torch.randn(2, 1, 64, 64))
    assert scores.shape == (2, len(model.class_names))
    assert maps.shape[1] == len(model.class_names)
    rows = numbers(whole)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(row["val_auroc"] is not None and row["val_iou_accuracy"] is not None for row in rows)


def test_distance_learning_goes_on_as_if_nothing_had_happened_and_workers_change_nothing(
    phantoms, tmp_path, monkeypatch
):
    options = {"backbone": "densenet_nano", "output_stride": 8, "upsample": 2, "hard_after": 2}
    settings = {
        "method": "zhang", "data": shutil.copytree(phantoms, tmp_path / "phantoms"), "image_size": 64, "epochs": 3,
        "batch_size": 9, "augment": False, "device": "cpu", "options": options,
    }  # fmt: skip
    whole = train(build_config(settings), tmp_path / "whole")
    epoch, done = Trainer._epoch, []

    def interrupted(*args):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return epoch(*args)

    monkeypatch.setattr(Trainer, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(build_config(settings), tmp_path / "run")
    monkeypatch.undo()
    run = resume(tmp_path / "run", workers=2)
    assert numbers(run) == numbers(whole)
    assert same_weights(run.last, whole.last)
    model = load_predictor(whole.path)
    assert torch.equal(model.thresholds, load_file(whole.best)["thresholds"])
    result = evaluate_run(whole.path).result
    assert str(result.localization.rule) == "one box around every component, map ≥ the threshold"
    published = evaluate_run(whole.path, split="train", protocol="zhang2020").result
    assert published.localization.fold is not None
    assert published.shared_patients > 0
    own = evaluate_run(whole.path, protocol="own").result
    assert own.localization.thresholds.tolist() == [model.thresholds.double().tolist()]


def test_wrong_settings_of_batches_leave_no_folder(phantoms, tmp_path):
    settings = {"method": "zhang", "data": phantoms, "batch_size": 2, "options": {"backbone": "densenet_nano"}}
    with pytest.raises(UsageError, match="batch-size: expected 3 or more images .a triplet., got 2"):
        train(build_config(settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_optimizers(small_settings, name, kind):
    config = build_config({**small_settings, "optimizer": name, "lr": 0.03, "weight_decay": 0.02})
    optimizer = make_optimizer(config, [torch.nn.Parameter(torch.ones(2))])
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group.get("momentum", 0.9)) == (0.03, 0.02, 0.9)


def test_an_optimizer_is_the_methods_own_unless_another_is_given(phantoms):
    chosen = {name: build_config({"method": name, "data": phantoms}).optimizer for name in ("li", "cia")}
    assert chosen == {"li": "adam", "cia": "sgd"}
    assert build_config({"method": "cia", "data": phantoms, "optimizer": "adamw"}).optimizer == "adamw"
    with pytest.raises(UsageError, match="optimizer: expected 'adam', 'adamw' or 'sgd', got 'lion'"):
        build_config({"method": "cia", "data": phantoms, "optimizer": "lion"})
