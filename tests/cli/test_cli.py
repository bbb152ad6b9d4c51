"""The command line as a person meets it: what it prints, writes and refuses, and its exit codes."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torchvision.models import DenseNet

from cxrfast.cli.main import app, run
from cxrfast.errors import CxrfastError
from cxrfast.runs import RunDirectory
from cxrfast.runs.settings import load_config
from tests.interpreter import run_code


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Run the command in an empty folder: cli("train", …) -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def small(settings, *more):
    """The settings of the `trained` fixture as options of `cxrfast train`."""
    pairs = [f"--set={name}={value}" for name, value in settings["options"].items()]
    names = ("method", "data", "image_size", "epochs", "batch_size", "device")
    return [*(f"--{name.replace('_', '-')}={settings[name]}" for name in names), *pairs, *more]


def test_help_names_every_command_and_answers_at_once(tmp_path):
    call = [sys.executable, "-m", "cxrfast.cli.main", "--help"]
    subprocess.run(call, check=True, capture_output=True, cwd=tmp_path)
    started = time.perf_counter()
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path)
    seconds = time.perf_counter() - started
    assert done.returncode == 0
    for command in app.registered_commands:
        assert command.callback.__name__.replace("_", "-") in done.stdout
    assert "Research use only" in " ".join(done.stdout.split())
    assert seconds < 5  # the promise is half a second; this only notices a heavy import, on a busy machine too


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from cxrfast.cli.main import run; run(['--help']); "
        "print([m for m in ('torch', 'timm', 'cv2') if m in sys.modules])"
    )
    assert run_code(code).stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    "command", ["demo", "synth", "train", "evaluate", "localize", "reproduce", "import-weights", "bench", "info"]
)
def test_every_command_has_a_help_text(cli, command):
    code, out, _ = cli(command, "--help")
    assert code == 0
    assert "Options:" in out


def test_help_names_the_methods(cli):
    from cxrfast.experiments.demo import SETTINGS
    from cxrfast.methods import METHODS

    for command, names in (("train", METHODS), ("demo", SETTINGS)):
        _, out, _ = cli(command, "--help")
        assert ", ".join(names) in " ".join(out.split())


def test_reproduce_lists_tables_and_refuses_others(cli, phantoms):
    code, out, _ = cli("reproduce")
    assert code == 0
    for word in ("rozenberg1", "seibold2", "zhang3", "rozenberg-20", " h", " GB", "estimates"):
        assert word in out
    for arguments, reason in (
        (("rozenberg7", "--data", phantoms), "table is 'rozenberg7'; expected one of rozenberg1"),
        (("zhang1",), "data: required; give the folder of ChestX-ray14: cxrfast reproduce zhang1 --data DIR"),
        (
            ("zhang1", "--data", phantoms, "--rows", "wang"),
            "rows: unknown row 'wang' of zhang1; expected zhang, zhang-distance, zhang-verification, zhang-neither, ",
        ),
        (("zhang1", "--data", phantoms, "--set", "crf_steps=2"), "crf_steps: no option of zhang"),
    ):
        code, _, error = cli("reproduce", *arguments)
        assert (code, error.count("\n")) == (2, 1)
        assert reason in error


def test_reproduce_shows_what_is_published(cli, phantoms, tmp_path):
    code, out, _ = cli("reproduce", "zhang1", "--data", phantoms, "--rows", "wang2017", "--out", "o")
    assert code == 0
    assert "0.700" in out
    assert (tmp_path / "o" / "zhang1.md").is_file()


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


def test_info(cli):
    code, out, _ = cli("info")
    assert code == 0
    for word in ("cxrfast", "torch", "compiler", "cuda operators", "method rozenberg", "method li"):
        assert word in out


def test_info_lists_the_options_of_a_method(cli):
    code, out, _ = cli("info", "rozenberg")
    assert code == 0
    for word in ("lambda_ann", "70.0", "λ_ann of Eq. 12", "batch-size", "48"):
        assert word in out


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
    assert err == "cxrfast: resume: takes its settings from the folder's config.yaml; leave out --no-augment\n"
    code, _, err = cli("train", "--resume", trained, "--lr=1", "--set", "grid=3")
    assert code == 2
    assert err == "cxrfast: resume: takes its settings from the folder's config.yaml; leave out --lr, --grid\n"


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
    assert f"split: {folder} holds folds, evaluated on what each held out; leave out --split" in err
    code, _, err = cli("train", "--resume", folder, "--folds=3", "--folds-by=image")
    assert code == 2
    assert err.endswith("leave out --folds, --folds-by\n")
    code, _, err = cli("train", "--resume", folder / "fold-0" / "seed-0", "--fold=1")
    assert code == 2
    assert "is not the folder of a cross-validation; leave out --fold" in err


def test_training_without_validation_from_the_command_line(cli, small_settings, small_options, phantoms, tmp_path):
    settings = {**small_settings, "method": "li", "epochs": 1, "options": small_options}
    code, out, err = cli("train", *small(settings, "--val=none", "--out=run"))
    assert code == 0, err
    assert "no image validates: the last epoch is kept" in out
    assert ", val 0 images" in out
    code, out, err = cli("localize", next((phantoms / "images").iterdir()), "--checkpoint=run")
    assert code == 0, err
    assert out.startswith("note: trained without validation images")
    code, out, err = cli(
        "train", *small(settings, "--folds=2", "--protocol=rozenberg2019", "--val=0.25", "--out=folds")
    )
    assert code == 0, err
    assert load_config(tmp_path / "folds" / "config.yaml")["val_share"] == 0.25
    assert "no image validated" not in out
    code, out, err = cli("train", *small(settings, "--folds=2", "--val-share=none", "--out=unvalidated"))
    assert code == 0, err
    assert "no image validated: every run kept its last epoch" in " ".join(out.split())
    code, _, err = cli("train", "--resume=run", "--val=none", "--lr-milestones=3")
    assert code == 2
    assert err.endswith("leave out --val-share, --lr-milestones\n")
    code, _, err = cli("train", "--method=zhang", f"--data={phantoms}", "--val=none", "--set=backbone=densenet_nano")
    assert (code, err.count("\n")) == (2, 1)
    assert "lr_schedule: plateau divides the learning rate by validation, and no image validates; give its epoch" in err


def test_evaluate_other_data_and_parts(cli, trained, phantoms):
    code, val, err = cli("evaluate", trained, "--split=val", "--out=here", "-T", "0.3", "--protocol=li2018")
    assert code == 0, err
    assert "IoU ≥ 0.3" in val
    assert "patients shared with training: 0" in val.replace("\n  ", " ")
    code, _, err = cli("evaluate", "--checkpoint", trained, "--data", phantoms, "--out=here")
    assert code == 0, err
    code, _, err = cli("evaluate", trained, "--split=tset", "--out=here")
    assert code == 2
    assert "expected one of train, val, test" in err
    code, again, err = cli(
        "evaluate",
        "--predictions=here/predictions-val.csv",
        "--predictions=here/maps-val.npz",
        "--data",
        phantoms,
        "--splits",
        trained / "splits.json",
        "--split=val",
        "-T",
        "0.3",
        "--protocol=li2018",
    )
    assert code == 0, err

    def table(text):  # of the trained classes; the files are also asked for one that no training image shows
        trained_classes = ("Atelectasis", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax")
        return [line for line in text.splitlines() if line.startswith(trained_classes)]

    assert len(table(val)) == 4 * 7
    assert table(again) == table(val)
    code, _, err = cli("evaluate", "--predictions=here/predictions-val.csv")
    assert code == 2
    assert "data: required with --predictions" in err
    code, _, err = cli("evaluate", trained, "--split=train", "--out=here")
    assert code == 2
    assert "protocol strict:" in err
    code, _, err = cli("evaluate", trained, "--protocol=wong")
    assert code == 2
    assert "protocol is 'wong'; expected one of strict, own, rozenberg2019" in err


def test_two_files_of_predictions_are_compared(cli, phantoms, tmp_path):
    """Each file and protocol has a folder of its own, and none is written over by another."""
    rows = [f"{image.stem},Mass,5,5,40,{30 + n},1" for n, image in enumerate(sorted((phantoms / "images").iterdir()))]
    for name in ("x.csv", "y.csv"):
        (tmp_path / name).write_text("\n".join(["image,class,x1,y1,x2,y2,score", *rows]) + "\n")
        for protocol in ("strict", "li2018"):
            code, out, err = cli("evaluate", "--predictions", name, "--data", phantoms, f"--protocol={protocol}")
            assert code == 0, err
            folder = f"{name[0]}-csv-{protocol}"
            assert (
                f"written: {folder}/evaluation-all.json, {folder}/predictions-all.csv, {folder}/report-all.html" in out
            )
    code, out, err = cli("report", "x-csv-strict", "y-csv-strict")
    assert code == 0, err
    assert "first: x-csv-strict   second: y-csv-strict" in out
    for more in (["--predictions=y.csv"], ["--predictions=x.csv", "--protocol=own"]):
        code, _, err = cli("evaluate", *more, "--data", phantoms, "--out=x-csv-strict")
        assert code == 2
        assert "out: x-csv-strict/evaluation-all.json is of x.csv by strict; choose another folder" in err
    report = tmp_path / "x-csv-strict" / "evaluation-all.json"
    for content, words in (
        ('{"protocol": "strict"}', "is an evaluation of schema version 1; "),
        ("{", "cannot be read "),
    ):
        report.write_text(content)
        code, _, err = cli("evaluate", "--predictions=x.csv", "--data", phantoms)
        assert (code, err.count("\n")) == (2, 1)
        assert f"out: x-csv-strict/evaluation-all.json {words}" in err
        assert err.endswith("; evaluate again, into another folder with --out, or delete it\n")
        assert report.read_text() == content
    code, _, err = cli("evaluate", "--predictions=x.csv", "--data", phantoms, "--split=val")
    assert code == 2
    assert "split: val of which splits? Give --splits as well" in err


def test_reports_are_left_out_or_compare_two_runs(cli, trained, tmp_path):
    for name in ("first", "second"):
        shutil.copytree(trained, name)
        code, out, err = cli("evaluate", name, "--no-report")
        assert code == 0, err
        assert "report.html" not in out
        assert not (tmp_path / name / "report.html").exists()
    code, out, err = cli("report", "first", "second")
    assert code == 0, err
    assert "first: first   second: second" in out
    assert "written: first/comparison-second.html" in out
    assert "Is the difference real?" in (tmp_path / "first" / "comparison-second.html").read_text()
    code, out, err = cli("report", "second", "--out=here/page.html")
    assert code == 0, err
    assert (tmp_path / "here" / "page.html").stat().st_size > 10_000
    for arguments, message in (
        (["first", "second", "first"], "report: 3 runs; expected one, or two to compare"),
        (["nowhere"], "no folder nowhere; name the folder of a run"),
        (["first", "--split=val"], "make it: cxrfast evaluate first --split val"),
    ):
        code, _, err = cli("report", *arguments)
        assert code in (1, 2)
        assert message in err
        assert err.count("\n") == 1


def test_a_batch_goes_on_past_a_bad_file(cli, trained, phantoms, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    good = next((phantoms / "images").iterdir())
    shutil.copy(good, folder / "good.png")
    (folder / "truncated.png").write_bytes(good.read_bytes()[:500])
    (folder / "text.png").write_text("not an image")
    code, _, err = cli("localize", folder, "missing.png", "--checkpoint", trained)
    assert code == 1
    assert (tmp_path / "localized" / "good.json").is_file()
    assert "3 of the inputs failed" in err
    for name in ("truncated.png", "text.png", "missing.png"):
        assert name in err
    assert "Traceback" not in err


def test_a_chexnet_checkpoint_is_imported_evaluated_and_used(cli, phantoms):
    network = DenseNet(8, (1, 2, 2, 2), num_init_features=16, num_classes=14)
    torch.save({"state_dict": {f"module.{name}": x for name, x in network.state_dict().items()}}, "model.pth.tar")
    code, out, err = cli(
        "import-weights", "model.pth.tar", "--preset=chexnet", "--image-size=64", "--out=c.safetensors"
    )
    assert code == 0, err
    assert "densenet_nano, 14 classes: Atelectasis, Cardiomegaly, " in out
    code, out, err = cli("evaluate", "--checkpoint=c.safetensors", "--data", phantoms, "--out=here", "--device=cpu")
    assert code == 0, err
    assert "chexnet on all: 40 images" in out
    image = next((phantoms / "images").iterdir())
    code, out, err = cli("localize", image, "--checkpoint=c.safetensors", "--top=1", "--device=cpu")
    assert code == 0, err
    assert json.loads(Path("localized", f"{image.stem}.json").read_text())["findings"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tarin"], 2, "No such command 'tarin'"),
        (["train"], 2, "method: required"),
        (["train", "--method=rozenberg"], 2, "data: required; give the folder of the data set with --data"),
        (["train", "--method=zhou", "--data=x"], 2, "method: expected one of li, rozenberg, "),
        (["train", "--method=li", "--data=nowhere"], 1, "no folder or file nowhere"),
        (["train", "--method=li", "--data=.", "--epochs=0"], 2, "epochs"),
        (["train", "--method=li", "--data=.", "--set", "grid"], 2, "set: expected NAME=VALUE, got 'grid'"),
        (
            ["train", "--method=li", "--data=.", "--set", "grit=3"],
            2,
            "options.grit: unknown option; did you mean grid?",
        ),
        (["train", "--method=li", "--data=.", "--device=gpu"], 2, "device: input should be 'auto', 'cpu' or 'cuda'"),
        (
            ["train", "--method=li", "--data=.", "--folds=1"],
            2,
            "folds: input should be greater than or equal to 2, got 1",
        ),
        (
            ["train", "--method=li", "--data=.", "--folds=3", "--fold=3"],
            2,
            "fold: expected 0 to 2, as there are 3 folds",
        ),
        (["train", "--method=li", "--data=.", "--seeds=3"], 2, "seeds: goes with a cross-validation; add --folds 5"),
        (["train", "--method=li", "--data=.", "--fold=0"], 2, "fold: goes with a cross-validation; add --folds 5"),
        (["train", "--method=li", "--data=.", "--split=folds"], 2, "split: folds belong to a cross-validation"),
        (
            ["train", "--method=li", "--data=.", "--val=some"],
            2,
            "val_share: expected none, or a share from 0 to below 1",
        ),
        (
            ["train", "--method=li", "--data=.", "--val-share=1"],
            2,
            "val_share: expected none, or a share from 0 to bel",
        ),
        (
            ["train", "--method=li", "--data=.", "--lr-milestones=3,2"],
            2,
            "lr_milestones: expected rising epochs, got 3",
        ),
        (
            ["train", "--method=li", "--data=.", "--lr-milestones=a"],
            2,
            "lr_milestones.0: input should be a valid integ",
        ),
        (["train", "--method=li", "--data=.", "--lr-schedule=cosine"], 2, "lr_schedule: input should be 'steps', 'mi"),
        (
            ["train", "--method=li", "--data=.", "--lr-schedule=milestones"],
            2,
            "lr_milestones: required by lr_schedule m",
        ),
        (["train", "--resume", "nowhere"], 1, "nowhere is not a run of cxrfast train"),
        (["evaluate", "runs/a", "--checkpoint", "b"], 2, "checkpoint: b or the run runs/a? Give one of them"),
        (["train", "--method=li", "--data=.", "--precision=16", "--device=cpu"], 2, "precision: 16 needs a GPU"),
        (["localize", "a.png"], 1, "no trained model under runs/"),
        (["localize"], 2, "Missing argument"),
        (["evaluate", "--checkpoint", "w.safetensors"], 1, "checkpoint: no file w.safetensors"),
        (["synth", "phantoms", "--images=3"], 2, "images"),
        (["demo", "--method=lee"], 2, "method: expected one of rozenberg, li, "),
        (["import-weights", "model.pt", "--preset=chexnet"], 1, "import: no file model.pt"),
        (["import-weights", "model.pt"], 2, "classes: required; name the outputs in order, or give --preset chexnet"),
    ],
)
def test_wrong_usage_is_one_line(cli, arguments, code, message):
    got, _, err = cli(*arguments)
    assert (got, err.count("\n")) == (code, 1), err
    assert err.startswith("cxrfast: ")
    assert message in err
