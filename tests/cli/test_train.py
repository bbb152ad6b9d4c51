"""`cxrfast train`: runs, resumed runs, cross-validations, and the other commands on a new run."""

import json
import shutil

from cxrfast.errors import CxrfastError
from cxrfast.runs import RunDirectory
from cxrfast.runs.settings import load_config


def small(settings, *more):
    """The settings of the `trained` fixture as options of `cxrfast train`."""
    pairs = [f"--set={name}={value}" for name, value in settings["options"].items()]
    names = ("method", "data", "image_size", "epochs", "batch_size", "device")
    return [*(f"--{name.replace('_', '-')}={settings[name]}" for name in names), *pairs, *more]


def test_no_augment_reaches_the_run(cli, phantoms, tmp_path, monkeypatch):
    from cxrfast import training
    from cxrfast.experiments import run_state

    def stop(config, *arguments, **more):
        raise CxrfastError(f"augment is {config.augment}")

    monkeypatch.setattr(training, "train", stop)
    for flags, augment in (((), True), (("--no-augment",), False)):
        code, _, error = cli("train", "--method", "chexnet", "--data", phantoms, *flags)
        assert (code, error) == (1, f"cxrfast: augment is {augment}\n")
    monkeypatch.setattr(run_state, "train", stop)
    arguments = ("reproduce", "wang17", "--data", phantoms, "--scale", "small", "--out", tmp_path / "o")
    code, out, _ = cli(*arguments, "--no-augment")
    assert code == 1
    assert "wang: failed: augment is False" in out
    assert "- augment false instead of the planned true" in out


def test_from_phantoms_to_boxes(cli, small_settings, tmp_path):
    code, out, _ = cli("synth", "phantoms", "--images=40", "--image-size=64", "--boxed-fraction=0.6")
    assert code == 0
    assert "train on them with" in out
    settings = {**small_settings, "data": "phantoms"}
    code, out, err = cli("train", *small(settings))
    assert code == 0, err
    assert "8 classes; train 28 images" in out
    code, out, err = cli("evaluate")
    assert code == 0, err
    assert "mean" in out
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "predictions.csv").is_file()
    assert json.loads((folder / "evaluation-test.json").read_text())["protocol"] == "strict"
    assert (folder / "maps.npz").is_file()
    page = (folder / "report.html").read_text()
    code, out, err = cli("report")
    assert code == 0, err
    assert "report.html" in out
    assert (folder / "report.html").read_text() == page
    image = next((tmp_path / "phantoms" / "images").iterdir())
    code, out, err = cli("localize", image, "--top=2")
    assert code == 0, err
    assert "Research use only" in out
    result = json.loads((tmp_path / "localized" / f"{image.stem}.json").read_text())
    assert (result["width"], result["height"]) == (64, 64)
    assert (tmp_path / "localized" / f"{image.stem}.png").stat().st_size > 10_000


def test_commands_that_are_printed_can_be_pasted(cli, trained):
    shutil.copytree(trained, "my run")
    code, out, _ = cli("train", "--resume", "my run")
    assert code == 0
    assert "cxrfast evaluate 'my run'\n" in out


def test_train_resumes_from_the_command_line(cli, trained):
    code, out, _ = cli("train", "--resume", trained)
    assert code == 0
    assert "nothing to do" in out
    code, _, err = cli("train", "--resume", trained, "--no-augment")
    assert code == 2
    assert err == "cxrfast: resume: a resumed run uses the settings in its config.yaml; leave out --no-augment\n"
    code, _, err = cli("train", "--resume", trained, "--lr=1", "--set", "grid=3")
    assert code == 2
    assert err == "cxrfast: resume: a resumed run uses the settings in its config.yaml; leave out --lr, --grid\n"


def test_config_file_and_options_compose(cli, trained, tmp_path):
    code, _, err = cli("train", "--config", trained / "config.yaml", "--epochs=1", "--out=run", "--set=crf_epochs=0")
    assert code == 0, err
    rows = RunDirectory(tmp_path / "run").read_metrics()
    assert [(row["stage"], row["epoch"]) for row in rows] == [("unary", 1)]


def test_cross_validation_from_the_command_line(cli, small_settings, small_options, tmp_path):
    settings = {**small_settings, "method": "li", "epochs": 1, "options": small_options}
    code, out, err = cli("train", *small(settings, "--folds=2", "--unannotated=0.5", "--protocol=rozenberg2019"))
    assert code == 0, err
    (folder,) = (tmp_path / "runs").iterdir()
    assert "2 folds by image" in out
    assert "IoU ≥ 0.1  pooled" in out
    assert f"next     cxrfast evaluate runs/{folder.name}" in out
    code, out, err = cli("evaluate", folder, "--protocol=own")
    assert code == 0, err
    assert "protocol own" in out
    code, out, err = cli("train", "--config", folder / "config.yaml", "--folds=2", "--fold=1")
    assert code == 0, err
    assert "fold-1/seed-0 (1 of 1)" in out
    assert "missing: fold-0/seed-0" in out
    assert out.endswith("/fold-1/seed-0\n")  # weights to try that are there
    code, _, err = cli("localize", "a.png", "--checkpoint", folder)
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = cli("evaluate", folder, "--split=val")
    assert code == 2
    assert (
        "split: not for a cross-validation, whose folds are evaluated on their own test images; leave out --sp" in err
    )
    code, _, err = cli("train", "--resume", folder, "--folds=3", "--folds-by=image")
    assert code == 2
    assert err.endswith("leave out --folds, --folds-by\n")
    code, _, err = cli("train", "--resume", folder / "fold-0" / "seed-0", "--fold=1")
    assert code == 2
    assert "fold: expected the folder of a cross-validation, got " in err
    assert err.endswith("; leave out --fold\n")


def test_training_without_validation_from_the_command_line(cli, small_settings, small_options, phantoms, tmp_path):
    settings = {**small_settings, "method": "li", "epochs": 1, "options": small_options}
    code, out, err = cli("train", *small(settings, "--val=none", "--out=run"))
    assert code == 0, err
    assert "no validation images: the last epoch is kept" in out
    assert ", val 0 images" in out
    code, out, err = cli("localize", next((phantoms / "images").iterdir()), "--checkpoint=run")
    assert code == 0, err
    assert "\nnote: trained without validation images" in out
    code, out, err = cli(
        "train", *small(settings, "--folds=2", "--protocol=rozenberg2019", "--val=0.25", "--out=folds")
    )
    assert code == 0, err
    assert load_config(tmp_path / "folds" / "config.yaml")["val_share"] == 0.25
    assert "no validation images: every run" not in out
    code, out, err = cli("train", *small(settings, "--folds=2", "--val-share=none", "--out=unvalidated"))
    assert code == 0, err
    assert "no validation images: every run kept its last epoch" in " ".join(out.split())
    code, _, err = cli("train", "--resume=run", "--val=none", "--lr-milestones=3")
    assert code == 2
    assert err.endswith("leave out --val-share, --lr-milestones\n")
    code, _, err = cli("train", "--method=zhang", f"--data={phantoms}", "--val=none", "--set=backbone=densenet_nano")
    assert (code, err.count("\n")) == (2, 1)
    assert "lr_schedule: expected steps or milestones without validation images, got plateau; add --lr-mile" in err
