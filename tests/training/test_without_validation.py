"""Runs without validation images: all others are used for training, the last epoch is kept, and users are informed."""

import json

import pytest
import torch
from safetensors.torch import load_file

from cxrfast.data import FoldSplits, Splits, read_chestxray14
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.experiments.cross_validation import cross_validate
from cxrfast.experiments.evaluate_run import evaluate_run
from cxrfast.inference import load_predictor, localize
from cxrfast.report import from_folder, write_report
from cxrfast.report.terminal import evaluation_to_text
from cxrfast.runs import RunDirectory
from cxrfast.runs.settings import load_config
from cxrfast.runs.weights import read_weights
from cxrfast.training import build_config, resume, train
from cxrfast.training.loop import Trainer
from cxrfast.training.preparation import prepare_data
from tests.logged_lines import logged_lines

NOTE = "trained without validation images: the weights are of the last epoch, the score threshold of every class is 0.5"


def numbers(run):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.read_metrics()]


@pytest.fixture(scope="module")
def settings(small_settings):
    return {**small_settings, "val_share": "none", "epochs": 3}


@pytest.fixture(scope="module")
def training(settings, tmp_path_factory):
    """A finished run of two stages, and the lines that were logged. Not to be changed."""
    with logged_lines() as lines:
        return train(build_config(settings), tmp_path_factory.mktemp("runs") / "run"), lines


@pytest.fixture(scope="module")
def unvalidated(training):
    """A finished run of two stages. Not to be changed."""
    return training[0]


def test_all_that_is_not_tested_trains(training, small_settings, phantoms):
    unvalidated, lines = training
    splits = Splits.load(unvalidated.splits)
    with_validation = prepare_data(build_config(small_settings)).splits
    assert splits.val == ()
    assert len(splits.train) == 40 - len(splits.test) > len(with_validation.train)
    assert any(line.startswith("no validation images: the last epoch is kept") for line in lines)
    assert load_config(unvalidated.config)["val_share"] == 0
    official = prepare_data(build_config({**small_settings, "val_share": 0, "split": "official"}))
    test = set((phantoms / "test_list.txt").read_text().split())
    assert official.records["val"] == []
    assert {record.image for record in official.records["train"]} == {
        record.image for record in read_chestxray14(phantoms).records
    } - test


def test_the_last_epoch_of_every_stage_is_kept(unvalidated):
    rows = unvalidated.read_metrics()
    assert [(row["stage"], row["epoch"], row["best"]) for row in rows] == [
        ("unary", 1, False), ("unary", 2, False), ("unary", 3, True), ("crf", 1, True),
    ]  # fmt: skip
    assert all(row["val_auroc"] is row["val_iou_accuracy"] is row["val_score"] is None for row in rows)
    best, last = load_file(unvalidated.best), load_file(unvalidated.last)
    assert all(torch.equal(best[name], last[name]) for name in best)
    metadata = read_weights(unvalidated.best)[0]
    assert (metadata["validated"], metadata["epoch"]) == ("false", "1")
    assert set(json.loads(metadata["operating_points"])) == {0.5}


def test_the_training_loss_chooses_nothing(settings, tmp_path, monkeypatch):
    """The loss grows from epoch to epoch: the last is kept all the same."""
    epoch, losses = Trainer._epoch, iter([1.0, 2.0, 3.0, 4.0])

    def growing(*args):
        return {**epoch(*args), "train_loss": next(losses)}

    monkeypatch.setattr(Trainer, "_epoch", growing)
    run = train(build_config(settings), tmp_path / "run")
    assert [row["best"] for row in run.read_metrics()] == [False, False, True, True]
    best, last = load_file(run.best), load_file(run.last)
    assert all(torch.equal(best[name], last[name]) for name in best)


@pytest.mark.parametrize("after", [1, 3])
def test_it_goes_on_as_if_nothing_had_happened(unvalidated, settings, tmp_path, monkeypatch, after):
    epoch, done = Trainer._epoch, []

    def interrupted(*args):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(1)
        return epoch(*args)

    monkeypatch.setattr(Trainer, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(build_config(settings), tmp_path / "run")
    monkeypatch.undo()
    run = resume(tmp_path / "run")
    assert numbers(run) == numbers(unvalidated)
    assert read_weights(run.best)[0] == read_weights(unvalidated.best)[0]
    a, b = load_file(run.best), load_file(unvalidated.best)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_results_say_so(unvalidated, phantoms, tmp_path):
    assessment = evaluate_run(unvalidated.path, out=tmp_path / "results")
    result = assessment.result
    assert result.notes[0].startswith(NOTE)
    assert NOTE in " ".join(evaluation_to_text(result).split())
    assert result.predictions.prob_calibrated is None
    assert json.loads(assessment.report.read_text())["notes"][0].startswith(NOTE)
    write_report(from_folder(tmp_path / "results"), tmp_path / "report.html")
    assert "trained without validation images" in (tmp_path / "report.html").read_text()
    with pytest.raises(CxrfastError, match="no image of the split can be evaluated: it is empty"):
        evaluate_run(unvalidated.path, split="val", out=tmp_path / "nothing")
    found = localize(load_predictor(unvalidated.path), next((phantoms / "images").iterdir()))
    assert found.to_dict()["model"]["notes"][0].startswith(NOTE)


def test_with_validation_nothing_is_said(trained, phantoms, tmp_path):
    assert evaluate_run(trained, out=tmp_path / "results").result.notes == ()
    found = localize(load_predictor(trained), next((phantoms / "images").iterdir()))
    assert "notes" not in found.to_dict()["model"]
    assert read_weights(RunDirectory(trained).best)[0]["validated"] == "true"


@pytest.fixture(scope="module")
def folds_config(phantoms, small_options):
    settings = {"method": "li", "data": phantoms, "image_size": 64, "epochs": 1, "batch_size": 16, "device": "cpu"}
    return build_config({**settings, "options": small_options})


def shares(folder, phantoms):
    """What trains and validates, of all images with boxes and of the others, fold by fold."""
    records = read_chestxray14(phantoms).records
    boxed = {record.image for record in records if record.boxes}
    found = []
    for number, fold in enumerate(FoldSplits.load(folder / "splits.json").folds):
        run = Splits.load(folder / f"fold-{number}" / "seed-0" / "splits.json")
        assert run.val == tuple(sorted(fold.val))
        found.append((len(boxed & set(run.train)), len(boxed & set(run.val)), len(set(run.train) - boxed)))
    return found, len(boxed), len(records) - len(boxed)


def test_folds_as_in_the_paper(folds_config, phantoms, tmp_path, logged):
    """Rozenberg et al., §4: of the annotated images, all that are not held out train, and 20 % of the others."""
    plan = {"folds": 5, "unannotated": 0.2, "protocol": "rozenberg2019"}
    folder = cross_validate(folds_config, **plan, out=tmp_path / "folds")
    found, boxed, others = shares(folder, phantoms)
    assert sum(boxed - train for train, _, _ in found) == boxed  # 80 % on average
    assert all(abs(train - 0.8 * boxed) <= 1 for train, _, _ in found)
    assert all((val, unannotated) == (0, round(0.2 * others)) for _, val, unannotated in found)
    assert load_config(folder / "config.yaml")["val_share"] == 0
    assert load_config(folder / "fold-0" / "seed-0" / "config.yaml")["val_share"] == 0
    pooled = json.loads((folder / "cross-validation.json").read_text())
    assert pooled["validation_images"] == [0] * 5
    assert pooled["mean"]["ece_calibrated"]["mean"] is None
    assert pooled["mean"]["auroc"]["mean"] is not None
    assert any("none for validation" in line for line in logged.messages)
    assert "no validation images: every run kept its last epoch" in " ".join(logged.messages[-1].split())
    assert "none: the last epoch is kept" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("protocol", "asked", "expected"),
    [("rozenberg2019", 0.125, 0.125), ("strict", None, 0.125), ("strict", 0.0, 0.0), ("li2018", None, 0.0)],
)
def test_who_asks_gets_a_validation_part(folds_config, phantoms, tmp_path, monkeypatch, protocol, asked, expected):
    class Stop(Exception):
        pass

    def stop(*args):
        raise Stop

    monkeypatch.setattr(Trainer, "_epoch", stop)
    with pytest.raises(Stop):
        cross_validate(folds_config, folds=2, protocol=protocol, val_share=asked, out=tmp_path / "folds")
    assert load_config(tmp_path / "folds" / "config.yaml")["val_share"] == expected
    folds = FoldSplits.load(tmp_path / "folds" / "splits.json").folds
    assert all(bool(fold.val) == (expected > 0) for fold in folds)


def test_another_share_is_another_cross_validation(folds_config, tmp_path, monkeypatch):
    monkeypatch.setattr("cxrfast.experiments.cross_validation._go_on", lambda folder, *_: folder.path)
    plan = {"folds": 2, "protocol": "rozenberg2019", "out": tmp_path / "folds"}
    cross_validate(folds_config, **plan)
    with pytest.raises(
        UsageError, match="expected a folder with val_share 0.125, got .* with 0.0; choose another folder"
    ):
        cross_validate(folds_config, **plan, val_share=0.125)
    assert cross_validate(folds_config, **plan) == tmp_path / "folds"


def test_a_schedule_that_needs_validation_leaves_no_folder(folds_config, tmp_path):
    config = folds_config.model_copy(update={"lr_schedule": "plateau"})
    with pytest.raises(UsageError, match="lr_schedule: expected steps or milestones .*, got plateau; add --lr-mile"):
        cross_validate(config, folds=2, protocol="rozenberg2019", out=tmp_path / "folds")
    assert not (tmp_path / "folds").exists()


@pytest.mark.parametrize("share", [1, 1.5, -0.1, "some", True, None])
def test_wrong_shares(small_settings, share):
    with pytest.raises(UsageError, match="val_share: expected none, or a share from 0 to below 1, got") as refusal:
        build_config({**small_settings, "val_share": share})
    assert "\n" not in str(refusal.value)


def test_the_methods_shares():
    def share(method):
        return build_config({"method": method, "data": "x"}).val_share

    assert share("zhang") == 0.1  # §4.1
    assert {share(method) for method in ("rozenberg", "li", "sgl", "wang", "chexnet")} == {0.125}
