"""Configurations: defaults of the method, one-line refusals, and the way to a file and back."""

import pytest

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.training import build_config, load_config, save_config


def test_the_papers_settings_are_the_defaults():
    config = build_config({"method": "rozenberg", "data": "x"})
    assert (config.image_size, config.batch_size, config.lr, config.weight_decay) == (512, 48, 1e-3, 0.01)
    assert (config.options["grid"], config.options["lambda_ann"], config.options["crf_kernel_size"]) == (20, 70.0, 19)
    assert config.options["backbone"] == "resnetv2_50"


def test_a_saved_configuration_is_the_same_when_read(tmp_path):
    config = build_config({"method": "li", "data": tmp_path, "lr": 3e-4, "options": {"floor": 0.98}})
    save_config(config, tmp_path / "config.yaml")
    assert build_config(load_config(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "x"}, "method: required"),
        ({"method": "li"}, "data: required"),
        ({"method": "le", "data": "x"}, "method: expected one of li, rozenberg, got 'le'"),
        ({"method": "li", "data": "x", "epoch": 3}, "epoch: unknown option; did you mean epochs?"),
        ({"method": "li", "data": "x", "epochs": 0}, "epochs: input should be greater than or equal to 1, got 0"),
        ({"method": "li", "data": "x", "lr": "fast"}, "lr: input should be a valid number.*got 'fast'"),
        ({"method": "li", "data": "x", "precision": "8"}, "precision: input should be '32', 'bf16' or '16', got '8'"),
        ({"method": "rozenberg", "data": "x", "options": {"lambda_an": 1}}, "did you mean lambda_ann"),
        ({"method": "li", "data": "x", "options": {"patch_rule": "all"}}, "options.patch_rule: .*got 'all'"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(UsageError, match=message) as refusal:
        build_config(settings)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"), [("a: [1", "not valid YAML"), ("- a\n- b\n", "expected 'name: value' lines, got list")]
)
def test_files_that_are_no_configuration(tmp_path, content, message):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(CxrfastError, match=message) as refusal:
        load_config(path)
    assert "\n" not in str(refusal.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match="config: cannot read .*nothing.yaml"):
        load_config(tmp_path / "nothing.yaml")
