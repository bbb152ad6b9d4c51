"""Without --checkpoint, a run that learnt from drawings reads no real image."""

import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from cxrfast.errors import CxrfastError
from cxrfast.inference import load_predictor
from cxrfast.runs import RunDirectory, read_weights
from cxrfast.runs.latest import latest_run_for
from cxrfast.runs.provenance import KEY


@pytest.fixture
def runs(trained, tmp_path, monkeypatch):
    """Copies of a run under `runs/`: make(name, age in seconds, what the weights say)."""
    monkeypatch.chdir(tmp_path)
    source = RunDirectory(trained)

    def make(name, age, says=None):
        run = RunDirectory(Path("runs") / name)
        run.weights.mkdir(parents=True)
        shutil.copy(source.config, run.config)
        metadata = read_weights(source.best)[0]
        save_file(load_file(source.best), run.best, metadata if says is None else {**metadata, KEY: says})
        os.utime(run.best, (1e9 - age, 1e9 - age))
        return run

    return make


REAL = '{"synthetic": false, "data": "nih", "layout": "chestxray14", "images": 5, "boxed_images": 1}'


@pytest.fixture
def scan(phantoms, tmp_path):
    """An image outside of the phantoms' folder."""
    return shutil.copy(next((phantoms / "images").iterdir()), tmp_path / "scan.png")


def test_the_latest_run_on_xrays_goes_first(runs, scan, phantoms):
    demo, old, real = runs("demo/run", 0), runs("old", 2, REAL), runs("real", 1, REAL)
    assert latest_run_for([scan]) == (real, (demo.path,))
    assert load_predictor(images=[scan]).weights == str(real.best)
    assert load_predictor().weights == str(demo.best)  # evaluate reads the data of the run itself
    shutil.rmtree(real.path)
    assert latest_run_for([scan]) == (old, (demo.path,))
    inside = phantoms / "images"
    for images in ([inside], [inside / "*.png"], [next(inside.iterdir()), phantoms]):
        assert latest_run_for(images) == (demo, ())


def test_one_image_elsewhere_is_enough(runs, scan, phantoms):
    runs("demo/run", 0)
    inside = next((phantoms / "images").iterdir())
    tricks = [[scan], [inside, scan], ["*.png"], [phantoms / "images" / ".." / ".." / "x.png"], ["missing.png"], []]
    for images in tricks:
        with pytest.raises(
            CxrfastError, match="the latest, runs/demo/run, learnt from phantoms, which are drawings"
        ) as no:
            latest_run_for(images)
        assert "--checkpoint runs/demo/run" in str(no.value)
        assert "\n" not in str(no.value)


def test_a_link_in_the_folder_to_an_image_elsewhere(runs, scan, phantoms, tmp_path):
    runs("demo/run", 0)
    os.symlink(phantoms, tmp_path / "link")
    assert latest_run_for([next((tmp_path / "link" / "images").iterdir())])[1] == ()


def test_weights_that_say_nothing_are_no_better(runs, scan, tmp_path):
    run = runs("old", 0, "{}")
    run.config.write_text(run.config.read_text().replace("data: ", "data: /nowhere"))
    with pytest.raises(CxrfastError, match="learnt from unknown images"):
        latest_run_for([scan])


def test_without_any_run(tmp_path, monkeypatch, scan):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CxrfastError, match="no trained model under runs/"):
        latest_run_for([scan])
