"""`cxrfast bags` on a small array file: its files, its table, resuming, and what it refuses."""

import csv

import pytest
from PIL import Image

from cxrfast.cli.main import run
from cxrfast.errors import CxrfastError
from cxrfast.experiments.bags import run_grid

SMALL = [
    "--positive-class",
    "square",
    "--bag-size",
    "4,8",
    "--bag-size-std",
    "1",
    "--train-bags",
    "6,12",
    "--runs",
    "2",
]
QUICK = ["--epochs", "1", "--val-bags", "6", "--test-bags", "12", "--device", "cpu"]
PICTURES = ("by_train_bags.png", "by_bag_size.png", "examples.png")


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch, array_file):
    """cli("--method", …) -> (exit code, stdout, stderr), in an empty folder with the small settings."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = run(["bags", "--dataset", str(array_file), *SMALL, *QUICK, *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_all_files_and_resume(cli, tmp_path, monkeypatch):
    code, out, err = cli("--method", "max,sgl", "--out", "first")
    assert (code, err) == (0, "")
    assert "| 6 | SGL |" in out
    rows = read("first/runs.csv")
    assert len(rows) == 2 * 2 * 2 * 2
    assert {row["pool"] for row in rows if row["method"] == "max"} == {""}
    assert {(row["pool"], row["delta"], row["lam"]) for row in rows if row["method"] == "sgl"} == {("max", "0.3", "1")}
    summary = {(row["method"], row["bag_size"], row["train_bags"]): row for row in read("first/summary.csv")}
    assert len(summary) == 8
    for key, row in summary.items():
        runs = [r for r in rows if (r["method"], r["bag_size"], r["train_bags"]) == key]
        for measure in ("iou", "auc"):
            values = [float(r[measure]) for r in runs]
            expected = {"mean": sum(values) / 2, "min": min(values), "max": max(values)}
            assert {kind: float(row[f"{measure}_{kind}"]) for kind in expected} == pytest.approx(expected, abs=6e-5)
    for name in PICTURES:
        with Image.open(tmp_path / "first" / name) as image:
            assert min(image.size) > 200
    assert not list((tmp_path / "first").rglob("*.tmp"))

    # Again: nothing is trained, the same is said
    before = (tmp_path / "first" / "runs.csv").read_bytes()
    monkeypatch.setattr("cxrfast.experiments.bags.grid.train_bags", None)
    code, again, _ = cli("--method", "max,sgl", "--out", "first")
    assert code == 0
    assert "16 of 16 runs are already in" in again
    assert again.partition("IoU,")[2] == out.partition("IoU,")[2]
    assert (tmp_path / "first" / "runs.csv").read_bytes() == before


def test_poolings_and_positives_in_one_grid(cli, tmp_path):
    arguments = ["--method", "sgl,bil,bil:max", "--positives", "1,50%", "--train-bags", "6", "--runs", "1"]
    code, out, err = cli(*arguments, "--bag-size-std", "0,1", "--out", "x")
    assert (code, err) == (0, "")
    rows = read("x/runs.csv")
    assert {(row["method"], row["pool"]) for row in rows} == {("sgl", "max"), ("bil", "mean"), ("bil", "max")}
    assert {(row["bag_size"], row["bag_size_std"]) for row in rows} == {("4", "0"), ("8", "1")}
    assert {row["positives_per_bag"] for row in rows if row["positives"] == "1"} == {"1"}
    assert {row["positives_per_bag"] for row in rows if row["bag_size"] == "4" and row["positives"] == "50%"} == {"2"}
    assert "| 6 | 1 | BIL (max pooling) |" in out
    assert len(read("x/summary.csv")) == 12
    assert (tmp_path / "x" / "by_positives.png").is_file()
    assert (tmp_path / "x" / "by_bag_size-50percent.png").is_file()


def test_a_preset_is_said_and_may_be_changed(cli, array_file):
    quick = ["--preset", "seibold6", "--dataset", str(array_file), "--network", "lenet5", "--positives", "1,2"]
    code, out, err = cli(*quick, "--method", "sgl,bil", "--train-bags", "6", "--runs", "1", "--out", "x")
    assert (code, err) == (0, "")
    first, second = out.splitlines()[:2]
    assert first.startswith("Seibold et al. 2020, Figure 6: ")
    assert "From the published script: lr, weight decay." in first
    assert second.startswith("DIFFERENT FROM THE PRESET: dataset ")
    assert "epochs 1 instead of 50; " in second
    assert second.endswith("; val bags 6 instead of 50; test bags 12 instead of 5000")
    rows = read("x/runs.csv")
    assert {(row["lr"], row["batch_size"], row["method"], row["pool"]) for row in rows} == {
        ("0.0001", "64", "sgl", "max"),
        ("0.0001", "64", "bil", "mean"),
    }


def test_goes_on_where_it_was_cut_off(cli, tmp_path, monkeypatch):
    cli("--method", "max", "--runs", "3", "--out", "whole")
    from cxrfast.experiments.bags import grid

    finished, train = [], grid.train_bags

    def interrupted(source, settings, **options):
        if len(finished) == 5:
            raise KeyboardInterrupt
        finished.append(settings)
        return train(source, settings, **options)

    monkeypatch.setattr(grid, "train_bags", interrupted)
    assert cli("--method", "max", "--runs", "3", "--out", "parts")[0] == 130
    assert len(read("parts/runs.csv")) == 5
    monkeypatch.setattr(grid, "train_bags", train)
    assert cli("--method", "max", "--runs", "3", "--out", "parts")[0] == 0
    without_time = [[{k: v for k, v in r.items() if k != "seconds"} for r in read(f"{d}/runs.csv")] for d in DIRS]
    assert without_time[0] == without_time[1]


DIRS = ("whole", "parts")


def test_a_failed_run_is_named_and_the_others_go_on(cli, monkeypatch):
    from cxrfast.experiments.bags import grid

    train = grid.train_bags

    def failing(source, settings, **options):
        if settings.run == 1 and settings.bag_size == 4:
            raise CxrfastError("the loss is nan")
        return train(source, settings, **options)

    monkeypatch.setattr(grid, "train_bags", failing)
    code, _, err = cli("--method", "mean", "--train-bags", "6", "--out", "x")
    assert code == 1
    assert err == "cxrfast: 1 of 4 runs failed: mean, 6 bags of 4, run 2\n"
    assert len(read("x/runs.csv")) == 3


def test_a_table_of_something_else_is_left_alone(cli, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "runs.csv").write_text("a,b\n1,2\n")
    code, _, err = cli("--out", "x")
    assert code == 1
    assert "expected a table of runs of this version, got other columns; choose another --out" in err
    assert (tmp_path / "x" / "runs.csv").read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "sgl,median"], "method: expected some of max, "),
        (["--bag-size", "10,x"], "bag-size: expected comma-separated numbers of at least 1, got '10,x'"),
        (["--train-bags", "1"], "train-bags: expected comma-separated numbers of at least 2, got '1'"),
        (["--steps", "3"], "steps: expected either --epochs or --steps, got both"),
        (["--lr", "0"], "lr: expected a number above 0, got 0.0"),
        (["--positives", "all"], "positives: expected 'natural'"),
        (["--positives", "1,"], "positives: expected 'natural', a number of instances or a share (0.1 or 10%), got ''"),
        (["--positives", "2,7"], "positives: expected at most 4, the bag size, got 7; reduce --positives"),
        (["--bag-size-std", "1,x"], "bag-size-std: expected comma-separated numbers of at least 0, got '1,x'"),
        (["--bag-size-std", "-1"], "bag-size-std: expected comma-separated numbers of at least 0, got '-1'"),
        (["--bag-size-std", "1,2,3"], "bag-size-std: expected one number, or one for each of 2 bag sizes, got 3"),
        (["--preset", "seibold7"], "preset: expected one of seibold4, seibold5a, seibold6, got 'seibold7'"),
        (["--pool", "median"], "pool: expected one of"),
        (["--method", "bil:median"], "pool: expected one of"),
        (["--method", "mean:max"], "method: expected no pooling for mean, got 'mean:max'"),
        (["--delta", "0.9"], "delta: "),
        (["--positive-class", "dog"], "positive-class: unknown class 'dog'"),
        (["--network", "vgg"], "network: expected one of lenet5, resnet18, got 'vgg'"),
    ],
)
def test_wrong_usage_is_one_line(cli, tmp_path, arguments, message):
    code, _, err = cli(*arguments)
    assert code == 2
    assert err.startswith(f"cxrfast: {message}")
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_cifar_subset(real_data, tmp_path, capsys):
    small = ["--bag-size", "3", "--train-bags", "2", "--runs", "1", "--method", "sgl", *QUICK, "--out", str(tmp_path)]
    dataset = ["--dataset", str(real_data / "cifar10_subset.npz"), "--positive-class", "dog"]
    assert run(["bags", *dataset, *small]) == 0
    assert "bags of 3" in capsys.readouterr().out
    (row,) = read(tmp_path / "runs.csv")
    assert (row["dataset"], row["positive_class"], row["network"]) == ("cifar10_subset", "dog", "resnet18")
    with Image.open(tmp_path / "examples.png") as image:
        assert image.size[0] > 200


def test_nothing_to_summarise(squares, tmp_path):
    assert run_grid(squares, [], tmp_path) == []
