"""A cross-validation on phantoms: what it leaves, that it stops and goes on run by run, and what it refuses."""

import json
import shutil
from collections import Counter

import pytest
from safetensors.torch import load_file

from cxrfast.data import FoldSplits, Splits, make_folds, read_chestxray14
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.experiments.cross_validation import cross_validate, evaluate_folds, resume_cross_validation
from cxrfast.experiments.folds_directory import build_cross_validation, take_section
from cxrfast.inference import load_predictor
from cxrfast.runs import RunDirectory
from cxrfast.runs.settings import load_config
from cxrfast.training import build_config
from cxrfast.training.loop import Trainer


@pytest.fixture(scope="module")
def config(phantoms, small_options):
    return build_config(
        {
            "method": "li",
            "data": phantoms,
            "image_size": 64,
            "epochs": 2,
            "batch_size": 16,
            "device": "cpu",
            "options": small_options,
        }
    )


PLAN = {"folds": 2, "unannotated": 0.5, "protocol": "rozenberg2019"}


@pytest.fixture(scope="module")
def crossed(config, tmp_path_factory):
    """The folder of a finished cross-validation: two folds by image, one seed. Not to be changed."""
    return cross_validate(config, **PLAN, out=tmp_path_factory.mktemp("folds") / "crossed")


def without_places(pooled):
    return {**pooled, "runs": [{k: v for k, v in run.items() if k != "weights"} for run in pooled["runs"]]}


def read(folder):
    return json.loads((folder / "cross-validation.json").read_text())


def test_what_a_cross_validation_leaves(crossed, phantoms):
    assert sorted(path.name for path in crossed.iterdir()) == [
        "config.yaml", "cross-validation.json", "fold-0", "fold-1", "report.html", "splits.json",
    ]  # fmt: skip
    assert RunDirectory(crossed).is_cross_validation
    records = read_chestxray14(phantoms).records
    boxed = {record.image for record in records if record.boxes}
    tested = Counter()
    for fold in (0, 1):
        run = RunDirectory(crossed / f"fold-{fold}" / "seed-0")
        assert not run.is_cross_validation
        splits = Splits.load(run.splits)
        assert splits == FoldSplits.load(crossed / "splits.json").splits(fold, records)
        tested.update(splits.test)
        assert len(run.read_metrics()) == 2
        assert load_predictor(run.path).method == "li"
        assert json.loads((run.path / "evaluation-test.json").read_text())["protocol"] == "rozenberg2019"
    assert tested == dict.fromkeys(boxed, 1)
    pooled = read(crossed)
    assert (pooled["complete"], pooled["missing"], pooled["by"]) == (True, [], "image")
    assert pooled["n_images"] == len(boxed)
    assert 0 < pooled["shared_patients"] <= pooled["n_patients"]
    assert pooled["shared_patients"] >= max(run["shared_patients"] for run in pooled["runs"]) > 0
    assert {table["measure"] for table in pooled["localization"]["tables"]} == {"iou", "ior"}
    # Fed back, the configuration says the same
    settings = load_config(crossed / "config.yaml")
    plan = build_cross_validation(take_section(settings))
    assert plan.model_dump() == {**PLAN, "seeds": 1, "by": "image", "of": "boxes"}
    assert build_config(settings).split == "folds"


def test_fold_by_fold_interrupted_and_resumed_it_ends_as_if_nothing_had_happened(
    config, crossed, tmp_path, monkeypatch, logged
):
    folder = tmp_path / "again"
    cross_validate(config, **PLAN, fold=1, out=folder)
    first = read(folder)
    assert first["missing"] == ["fold-0/seed-0"]
    assert [first[name] for name in ("n_images", "n_patients", "shared_patients")] == [
        first["runs"][0][name] for name in ("n_images", "n_patients", "shared_patients")
    ]
    assert first["classes"]["Mass"]["auroc"]["pooled"] is None
    epoch = Trainer._epoch

    def second_is_interrupted(trainer, number, stage, at, optimizer):
        if at == 2:
            raise KeyboardInterrupt
        return epoch(trainer, number, stage, at, optimizer)

    monkeypatch.setattr(Trainer, "_epoch", second_is_interrupted)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(config, **PLAN, out=folder)
    monkeypatch.undo()
    assert logged.messages[-1].endswith(f"Resume with: cxrfast train --resume {folder}")
    trained = (folder / "fold-1" / "seed-0" / "last.ckpt").stat().st_mtime_ns
    assert read(folder) == first  # what there is stays
    logged.clear()
    assert resume_cross_validation(folder) == folder
    assert any("resuming after epoch 1" in line for line in logged.messages)
    assert "fold-1/seed-0: already finished" in logged.messages
    assert (folder / "fold-1" / "seed-0" / "last.ckpt").stat().st_mtime_ns == trained
    assert without_places(read(folder)) == without_places(read(crossed))
    for fold in (0, 1):
        a, b = (load_file(RunDirectory(of / f"fold-{fold}" / "seed-0").last) for of in (folder, crossed))
        assert all((a[name] == b[name]).all() for name in a)


@pytest.fixture
def copy(crossed, tmp_path):
    return shutil.copytree(crossed, tmp_path / "copy")


def test_a_finished_one_has_nothing_to_do_and_takes_more_seeds(config, copy, monkeypatch):
    before = without_places(read(copy))
    monkeypatch.setattr(Trainer, "_epoch", None)  # nothing trains
    cross_validate(config, **PLAN, out=copy)
    assert without_places(read(copy)) == before
    monkeypatch.undo()

    def fails(trainer, number, stage, at, optimizer):
        assert read(copy)["seeds"] == [0, 1]  # pooled anew after every run that is there
        raise CxrfastError(f"training diverged with seed {trainer.config.seed}")

    monkeypatch.setattr(Trainer, "_epoch", fails)
    with pytest.raises(
        CxrfastError, match="2 of 4 runs failed .fold-0/seed-1, fold-1/seed-1.; .* with seed 1"
    ) as failure:
        cross_validate(config, **PLAN, seeds=2, out=copy)
    assert "\n" not in str(failure.value)
    after = read(copy)
    assert after["seeds"] == [0, 1]
    assert after["missing"] == ["fold-0/seed-1", "fold-1/seed-1"]
    assert after["classes"] == before["classes"]
    with pytest.raises(UsageError, match="expected a folder with seeds 1, got .* with 2; choose another folder"):
        cross_validate(config, **PLAN, out=copy)


def test_evaluation_by_another_protocol(caplog, crossed, copy, tmp_path):
    result, report = evaluate_folds(copy, protocol="own", out=tmp_path / "own")
    assert report == tmp_path / "own" / "cross-validation.json"
    assert read(tmp_path / "own")["protocol"] == "own"
    assert (tmp_path / "own" / "fold-1" / "seed-0" / "predictions.csv").is_file()
    assert without_places(read(copy)) == without_places(read(crossed))
    assert result.auroc.mean.pooled == read(crossed)["mean"]["auroc"]["pooled"]
    evaluate_folds(copy, thresholds=[0.3])
    assert read(copy)["localization"]["tables"][0]["rows"][0]["T"] == 0.3
    resume_cross_validation(copy)  # which evaluates again by its own protocol
    assert without_places(read(copy)) == without_places(read(crossed))
    older = {**json.loads((copy / "fold-0/seed-0/evaluation-test.json").read_text()), "schema_version": 1}
    (copy / "fold-0/seed-0/evaluation-test.json").write_text(json.dumps(older))
    with caplog.at_level("INFO", "cxrfast"):
        resume_cross_validation(copy)  # which evaluates again what an earlier version has left
    assert "fold-1/seed-0: already finished" in caplog.messages
    assert "fold-0/seed-0: already finished" not in caplog.messages
    assert without_places(read(copy)) == without_places(read(crossed))
    with pytest.raises(UsageError, match="protocol strict: .* patients of the evaluated images are in the training"):
        evaluate_folds(copy, protocol="strict")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("5", "cross_validation: expected 'name: value' lines, got 5"),
        ("{fold: 5}", "fold: unknown option; did you mean folds?"),
        ("{folds: many}", "folds: expected a valid integer"),
    ],
)
def test_a_configuration_that_was_edited(copy, wrong, message):
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(text[: text.index("cross_validation:")] + f"cross_validation: {wrong}\n")
    with pytest.raises(UsageError) as failure:
        resume_cross_validation(copy)
    assert str(failure.value).startswith(message)
    assert "\n" not in str(failure.value)


def test_of_all_images_every_one_is_tested_once(config, phantoms, tmp_path):
    plan = {"folds": 2, "of": "all", "out": tmp_path / "all"}
    one_epoch = config.model_copy(update={"epochs": 1})
    folder = cross_validate(one_epoch, **plan)
    records = read_chestxray14(phantoms).records
    tested = Counter(image for fold in (0, 1) for image in Splits.load(folder / f"fold-{fold}/seed-0/splits.json").test)
    assert tested == dict.fromkeys((record.image for record in records), 1)
    pooled = read(folder)
    assert (pooled["of"], pooled["complete"], pooled["n_images"], pooled["shared_patients"]) == ("all", True, 40, 0)
    positive = Counter(name for record in records for name in record.labels)
    boxed = Counter(name for record in records for name, boxes in record.boxes.items() for _ in boxes)
    for name, row in pooled["classes"].items():
        assert (row["n_positive"], row["n_negative"]) == (positive[name], 40 - positive[name])
        assert row["n_annotated"] == boxed[name]
    ends = [(row["auroc"]["interval"], row["auroc"]["pooled"]) for row in pooled["classes"].values()]
    assert any(interval for interval, _ in ends)  # not of the rarest
    assert all(interval is None or interval[0] <= value <= interval[1] for interval, value in ends)
    assert cross_validate(one_epoch, **plan) == folder  # finished
    with pytest.raises(UsageError, match="expected a folder with folds-of boxes, got .* with all; choose another"):
        cross_validate(one_epoch, folds=2, out=folder)
    content = json.loads((folder / "splits.json").read_text())
    (folder / "splits.json").write_text(json.dumps({**content, "of": "boxes"}))
    with pytest.raises(UsageError, match=r"splits.json, of: expected all, got boxes"):
        resume_cross_validation(folder)


def test_splits_that_were_edited(copy):
    path = copy / "splits.json"
    content = json.loads(path.read_text())
    content["folds"][1]["val"] = [i for i in content["folds"][1]["val"] if i not in content["folds"][0]["test"]]
    moved = content["folds"][0]["test"].pop()
    content["folds"][1]["test"].append(moved)
    path.write_text(json.dumps(content))
    with pytest.raises(
        UsageError, match="splits: expected the splits.json that .*fold-0/seed-0 was trained with, got another"
    ):
        resume_cross_validation(copy)
    content["folds"][0]["test"].append(moved)
    path.write_text(json.dumps(content))
    with pytest.raises(CxrfastError, match=r"splits.json: the splits name image .* twice"):
        resume_cross_validation(copy)


def test_splits_that_somebody_has_made_are_used(config, phantoms, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(*args):
        raise Stop

    monkeypatch.setattr(Trainer, "_epoch", stop)
    folder = tmp_path / "own"
    folder.mkdir()
    records = read_chestxray14(phantoms).records
    splits = make_folds(records, folds=3, seed=5, unannotated=0.1)
    splits.save(folder / "splits.json")
    with pytest.raises(UsageError, match="splits.json, folds: expected 2, got 3"):
        cross_validate(config, folds=2, out=folder)
    with pytest.raises(Stop):
        cross_validate(config, folds=3, out=folder)
    assert Splits.load(folder / "fold-0" / "seed-0" / "splits.json") == splits.splits(0, records)
    assert not list(tmp_path.rglob("last.ckpt"))
    with pytest.raises(
        CxrfastError, match="expected finished runs, got none; resume training with: cxrfast train --resume"
    ):
        evaluate_folds(folder)


def test_the_folder_is_the_same_for_the_same_settings(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cxrfast.experiments.cross_validation._go_on", lambda folder, *_: folder.path)
    plan = {"folds": 2}
    first = cross_validate(config, **plan)
    assert cross_validate(config.model_copy(update={"workers": 2}), **plan, seeds=2, fold=1) == first
    assert cross_validate(config, **plan, unannotated=0.1) != first
    assert cross_validate(config.model_copy(update={"lr": 0.3}), **plan) != first
    assert all(path.name.startswith("li-2-folds-") for path in (tmp_path / "runs").iterdir())


def test_wrong_use(config, crossed, tmp_path):
    def fails(message, settings=config, **plan):
        with pytest.raises(UsageError, match=message) as failure:
            cross_validate(settings, **{"folds": 2, "out": tmp_path / "new", **plan})
        assert "\n" not in str(failure.value)
        assert not (tmp_path / "new").exists()

    fails("folds: expected a number greater than or equal to 2, got 1", folds=1)
    fails("folds: 99 are more than the .* patients with boxes", folds=99)
    fails("fold: expected 0 to 1, because there are 2 folds, got 2", fold=2)
    fails("unannotated: expected a number less than or equal to 1", unannotated=1.1)
    fails("seeds: expected a number greater than or equal to 1", seeds=0)
    fails("protocol is 'wong'; expected one of", protocol="wong")
    fails("folds-by: expected patient for protocol strict, .*, got image; leave it out", by="image")
    fails("folds-by: expected patient or image, got 'box'", by="box")
    fails("folds-of: expected boxes or all, got 'none'", of="none")
    fails("unannotated: expected no value with folds of all images, got 0.2; leave it out", of="all", unannotated=0.2)
    fails(
        "expected a folder with unannotated 1.0, got .* with 0.5; choose another folder",
        **{**PLAN, "unannotated": 1.0},
        of="all",
        out=crossed,
    )
    fails(
        "split: expected none for a cross-validation, got official; leave out --split",
        config.model_copy(update={"split": "official"}),
    )
    fails(
        "expected a folder with lr 0.5, got .* with 0.001; choose another folder",
        config.model_copy(update={"lr": 0.5}),
        **PLAN,
        out=crossed,
    )
    fails(
        "expected a folder with grid 4, got .* with 8; choose",
        config.model_copy(update={"options": {**config.options, "grid": 4}}),
        **PLAN,
        out=crossed,
    )
    fails("out: .* exists and is not empty", out=crossed / "fold-0")
    with pytest.raises(
        UsageError, match="checkpoint: expected a run, got .*; choose one of its runs, such as .*fold-0"
    ):
        load_predictor(crossed)
