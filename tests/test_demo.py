"""The demo learns: the promise of the README, at the demo's own settings."""

import json

import pytest

from cxrfast.demo import DEMOS, demo_settings, run_demo
from cxrfast.methods import METHODS
from cxrfast.training import build_config


@pytest.mark.parametrize("method", DEMOS)
def test_every_demo_is_a_small_run_of_its_method(method, tmp_path):
    config = build_config({**demo_settings(method), "data": tmp_path})
    network = METHODS[method](["Mass", "Nodule"], config.image_size, config.method_options())
    assert sum(parameter.numel() for parameter in network.parameters()) < 3e6


@pytest.mark.slow
def test_demo(tmp_path):
    said = []
    run = run_demo(tmp_path / "demo", seed=0, say=said.append)
    means = json.loads((run.path / "evaluation-test.json").read_text())["mean"]
    assert means["auroc"]["value"] > 0.85
    assert means["iou_accuracy"]["value"] > 0.5
    (picture,) = (tmp_path / "demo" / "localized").glob("*.png")
    found = json.loads(picture.with_suffix(".json").read_text())
    assert found["width"] == 256
    assert found["findings"]
    text = "\n".join(said)
    for path in (picture, run.best, run.metrics, run.path / "predictions.csv"):
        assert str(path) in text
        assert path.is_file()
    assert "Research use only" in text
