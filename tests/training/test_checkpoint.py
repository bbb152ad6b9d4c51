"""Weights files: used alone, and refused in one line where they do not fit."""

import os
import stat

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cxrfast.errors import CxrfastError
from cxrfast.inference import load_predictor
from cxrfast.runs import RunDirectory
from cxrfast.runs.weights import save_weights
from cxrfast.training.checkpoint import load_checkpoint


def rewritten(source, target, *, state=None, **metadata):
    """A copy of a weights file with other tensors or metadata."""
    with safe_open(str(source), framework="pt") as file:
        known = file.metadata()
    save_file(state if state is not None else load_file(source), str(target), {**known, **metadata})
    return target


def test_weights_alone_are_enough(trained, tmp_path):
    alone = rewritten(RunDirectory(trained).best, tmp_path / "alone.safetensors")
    images = torch.randn(2, 1, 64, 64)
    from_file, from_run = load_predictor(alone), load_predictor(trained)
    assert (from_file.method, from_file.image_size, from_file.label_version) == ("rozenberg", 64, "2017")
    assert from_file.operating_points.shape == (len(from_file.class_names),)
    assert ((from_file.operating_points >= 0) & (from_file.operating_points <= 1)).all()
    with torch.inference_mode():
        torch.testing.assert_close(from_file(images).maps, from_run(images).maps, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "expected weights written by cxrfast train, got .* without their metadata"),
        ({"method": "zhou"}, "expected a method of li, rozenberg, .*, got 'zhou' in "),
        ({"options": '{"from_the_future": 1}'}, "metadata of .* do not describe a model of cxrfast"),
        ({"class_names": "Mass"}, "metadata of .* do not describe a model of cxrfast"),
        (
            {"class_names": '["Mass"]', "operating_points": "[0.5]"},
            r"does not fit method 'rozenberg': tensors \d+ of another shape \(first:",
        ),
    ],
)
def test_weights_of_something_else(trained, tmp_path, change, message):
    path = rewritten(RunDirectory(trained).best, tmp_path / "changed.safetensors", **change)
    with pytest.raises(CxrfastError, match=message) as refusal:
        load_predictor(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"image_size": "0"}, "image_size in the metadata of .*: expected 16 to 8192 pixels, got 0"),
        ({"image_size": "100000000"}, "expected 16 to 8192 pixels, got 100000000"),
        ({"image_size": "-64"}, "expected 16 to 8192 pixels, got -64"),
        ({"image_size": "9" * 5000}, "do not describe a model"),
        (
            {"operating_points": "[0.5]"},
            "operating_points in the .*: expected 7, one for each class, got 1",
        ),
        ({"operating_points": "[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.5]"}, "expected numbers from 0 to 1, got 1.5"),
        ({"operating_points": "[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, NaN]"}, "expected numbers from 0 to 1, got nan"),
        ({"operating_points": "[" * 100_000}, "do not describe a model"),
        ({"class_names": '["Mass", "Mass"]'}, "class_names in the metadata of .*: expected 1 to 1000 different names"),
        ({"class_names": "[]"}, "expected 1 to 1000 different names"),
        ({"class_names": '[""]'}, "do not describe a model"),
        ({"stage": "somewhere"}, "do not describe a model"),
        ({"validated": '"perhaps"'}, "do not describe a model"),
        ({"options": "[]"}, "do not describe a model"),
    ],
)
def test_metadata_that_no_training_writes(trained, tmp_path, change, problem):
    path = rewritten(RunDirectory(trained).best, tmp_path / "changed.safetensors", **change)
    with pytest.raises(CxrfastError, match=problem) as refusal:
        load_predictor(path)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 600


def test_others_may_read_weights_as_the_umask_says(trained):
    before = os.umask(0)
    os.umask(before)
    for path in (RunDirectory(trained).best, RunDirectory(trained).checkpoint, RunDirectory(trained).splits):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~before


def test_missing_and_unknown_tensors_are_named(trained, tmp_path):
    source = RunDirectory(trained).best
    state = load_file(source)
    state["extra"] = state.pop("criterion.tau")
    path = rewritten(source, tmp_path / "changed.safetensors", state=state)
    with pytest.raises(CxrfastError, match=r"1 missing \(first: criterion.tau\); 1 unknown \(first: extra\)"):
        load_predictor(path)


def test_a_checkpoint_of_another_method(trained):
    with pytest.raises(CxrfastError, match="expected weights of method 'li', got 'rozenberg' in "):
        load_predictor(trained, expected_method="li")


def test_files_that_are_no_weights(trained, tmp_path):
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    for path, message in [
        (text, "is not a safetensors file, or is damaged"),
        (tmp_path / "none.safetensors", "no file .*none.safetensors"),
        (RunDirectory(trained).checkpoint, "which is for --resume; use weights/best.safetensors"),
        (tmp_path, "no file .*best.safetensors"),
    ]:
        with pytest.raises(CxrfastError, match=message):
            load_predictor(path)


def test_no_run_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CxrfastError, match="no trained model under runs/; train one .cxrfast train --method rozenberg"):
        load_predictor()


def test_a_failed_write_leaves_the_old_weights(trained, tmp_path, monkeypatch):
    path = rewritten(RunDirectory(trained).best, tmp_path / "w.safetensors")
    before = path.read_bytes()
    method = load_predictor(path).network

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(CxrfastError, match="cannot be written .No space left"):
        save_weights(path, method, stage="crf", label_version="2017")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("content", [[1, 2], {"state": {}}])
def test_a_checkpoint_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(CxrfastError, match="cannot be read; it is damaged or not a checkpoint of cxrfast"):
        load_checkpoint(tmp_path / "last.ckpt")


def test_nothing_is_unpickled(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    path = tmp_path / "last.ckpt"
    torch.save({"state": Harmful()}, path)
    with pytest.raises(CxrfastError, match="cannot be read"):
        load_checkpoint(path)
    assert not (tmp_path / "harm").exists()
