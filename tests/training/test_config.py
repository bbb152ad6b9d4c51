"""Configurations: defaults of the method, one-line refusals, and the way to a file and back."""

import pytest

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.runs.settings import load_config
from cxrfast.training import build_config, save_config


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
        ({"data": "x"}, "method: expected the name of a method, got none"),
        ({"method": "li"}, "data: expected the folder of a data set, got none; add --data DIR"),
        ({"method": ["li"], "data": "x"}, "method: expected one of li, rozenberg, .*got"),
        (
            {"method": "rozenberg", "data": "x", "options": {"crf_kernel_size": 4}},
            "options.crf_kernel_size: expected an odd number, got 4",
        ),
        ({"method": "le", "data": "x"}, "method: expected one of li, rozenberg, .*got 'le'"),
        ({"method": "li", "data": "x", "epoch": 3}, "epoch: unknown option; did you mean epochs?"),
        ({"method": "li", "data": "x", "epochs": 0}, "epochs: expected a number greater than or equal to 1, got 0"),
        ({"method": "li", "data": "x", "lr": "fast"}, "lr: expected a valid number.*got 'fast'"),
        ({"method": "li", "data": "x", "precision": "8"}, "precision: expected '32', 'bf16' or '16', got '8'"),
        ({"method": "rozenberg", "data": "x", "options": {"lambda_an": 1}}, "did you mean lambda_ann"),
        (
            {"method": "li", "data": "x", "operating_point": "sensitivity=2"},
            r"operating_point: expected youden, f1, .* \(a share in \(0, 1\]\), got 'sensitivity=2'$",
        ),
        ({"method": "li", "data": "x", "options": {"patch_rule": "all"}}, "options.patch_rule: .*got 'all'"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(UsageError, match=message) as refusal:
        build_config(settings)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("- a\n- b\n", r"config: expected 'name: value' lines in .*, got \['a', 'b'\]"),
        ("", "config: expected 'name: value' lines in .*, got None"),
        ("3: 4", "config: expected 'name: value' lines in .*, got {3: 4}"),
        ("options: 3", "config: expected 'name: value' lines under options in .*, got 3"),
        ("options:\n  3: 4", "config: expected 'name: value' lines under options in .*, got {3: 4}"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, content, message):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(CxrfastError, match=message) as refusal:
        load_config(path)
    assert "\n" not in str(refusal.value)


def test_what_yaml_reads_as_a_number_is_taken_as_written(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("method: li\ndata: x\nlabels: 2017\nprecision: 32\noptions:\n")
    config = build_config(load_config(path))
    assert (config.labels, config.precision) == ("2017", "32")


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match="config: cannot read .*nothing.yaml"):
        load_config(tmp_path / "nothing.yaml")
