"""A run that is killed, or finds the disk full, at any operation on its files ends like one that is not.

`CXRFAST_TEST_KILLS=all pytest tests/training/test_kills.py` tries every point; by default it is a sample.
"""

import json
import os
import random
import shutil

import pytest
import torch
import yaml
from safetensors import safe_open

from cxrfast.runs import RunDirectory
from tests.training.faults import Shim, run_in_child

EVERY = os.environ.get("CXRFAST_TEST_KILLS") == "all"
SAMPLE = 4  # points of each kind

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]


@pytest.fixture(scope="module")
def settings_file(small_settings, tmp_path_factory):
    """Two stages of several epochs, with two batches in each."""
    options = {**small_settings["options"], "crf_epochs": 3}
    settings = {
        **small_settings,
        "data": str(small_settings["data"]),
        "batch_size": 16,
        "epochs": 4,
        "options": options,
    }
    path = tmp_path_factory.mktemp("kills") / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def start(settings_file, out, prepare=lambda: None):
    return run_in_child(["train", "--config", str(settings_file), "--out", str(out)], out.with_suffix(".log"), prepare)


def go_on(settings_file, out):
    """What a person does after an interruption. Returns the exit code."""
    if (out / "config.yaml").exists():
        return run_in_child(["train", "--resume", str(out)], out.with_suffix(".log"))
    return start(settings_file, out)


def result(path):
    """All that a run ends with: names of files, tensors and metadata of the weights, numbers of the epochs."""
    run = RunDirectory(path)
    found = {"files": sorted(str(file.relative_to(path)) for file in path.rglob("*"))}
    for file in (run.best, run.last):
        with safe_open(str(file), framework="pt") as weights:
            found[file.name] = (
                weights.metadata(),
                {name: weights.get_tensor(name).flatten().view(torch.uint8).tolist() for name in weights.keys()},  # noqa: SIM118
            )
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    found["rows"] = [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
    return found


@pytest.fixture(scope="module")
def whole(settings_file, tmp_path_factory):
    """The result of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert start(settings_file, out) == 0
    return result(out)


def points_of(settings_file, folder, *, full):
    """All points of an undisturbed run."""
    out, listed = folder / "dry", folder / "points.json"

    def prepare():
        shim = Shim(out, full=full)
        shim.install()
        return lambda: listed.write_text(json.dumps(shim.points))

    assert start(settings_file, out, prepare) == 0
    return json.loads(listed.read_text())


def chosen(points):
    """All points, or a sample that has the same points every time."""
    if EVERY:
        return list(range(len(points)))
    return sorted(random.Random(15).sample(range(len(points)), SAMPLE))


def failing(out, at, *, full):
    def prepare():
        Shim(out, at, full=full).install()

    return prepare


def test_a_kill_at_any_operation_changes_nothing(settings_file, whole, tmp_path):
    points = points_of(settings_file, tmp_path, full=False)
    assert len(points) >= 200
    wrong = []
    for at in chosen(points):
        out = tmp_path / f"run-{at}"
        assert start(settings_file, out, failing(out, at, full=False)) == -9, (at, points[at])
        code = go_on(settings_file, out)
        if code != 0:
            wrong.append((at, points[at], out.with_suffix(".log").read_text().splitlines()[-1:]))
        elif (ended := result(out)) != whole:
            wrong.append((at, points[at], [name for name in ended if ended[name] != whole[name]]))
        shutil.rmtree(out)
    assert not wrong


def test_the_window_between_two_files_of_a_stage_is_closed(settings_file, whole, tmp_path):
    """Every kill in the first epoch of the second stage; before, some gave the first stage's end other weights."""
    points = points_of(settings_file, tmp_path, full=False)
    states = [at for at, point in enumerate(points) if point == "state before"]
    around = range(states[4], states[5]) if EVERY else range(states[4] + 2, states[5], 6)
    for at in around:
        out = tmp_path / f"run-{at}"
        assert start(settings_file, out, failing(out, at, full=False)) == -9
        assert go_on(settings_file, out) == 0
        assert result(out) == whole, points[at]
        shutil.rmtree(out)


def test_a_full_disk_is_one_line_and_changes_nothing(settings_file, whole, tmp_path):
    points = points_of(settings_file, tmp_path, full=True)
    assert {"state half", "weights half", "text half"} <= set(points)
    wrong = []
    for at in chosen(points):
        out = tmp_path / f"run-{at}"
        code = start(settings_file, out, failing(out, at, full=True))
        errors = [line for line in out.with_suffix(".log").read_text().splitlines() if line.startswith("cxrfast: ")]
        said = out.with_suffix(".log").read_text()
        if code != 1 or len(errors) != 1 or "Traceback" in said or not said.endswith(errors[0] + "\n"):
            wrong.append((at, points[at], code, said[-300:]))
            continue
        code = go_on(settings_file, out)
        if code != 0 or result(out) != whole:
            wrong.append((at, points[at], code, out.with_suffix(".log").read_text()[-300:]))
        shutil.rmtree(out)
    assert not wrong
