"""A run's folder: names of files, readers, and that no other module has the names."""

import ast
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import cxrfast
import cxrfast.cli
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.runs import RunDirectory
from cxrfast.runs.directory import fold_name, latest_run, new_run, open_run, run_of

PACKAGE = Path(cxrfast.__file__).parent
COMMANDS = Path(cxrfast.cli.__file__).parent
ROOM = PACKAGE / "runs"
NAMES = re.compile(
    r"""(.*/)?(
        config\.yaml | splits\.json | fingerprint\.json | run\.lock | env\.json | metrics\.jsonl | .*\.ckpt
        | (best|last)\.safetensors
        | cross-validation\.json | evaluation-\S* | (predictions|maps|report)(-\S*|\?)?\.(csv|npz|html)
        | comparison-\S* | fold-\S* | fold-\?/seed-\S*
    )""",
    re.VERBOSE,
)
FOLDERS = {"weights", "forks", "evaluations"}


def written_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names of a run's files and folders in code, with their lines. Docstrings and sentences may speak of them."""
    templates = {  # the pages' templates are not files of a run
        id(argument)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "render"
        for argument in call.args
    }
    inside = {id(part) for text in ast.walk(tree) if isinstance(text, ast.JoinedStr) for part in text.values}
    for node in ast.walk(tree):
        if id(node) in templates | inside:
            continue
        text = ""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "?" for part in node.values)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            text = node.right.value if node.right.value in FOLDERS else ""
            if text:
                yield node.lineno, text
            continue
        if NAMES.fullmatch(text):
            yield node.lineno, text


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ('folder / "config.yaml"', ["config.yaml"]),
        ('out / f"evaluation-{part}.json"', ["evaluation-?.json"]),
        ('out / f"predictions{suffix}.csv"', ["predictions?.csv"]),
        ('folder.glob("fold-*/seed-*/weights/best.safetensors")', ["fold-*/seed-*/weights/best.safetensors"]),
        ('f"fold-{fold}/seed-{seed}"', ["fold-?/seed-?"]),
        ('run / "weights" / "best.safetensors"', ["best.safetensors", "weights"]),
        ('f"comparison-{name}.html"', ["comparison-?.html"]),
        ('"""splits.json lies beside config.yaml."""', []),
        ('f"{path} has no config.yaml"', []),
        ('render("report.html", title=title)', []),
        ('settings["weights"]', []),
        ('"seed-5"', []),
    ],
)
def test_the_scan_finds_names_of_files(code, names):
    assert sorted(name for _, name in written_names(ast.parse(code))) == names


def test_names_of_files_stand_in_one_room():
    files = [*PACKAGE.rglob("*.py"), *COMMANDS.rglob("*.py")]
    assert len(files) > 100
    found = [
        f"{path.name}:{line}: {name}"
        for path in {path.resolve() for path in files}
        if ROOM.resolve() not in path.parents
        for line, name in written_names(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "ask cxrfast.runs.RunDirectory for these files"


def test_files_of_the_test_part_have_the_plain_names():
    run = RunDirectory(Path("run"))
    test = (run.evaluation(), run.predictions(), run.maps(), run.report())
    assert [path.name for path in test] == ["evaluation-test.json", "predictions.csv", "maps.npz", "report.html"]
    val = (run.evaluation("val"), run.predictions("val"), run.maps("val"), run.report("val"))
    assert [path.name for path in val] == [
        "evaluation-val.json", "predictions-val.csv", "maps-val.npz", "report-val.html",
    ]  # fmt: skip
    assert run.by_protocol("own").evaluation() == Path("run/evaluations/own/evaluation-test.json")
    assert run.comparison(RunDirectory(Path("elsewhere/other"))) == Path("run/comparison-other.html")


def test_what_a_finished_run_has_left(trained):
    run = RunDirectory(trained)
    assert run.exists
    assert not run.is_cross_validation
    assert run.read_config()["method"] == "rozenberg"
    assert run.read_environment()["cxrfast"] == cxrfast.__version__
    assert {"train", "val", "test"} <= run.read_splits().keys()
    assert [row["epoch"] for row in run.read_metrics()] == [1, 2, 1]
    assert run_of(run.best) == run
    assert run_of(trained / "best.safetensors") is None


def test_a_folder_without_files_is_empty(tmp_path):
    run = RunDirectory(tmp_path)
    assert not run.exists
    assert (run.read_environment(), run.read_splits(), run.read_metrics()) == ({}, {}, [])
    assert run.evaluated_parts() == set()
    with pytest.raises(UsageError, match="config: cannot read"):
        run.read_config()


@pytest.mark.parametrize(("text", "problem"), [("{", "cannot be read"), ("[1]", "expected an object, got list")])
def test_a_damaged_file_is_one_line(tmp_path, text, problem):
    run = RunDirectory(tmp_path)
    for path, read in ((run.environment, run.read_environment), (run.splits, run.read_splits)):
        path.write_text(text)
        with pytest.raises(CxrfastError, match=rf"{path.name}.* {problem}") as failure:
            read()
        assert "\n" not in str(failure.value)


def test_evaluated_parts(tmp_path):
    run = RunDirectory(tmp_path)
    for part in ("val", "test"):
        run.evaluation(part).write_text(json.dumps({}))
    assert run.evaluated_parts() == {"val", "test"}


def test_runs_of_a_cross_validation(tmp_path):
    folder = RunDirectory(tmp_path)
    for fold, seed in ((1, 0), (0, 1), (0, 0)):
        run = folder.run(fold_name(fold, seed))
        run.weights.mkdir(parents=True)
        if (fold, seed) != (0, 0):
            run.best.touch()
    assert [run.path for run in folder.trained_folds()] == [tmp_path / "fold-0/seed-1", tmp_path / "fold-1/seed-0"]


def test_the_latest_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("b", "a/fold-0/seed-0")):
        run = RunDirectory(Path("runs") / name)
        run.weights.mkdir(parents=True)
        run.best.touch()
        os.utime(run.best, (100 - age, 100 - age))
    assert latest_run() == RunDirectory(Path("runs/b"))


def test_a_folder_that_a_killed_training_had_only_begun_is_taken(tmp_path):
    (tmp_path / "run" / "weights").mkdir(parents=True)
    new_run(tmp_path / "run", "li")
    for name in ("splits.json", "fingerprint.json", "run.lock", ".0123456789abcdef.tmp"):
        (tmp_path / "run" / name).write_text("")
    new_run(tmp_path / "run", "li")


@pytest.mark.parametrize("name", ["splits.json", "config.yaml", "notes.txt", "weights/best.safetensors"])
def test_a_folder_of_somebody_else_is_not_taken(tmp_path, name):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("")
    with pytest.raises(UsageError, match="exists and is not empty"):
        new_run(tmp_path / "run", "li")


def test_files_of_killed_processes_are_removed_when_a_run_starts(tmp_path):
    for folder in (tmp_path, tmp_path / "weights", tmp_path / "forks"):
        folder.mkdir(exist_ok=True)
        (folder / ".0123456789abcdef.tmp").write_text("half")
    (tmp_path / "config.yaml").write_text("method: li\n")
    open_run(tmp_path)
    assert [path.name for path in sorted(tmp_path.rglob("*.*"))] == ["config.yaml"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".0123456789abcdef.tmp").write_text("half")  # a folder with nothing else is empty
    assert new_run(tmp_path / "other", "li").path == tmp_path / "other"


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([("a", 1), ("a", 3)], "line 2 is epoch 3 of stage a, expected epoch 2"),
        ([("a", 1), ("a", 1)], "line 2 is epoch 1 of stage a, expected epoch 2"),
        ([("a", 2), ("a", 1)], "line 1 is epoch 2 of stage a, expected epoch 1"),
        ([("a", 1), ("b", 1), ("a", 2)], "line 3 is epoch 2 of stage a, expected epoch 2 in order"),
    ],
)
def test_rows_of_metrics_that_were_moved_are_refused(tmp_path, rows, problem):
    run = RunDirectory(tmp_path)
    run.write_metrics([{"stage": stage, "epoch": epoch} for stage, epoch in rows])
    with pytest.raises(CxrfastError, match=problem):
        run.read_metrics()


def test_rows_of_a_search_begin_behind_the_trunk(tmp_path):
    run = RunDirectory(tmp_path)
    places = [(None, 1), (None, 2), (None, 3), (1, 2), (1, 3), (2, 3)]
    rows = [{"stage": "a", "epoch": epoch, "divided_after": after} for after, epoch in places]
    run.write_metrics(rows)
    assert run.read_metrics() == rows
