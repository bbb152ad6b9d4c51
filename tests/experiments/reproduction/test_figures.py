"""The figures as plans: what they run, what they refuse, and our numbers beside what the text says."""

import json
from pathlib import Path

import numpy as np
import pytest

from cxrfast.cli.main import run
from cxrfast.errors import CxrfastError
from cxrfast.experiments.bags import PRESETS
from cxrfast.experiments.bags.results import RunSpread, Summary
from cxrfast.experiments.reproduction.figures import FIGURES
from cxrfast.experiments.reproduction.figures.claims import CLAIMS, Results, against, chance, grows, maxima, spreads
from cxrfast.experiments.reproduction.registry import PLANS
from cxrfast.experiments.reproduction.settings import Overrides
from cxrfast.published import find_statements


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> Path:
    """Bright images are nines, for a figure of MNIST, and dogs, for one of CIFAR-10."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 10
    images = rng.integers(0, 60, (400, 32, 32), dtype=np.uint8) + np.uint8(150) * (labels == 9)[:, None, None]
    path = tmp_path_factory.mktemp("images") / "squares.npz"
    names = np.array([*"012345678", "dog"])
    np.savez(path, images=images.astype(np.uint8), labels=labels, class_names=names)
    return path


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch, squares):
    monkeypatch.chdir(tmp_path)

    def call(figure, *arguments, data=squares):
        code = run(["reproduce", figure, "--data", str(data), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


QUICK = ["--scale", "small", "--epochs", "1", "--set", "runs=1", "--set", "test_bags=12", "--device", "cpu"]


def test_figures_are_plans_with_a_preset_and_claims_of_the_register():
    assert [figure.name for figure in FIGURES] == list(PRESETS) == list(CLAIMS)
    assert all(PLANS[figure.name] is figure for figure in FIGURES)
    known = {of.id: of for of in find_statements(paper="seibold2020", method="bags")}
    for figure, claims in CLAIMS.items():
        for name, _ in claims:
            assert known[name].kind in ("evaluation", "ablation")
            assert f"Figure {figure.removeprefix('seibold').replace('5a', '5(a)')}" in known[name].place
    listed = {name for claims in CLAIMS.values() for name, _ in claims}
    realised = {
        name for name, of in known.items() if "cxrfast.experiments.reproduction.figures.claims:CLAIMS" in of.code
    }
    assert listed == realised


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_the_list_says_what_a_figure_costs(figure):
    methods, cost = figure.listing()
    plan = figure.preset.plan
    assert methods.strip() == ", ".join(plan.method)
    runs = len(plan.method) * plan.runs * len(plan.bag_size) * len(plan.train_bags) * len(plan.positives)
    assert cost.startswith(f"    {runs} runs, ")
    seen = sum(
        plan.runs * len(plan.method) * len(plan.positives) * plan.epochs[0] * size * bags
        for size in plan.bag_size
        for bags in plan.train_bags
    )
    assert f" {seen / 1e9:.1f} billion images" in cost


def test_a_figure_with_its_claims(cli, tmp_path):
    code, out, err = cli("seibold6", *QUICK, "--rows", "sgl,mean,bil", "--out", "x")
    assert (code, err) == (0, "")
    assert "18 runs, in x/runs/seibold6" in out
    assert "NOT THE PAPER'S SETTING: " in out
    assert "300 and 100 images for training and testing instead of the 50,000 and 10,000 of cifar10" in out
    assert "method sgl, mean, bil instead of sgl, max, mean, bil" in out
    for place in ("§4.4, Figure 6: In the smaller bags, mean pooling", "Ours: AUC: mean is ahead in "):
        assert place in " ".join(out.split())
    report = json.loads(Path("x/seibold6.json").read_text())
    assert not report["papers_setting"]
    assert report["failed"] is None
    claims = {claim["id"]: claim["evidence"] for claim in report["claims"]}
    assert list(claims) == [name for name, _ in CLAIMS["seibold6"]]
    cells = {(s["bag_size"], s["positives"], s["method"]): s for s in report["summaries"]}
    first = claims["fig6-mean-best-auc"]["rows"][0]
    assert first[0] == "bags of 5, 1 positive, 40 for training"
    assert first[1] == f"{cells[5, '1', 'mean']['auc']['mean']:.3f}"
    best = max((cells[5, "1", method]["auc"]["mean"], method) for method in ("sgl", "bil"))
    assert first[2] == f"{best[0]:.3f} {'SGL' if best[1] == 'sgl' else 'BIL'}"
    assert all(row[2] == "-" for row in claims["fig6-better-than-max"]["rows"])  # max was not run
    page = Path("x/seibold6.md").read_text()
    assert "![IoU and AUC](runs/seibold6/by_positives.png)" in page
    assert Path("x/runs/seibold6/by_positives.png").is_file()
    # Again: nothing is trained
    code, again, _ = cli("seibold6", *QUICK, "--rows", "sgl,mean,bil", "--out", "x")
    assert code == 0
    assert "18 of 18 runs are already in" in again
    assert Path("x/seibold6.md").read_text() == page


def test_a_failed_run_leaves_the_others_and_is_said(cli, monkeypatch):
    from cxrfast.experiments.bags import grid

    train = grid.train_bags

    def failing(source, settings, **options):
        if settings.method == "max" and settings.bag_size == 5:
            raise CxrfastError("the loss is nan")
        return train(source, settings, **options)

    monkeypatch.setattr(grid, "train_bags", failing)
    code, out, _ = cli("seibold4", *QUICK, "--set", "train_bags=6", "--rows", "sgl,max", "--out", "x")
    assert code == 1
    assert "failed: 1 of 4 runs failed: max, 6 bags of 5, run 1" in out
    report = json.loads(Path("x/seibold4.json").read_text())
    assert len(report["summaries"]) == 3
    assert report["failed"].startswith("1 of 4 runs failed")


def figure(name):
    return next(figure for figure in FIGURES if figure.name == name)


def test_what_a_user_changes():
    data = Path("mnist")
    plan = figure("seibold4").plan(data, None, Overrides())
    assert plan.method == PRESETS["seibold4"].plan.method
    assert (plan.dataset, plan.positive_class, plan.epochs) == ("mnist", "9", (300,))
    changed = figure("seibold4").plan(
        data,
        ["bil", "sgl"],
        Overrides({"epochs": 3, "lr": 0.01, "seed": 2}, {"bag_size": "7,9", "bag_size_std": [1, 2], "runs": 2}),
    )
    assert changed.method == ("sgl", "bil")
    assert (changed.epochs, changed.lr, changed.bag_size, changed.bag_size_std, changed.runs) == (
        (3,),
        0.01,
        (7, 9),
        (1.0, 2.0),
        2,
    )
    steps = figure("seibold4").plan(data, None, Overrides({}, {"steps": 40}))
    assert (steps.steps, steps.epochs) == ((40,), ())
    assert figure("seibold6").plan(Path("a/b.npz"), None, Overrides()).dataset == "a/b.npz"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds", "3"], "folds: expected none, because seibold4 is not cross-validated; leave it out"),
        (
            ["--image-size", "64"],
            "image-size: not an option of seibold4; expected --epochs, --batch-size, --lr, --seed, --device",
        ),
        (["--labels", "2020"], "labels: not an option of seibold4; expected --epochs"),
        (["--pretrained", "imagenet"], "pretrained: unknown setting; expected one of dataset, "),
        (["--set", "bagsize=3"], "bagsize: unknown setting; expected one of dataset, "),
        (["--set", "bag_size=0"], "bag-size: expected comma-separated numbers of at least 1, got '0'"),
        (["--set", "positives=9"], "positives: expected at most 5, the bag size, got 9; reduce --positives"),
        (["--set", "method=sgl"], "method: cannot be set with --set; use --rows"),
        (["--set", "dataset=mnist"], "dataset: cannot be set with --set; use --data"),
        (["--set", "runs=x"], "runs: expected an integer of at least 1, got x"),
        (["--set", "delta=0.7"], "delta: expected at least 0 and at most 0.5"),
        (["--rows", "sgl,wang"], "rows: expected some of sgl, max, mean, bil, mmm"),
        (["--scale", "large"], "scale: expected small, got 'large'"),
        (["--lr", "0"], "lr: expected a number above 0, got 0.0"),
    ],
)
def test_wrong_usage_is_one_line(cli, tmp_path, arguments, message):
    code, _, err = cli("seibold4", "--scale", "small", *arguments)
    assert code == 2
    assert err.startswith(f"cxrfast: {message}")
    assert err.count("\n") == 1
    assert not list(tmp_path.rglob("runs.csv"))


def test_data_that_are_not_there(cli, tmp_path):
    code, _, err = cli("seibold4", data=tmp_path / "none")
    assert (code, err.count("\n")) == (2, 1)
    assert "data: expected a folder or an .npz file, got " in err
    assert "to fetch it: cxrfast bags --dataset mnist --root" in err
    code, _, err = cli("seibold6", data=tmp_path / "none.npz")
    assert (code, err) == (2, f"cxrfast: dataset: expected a file, got {tmp_path / 'none.npz'}, which does not exist\n")
    (tmp_path / "empty").mkdir()
    code, _, err = cli("seibold6", data=tmp_path / "empty")
    assert (code, err.count("\n")) == (1, 1)
    assert "cannot read cifar10" in err
    assert err.endswith(f"to fetch it: cxrfast bags --dataset cifar10 --root {tmp_path / 'empty'} --download\n")


# --- claims ---------------------------------------------------------------------------------------------------------
def made(method, size, bags, iou, auc, positives="natural", width=0.1):
    spread = [RunSpread(value, value - width, value + width) for value in (iou, auc)]
    return Summary(method, size, bags, positives, 1.0, 3, *spread)


SUMMARIES = [
    made("sgl", 10, 50, 0.5, 0.8),
    made("max", 10, 50, 0.6, 0.7),
    made("sgl", 50, 50, 0.6, 0.9, width=0.05),
    made("max", 50, 50, 0.3, 0.95),
    made("bil:max", 50, 50, 0.2, 0.5),
    made("sgl", 50, 100, 0.8, 0.85, width=0.2),
    made("max", 50, 100, 0.1, 0.5, width=0.3),
    made("mean", 50, 100, 0.4, 0.6),
]


def test_methods_beside_another_and_beside_the_best():
    results = Results(SUMMARIES)
    assert results.sizes == [10, 50]
    found = against("max", sizes="larger")(results)
    assert found.columns == ("", "IoU SGL", "IoU max", "AUC SGL", "AUC max")
    assert found.rows == (
        ("bags of 50, 50 for training", "0.600", "0.300", "0.900", "0.950"),
        ("bags of 50, 100 for training", "0.800", "0.100", "0.850", "0.500"),
    )
    assert found.summary == (
        "IoU: SGL is ahead in 2 of 2, by +0.500 on average; AUC: SGL is ahead in 1 of 2, by +0.150 on average"
    )
    best = against("best", ("iou",), sizes="larger", ratio=True)(results)
    assert [row[2] for row in best.rows] == ["0.300 max", "0.400 mean"]
    assert best.summary.endswith("; median ratio 2.00, at least 1.5 in 2 of 2")
    some = against("best", ("iou",), sizes="larger", among=("bil:max", "mean"))(results)
    assert [row[2] for row in some.rows] == ["0.200 BIL (max pooling)", "0.400 mean"]
    smallest = against("max", ("iou",), sizes="smallest")(results)
    assert smallest.summary == "IoU: SGL is ahead in 0 of 1, by −0.100 on average"
    lone = against("mean", sizes="smallest")(results)
    assert (lone.rows, lone.summary) == (
        (("bags of 10, 50 for training", "0.500", "-", "0.800", "-"),),
        "no run to compare",
    )
    one_size = Results([s for s in SUMMARIES if s.bag_size == 50])
    assert one_size.of_sizes("smallest") == one_size.of_sizes("larger") == one_size.of_sizes("largest")


def test_growth_chance_maxima_and_spreads():
    results = Results(SUMMARIES)
    found = grows(("sgl", "max"))(results)
    assert found.rows == (
        ("SGL, bags of 50, 50 → 100", "0.600 → 0.800", "0.900 → 0.850"),
        ("max, bags of 50, 50 → 100", "0.300 → 0.100", "0.950 → 0.500"),
    )
    assert found.summary == "IoU rises in 1 of 2; AUC rises in 0 of 2"
    assert chance("max")(results).summary == "max: the greatest AUC of any run is 1.050"
    assert chance("mmm")(results).summary == "no run"
    assert grows(("mean",))(results).summary == "one number of training bags only"
    best = maxima("sgl", "max")(results)
    assert best.rows[1] == ("bags of 50, 50 for training", "0.650", "0.400", "0.950", "1.050")
    assert best.summary == "IoU: best run of SGL is higher in 2 of 3; AUC: best run of SGL is higher in 2 of 3"
    wide = spreads("sgl", "max")(results)
    assert wide.rows[2] == ("bags of 50, 100 for training", "0.400", "0.600", "0.400", "0.600")
    assert spreads("sgl", "mmm")(results).summary == "no run to compare"


def test_places_are_in_the_order_of_positives():
    results = Results([made("sgl", 20, 9, 0.5, 0.5, positives=text) for text in ("10", "2", "natural")])
    assert [place.positives for place in results.places] == ["natural", "2", "10"]
    assert str(results.places[1]) == "bags of 20, 2 positive, 9 for training"
