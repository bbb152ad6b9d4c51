"""A small study from the first phantom to the figure: what it leaves, that it goes on, and what it refuses."""

import csv
import dataclasses
import os
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from cxrfast.cli.main import run
from cxrfast.errors import UsageError
from cxrfast.experiments.study import Study, choose_rows, run_study, to_markdown
from cxrfast.experiments.study.runner import run_cell

STUDY = Study(
    rows=choose_rows(["rozenberg", "no-crf", "chexnet"]),
    shares=(0.2,),
    seeds=(1,),
    images=60,
    settings={"epochs": 2, "batch_size": 8, "device": "cpu"},
)


@contextmanager
def threads_of_a_job():
    """As many as each of two runs at a time has: numbers are the same to the bit for the same number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished study, and its files. Not to be changed."""
    out = tmp_path_factory.mktemp("study") / "out"
    with threads_of_a_job():
        return out, run_study(STUDY, out)


def test_what_a_study_leaves(finished):
    out, files = finished
    assert not files.failed
    assert files.figure.read_bytes().startswith(b"\x89PNG")
    with files.runs.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["annotated"]) for row in rows] == [
        ("rozenberg", "0.2"),
        ("no-crf", "0.2"),
        ("chexnet", "0"),
    ]
    assert [int(row["images_with_boxes"]) > 0 for row in rows] == [True, True, False]
    for row in rows:
        assert 0 <= float(row["auroc"]) <= 1
    text = files.markdown.read_text()
    assert text == to_markdown(files.result)
    assert "| 20 % |" in text
    assert "| the CRF | 20 % | AUROC |" in text
    assert not list(out.rglob(".*"))  # nothing half-written


def test_a_run_that_begins_with_another_is_the_run_that_trains_from_the_start(finished, tmp_path):
    out, _ = finished
    cell = next(cell for cell in STUDY.cells if cell.row.name == "rozenberg")
    (tmp_path / "phantoms").symlink_to(out / "phantoms")
    with threads_of_a_job():
        assert run_cell(cell, STUDY, tmp_path) is None  # there is no run without the CRF here
    ours, theirs = (load_file(folder / cell.folder / "weights" / "best.safetensors") for folder in (tmp_path, out))
    assert set(ours) == set(theirs)
    for name in ours:
        assert ours[name].equal(theirs[name]), name


def test_the_second_call_trains_nothing(finished, logged):
    out, files = finished
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()}
    again = run_study(STUDY, out)
    assert logged.messages == ["3 runs, 3 already finished"]
    assert before == {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()}
    assert to_markdown(again.result) == to_markdown(files.result)


def test_a_run_whose_evaluation_cannot_be_read_is_evaluated_again(finished, caplog):
    out, _ = finished
    path = next((out / "runs").rglob("strict/evaluation-test.json"))
    before = path.read_text()
    for content in ('{"protocol": "strict"}', "{"):  # of an earlier version; damaged
        path.write_text(content)
        caplog.clear()
        with threads_of_a_job(), caplog.at_level("INFO", "cxrfast"):
            run_study(STUDY, out)
        assert caplog.messages[0] == "3 runs, 2 already finished"
        assert path.read_text() == before


def test_runs_of_other_settings_are_neither_skipped_nor_gone_on_with(finished):
    out, _ = finished
    other = dataclasses.replace(STUDY, settings={**STUDY.settings, "epochs": 3})
    with pytest.raises(UsageError, match=r"out: .*rozenberg-0.2.seed-1 has a run with epochs 2, not 3; choose another"):
        run_study(other, out)
    with pytest.raises(UsageError, match="images: expected 80, got 60 in .*seed-1; choose another"):
        run_study(dataclasses.replace(STUDY, images=80), out)


def test_a_run_that_fails_does_not_keep_the_others_from_running(tmp_path, logged):
    rows = choose_rows(["no-crf", "chexnet"])
    study = dataclasses.replace(STUDY, rows=rows, settings={**STUDY.settings, "epochs": 1, "lr": 1e30})
    files = run_study(study, tmp_path / "out")
    assert files.failed == ["no-crf, 0.2 annotated, seed 1", "chexnet, 0 annotated, seed 1"]
    assert files.result is None
    assert any("failed: training diverged" in line for line in logged.messages)
    assert not files.markdown.exists()


def test_two_runs_at_a_time_give_the_same_numbers(finished, tmp_path):
    _, files = finished
    study = dataclasses.replace(STUDY, rows=choose_rows(["no-crf", "chexnet"]))
    both = run_study(study, tmp_path / "out", jobs=2)
    mine, theirs = ({line.row.name: line.numbers for line in found.result.lines} for found in (both, files))
    for row, numbers in mine.items():
        for name, spread in numbers.items():
            assert spread.mean == pytest.approx(theirs[row][name].mean, abs=1e-6, nan_ok=True), (row, name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--annotated", "1 %"], "annotated: expected comma-separated numbers of at least 0, got '1 %'"),
        (["--seeds", "-1"], "seeds: expected comma-separated numbers of at least 0, got '-1'"),
        (["--annotated", "0"], "annotated: expected shares above 0 and up to 1, got 0"),
        (["--rows", "crf"], "rows: expected some of rozenberg, no-crf, "),
    ],
)
def test_wrong_options_are_one_line(arguments, message, tmp_path, capsys):
    assert run(["study", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
