"""From a table's name to a comparison, on tiny phantoms: run, skipped, gone on with, refused, failed."""

import json
import shutil

import pytest

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.experiments import run_state
from cxrfast.experiments.reproduction import Overrides, reproduce, runner
from tests.logged_lines import logged_lines

TINY = Overrides(
    {"epochs": 1, "image_size": 64, "batch_size": 8, "device": "cpu"},
    {"backbone": "resnet_nano", "transition_channels": 8, "output_stride": 8, "upsample": 1},
)
TINY_FOLDS = Overrides(
    {"epochs": 1, "image_size": 64, "batch_size": 8, "device": "cpu"},
    {"backbone": "resnetv2_nano", "grid": 8, "hidden": 16, "output_stride": 8},
    folds=2,
)


@pytest.fixture(scope="module")
def reproduced(phantoms, tmp_path_factory):
    """Table 17 of Wang et al., its folder, and the lines that were logged. Not to be changed."""
    out = tmp_path_factory.mktemp("reproduce")
    with logged_lines() as lines:
        return reproduce("wang17", phantoms, out, overrides=TINY), out, lines


def test_a_table_is_named_run_and_compared(reproduced):
    result, out, lines = reproduced
    assert not result.failed
    assert "method wang, published lists, 1 epochs at 64 pixels" in "\n".join(lines)
    assert "Not the paper's setting. These numbers do not reproduce the table:" in lines
    assert "- image size 64 instead of the planned 512" in lines
    assert "the register has no statements of wang2017 on method wang" in " ".join(lines)
    assert (out / "runs" / "wang" / "weights" / "best.safetensors").is_file()
    content = json.loads((out / "wang17.json").read_text())
    (row,) = content["rows"]
    evaluation = json.loads((out / "runs" / "wang" / "evaluations" / "wang2017" / "evaluation-test.json").read_text())
    (comparison,) = row["comparisons"]
    for name, of_class in evaluation["classes"].items():
        cell = comparison["cells"][name]
        assert cell["ours"]["value"] == of_class["auroc"]
        if of_class["auroc"] is not None:
            assert cell["difference"] == pytest.approx(of_class["auroc"] - cell["published"])
    assert row["facts"]["n_images"] == evaluation["n_images"]
    assert "40 images instead of the 112,120 of ChestX-ray14" in content["deviations"]
    assert "Not the paper's setting" in (out / "wang17.md").read_text()


def test_another_table_of_the_same_run_trains_nothing(reproduced, phantoms, tmp_path, monkeypatch, logged):
    _, out, _ = reproduced
    copy = shutil.copytree(out, tmp_path / "copy")

    def refuse(*args, **kwargs):
        raise AssertionError("nothing is to be trained")

    monkeypatch.setattr(run_state, "train", refuse)
    monkeypatch.setattr(run_state, "resume", refuse)
    monkeypatch.setattr(runner, "evaluate_run", refuse)
    result = reproduce("wang19", phantoms, copy, overrides=TINY)
    assert "wang: already finished" in logged.messages
    places = {(of.metric, of.measure, of.T) for of in result.table.rows[0].comparisons}
    assert places == {(m, "ior", t) for m in ("accuracy", "afp") for t in (0.1, 0.25, 0.5, 0.75, 0.9)}


@pytest.mark.parametrize("evaluation", [None, '{"protocol": "wang2017"}', "{"], ids=["missing", "older", "damaged"])
def test_a_trained_run_is_only_evaluated(reproduced, phantoms, tmp_path, monkeypatch, evaluation):
    _, out, _ = reproduced
    copy = shutil.copytree(out, tmp_path / "copy")
    path = copy / "runs" / "wang" / "evaluations" / "wang2017" / "evaluation-test.json"
    before = path.read_text()
    if evaluation is None:
        shutil.rmtree(copy / "runs" / "wang" / "evaluations")
    else:
        path.write_text(evaluation)
    weights = (copy / "runs" / "wang" / "last.ckpt").read_bytes()
    monkeypatch.setattr(run_state, "train", None)
    result = reproduce("wang17", phantoms, copy, overrides=TINY)
    assert result.table.rows[0].state == "done"
    assert (copy / "runs" / "wang" / "last.ckpt").read_bytes() == weights
    assert json.loads(path.read_text())["classes"] == json.loads(before)["classes"]


def test_a_folder_of_other_settings_is_refused(reproduced, phantoms, tmp_path):
    _, out, _ = reproduced
    for changes, options, reason in (
        ({"epochs": 2}, {}, "has a run with epochs 1, not 2; choose another folder with --out"),
        ({}, {"sharpness": 5.0}, "has a run with sharpness 10.0, not 5.0"),
    ):
        other = Overrides({**TINY.settings, **changes}, {**TINY.options, **options})
        with pytest.raises(UsageError, match=reason):
            reproduce("wang17", phantoms, out, overrides=other)
    moved = shutil.copytree(phantoms, tmp_path / "moved")
    with pytest.raises(UsageError, match="has a run with data .*phantoms, not .*moved"):
        reproduce("wang17", moved, out, overrides=TINY)


def test_a_row_that_fails_does_not_stop_the_others(phantoms, tmp_path, monkeypatch):
    def fail(config, *args, **kwargs):
        raise CxrfastError(f"no disk for {config.options.get('loss', config.method)}")

    monkeypatch.setattr(run_state, "train", fail)
    overrides = Overrides(TINY.settings, {"backbone": "resnet_nano", "output_stride": 8})
    result = reproduce("seibold1", phantoms, tmp_path, overrides=overrides)
    assert result.failed
    states = {row.name: (row.state, row.reason) for row in result.table.rows}
    assert states["sgl-bil"] == ("failed", "no disk for bil")
    assert states["wang2017"] == ("published only", None)
    published = next(row for row in result.table.rows if row.name == "wang2017").comparisons[0]
    assert published.cells["Mass"].published == 0.69
    page = (tmp_path / "seibold1.md").read_text()
    assert "failed: no disk for mmm" in page
    content = json.loads((tmp_path / "seibold1.json").read_text())
    assert content["papers_setting"] is False


def test_a_row_of_folds(phantoms, tmp_path, logged):
    """One image has a Hernia, so that the fold that tests it cannot train that class."""
    data = shutil.copytree(phantoms, tmp_path / "data")
    boxes = data / "BBox_List_2017.csv"
    image = boxes.read_text().splitlines()[1].split(",")[0]
    boxes.write_text(f"{boxes.read_text().rstrip()}\n{image},Hernia,100,100,300,300\n")
    arguments = ("rozenberg1", data, tmp_path)
    result = reproduce(*arguments, rows=["li-20"], overrides=TINY_FOLDS)
    (row,) = result.table.rows
    assert row.state == "done", row.reason
    pooled = json.loads((tmp_path / "runs" / "li-20" / "cross-validation.json").read_text())
    assert (pooled["folds"], pooled["by"], pooled["unannotated"]) == (2, "image", 0.2)
    table = pooled["localization"]["tables"][0]["rows"][0]
    cells = row.comparisons[0].cells
    for name, number in table["classes"].items():
        assert (cells[name].ours.value, cells[name].ours.sd) == (number["mean"], number["sd"])
    assert all(cells[name].ours is None for name in set(cells) - set(table["classes"]))  # published alone
    assert cells["Nodule"].published == 0.241
    assert "folds 2 instead of 5" in row.deviations
    left_out = pooled["classes_left_out"]
    assert left_out["Hernia"] == 1
    assert not set(left_out) & set(pooled["classes"])
    assert f"without {', '.join(left_out)}" in row.deviations
    assert f"without {', '.join(left_out)}" in (tmp_path / "rozenberg1.md").read_text()
    assert json.loads((tmp_path / "rozenberg1.json").read_text())["rows"][0]["facts"]["classes_left_out"] == left_out
    assert "Hernia (1" in "\n".join(logged.messages)
    assert "classes left out (boxes on test images)" in (tmp_path / "runs" / "li-20" / "report.html").read_text()
    logged.clear()
    reproduce(*arguments, rows=["li-20"], overrides=TINY_FOLDS)
    assert "li-20: already finished" in logged.messages
    with pytest.raises(UsageError, match="has a run with folds 2, not 3"):
        reproduce(*arguments, rows=["li-20"], overrides=Overrides(TINY_FOLDS.settings, TINY_FOLDS.options, folds=3))
