"""The demo learns: the promise of the README, at the demo's own settings."""

import json

import pytest

from cxrfast.errors import UsageError
from cxrfast.experiments.demo import SETTINGS, SHARED, run_demo
from cxrfast.methods import METHODS
from cxrfast.training import build_config


def test_every_method_has_its_demo():
    assert list(SETTINGS) == ["rozenberg", *(name for name in METHODS if name != "rozenberg")]
    for method, settings in SETTINGS.items():
        build_config({**SHARED, **settings, "method": method, "data": "phantoms"})
    with pytest.raises(UsageError, match="method: expected one of rozenberg, li, .*got 'lee'"):
        run_demo(method="lee")


@pytest.mark.slow
def test_demo(tmp_path, logged):
    run = run_demo(tmp_path / "demo", seed=0)
    numbers = json.loads((run.path / "evaluation-test.json").read_text())
    assert numbers["mean"]["auroc"]["value"] > 0.85
    table = numbers["localization"]["tables"][0]  # IoU, without a gate
    assert table["rows"][0]["T"] == 0.1
    assert table["rows"][0]["mean"]["value"] > 0.5
    (picture,) = (tmp_path / "demo" / "localized").glob("*.png")
    found = json.loads(picture.with_suffix(".json").read_text())
    assert found["width"] == 256
    assert found["findings"]
    text = "\n".join(logged.messages)
    for path in (picture, run.best, run.metrics, run.path / "predictions.csv"):
        assert str(path) in text
        assert path.is_file()
    assert "Research use only" in text
