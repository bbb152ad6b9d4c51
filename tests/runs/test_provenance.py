"""Weights say what they learnt from, and what follows from it."""

import json
import re
from datetime import date

import pytest
from safetensors.torch import load_file, save_file

import cxrfast
from cxrfast.data import Splits, read_data
from cxrfast.errors import CxrfastError
from cxrfast.inference import load_predictor
from cxrfast.runs import RunDirectory, read_weights
from cxrfast.runs.latest import learnt_from
from cxrfast.runs.provenance import DRAWN_IMAGES, KEY, OTHER_IMAGES, ClassProvenance, Provenance

REAL = {"data": "nih", "layout": "chestxray14", "synthetic": False, "images": 1200, "boxed_images": 30}


def without(run, target, *keys, **changes):
    """The weights of a run without some of their metadata, as an earlier version wrote them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata = {key: value for key, value in read_weights(run.best)[0].items() if key not in keys}
    save_file(load_file(run.best), str(target), {**metadata, **changes})
    return target


def test_what_training_knows_is_in_the_weights(trained, phantoms):
    found = learnt_from(RunDirectory(trained).best)
    records = read_data(phantoms).records
    splits = Splits.load(RunDirectory(trained).splits)
    train, val = splits.part("train", records), splits.part("val", records)
    assert (found.data, found.layout, found.synthetic, found.label_version) == ("phantoms", "chestxray14", True, "2017")
    assert (found.images, found.boxed_images) == (len(train), sum(bool(record.boxes) for record in train))
    assert (found.image_size, found.operating_point) == (64, "youden")
    assert (found.cxrfast, found.date) == (cxrfast.__version__, date.today().isoformat())
    assert tuple(found.classes) == load_predictor(trained).class_names
    for name, of_class in found.classes.items():
        assert of_class.positives == sum(name in record.labels for record in train)
        positive = sum(name in record.labels for record in val)
        assert (of_class.validation_positives, of_class.validation_negatives) == (positive, len(val) - positive)
        assert of_class.operating_point_note == f"{positive} known positive{'s' * (positive != 1)}, fewer than 10"
    best = [row for row in RunDirectory(trained).read_metrics() if row["best"]][-1]
    for key, name in (("val_auroc", "auroc"), ("val_iou_accuracy", "localization")):
        values = [value for row in found.classes.values() if (value := getattr(row, name)) is not None]
        assert sum(values) / len(values) == pytest.approx(best[key], abs=1e-5)


def test_weights_of_earlier_versions_are_known_by_the_data_of_their_run(trained, tmp_path):
    run = RunDirectory(trained)
    alone = learnt_from(without(run, tmp_path / "alone.safetensors", KEY))
    assert (alone.synthetic, alone.classes, alone.label_version) == (None, {}, "2017")
    assert str(alone) == f"unknown (weights of cxrfast {cxrfast.__version__})"
    assert alone.warnings == ("what these weights learnt from is unknown: they do not say it",)
    assert load_predictor(tmp_path / "alone.safetensors").provenance == alone
    copied = RunDirectory(tmp_path / "copy")
    without(run, copied.best, KEY)
    copied.config.write_text(run.config.read_text())
    assert learnt_from(copied.best).synthetic is True
    assert "drawings" in learnt_from(copied.best).warnings[0]
    real = tmp_path / "real"
    real.mkdir()
    copied.config.write_text(re.sub(r"data: .*", f"data: {real}", run.config.read_text()))
    assert learnt_from(copied.best).synthetic is False
    copied.config.write_text(re.sub(r"data: .*", f"data: {tmp_path / 'gone'}", run.config.read_text()))
    assert learnt_from(copied.best).synthetic is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"images": "many"}', '{"classes": {"Mass": {"auroc": [1]}}}', "null"]
)
def test_damaged_entries_are_one_line(trained, tmp_path, content):
    path = without(RunDirectory(trained), tmp_path / "x.safetensors", **{KEY: content})
    with pytest.raises(CxrfastError, match=r"x.safetensors does not say correctly what it learnt from") as refusal:
        load_predictor(path)
    assert "\n" not in str(refusal.value)


def test_some_classes_under_other_names(trained):
    model = load_predictor(trained)
    first, second, *_ = model.class_names
    found = model.with_outputs({second: "Other", first: first}).provenance
    assert found.classes == {"Other": model.provenance.classes[second], first: model.provenance.classes[first]}
    assert found.facts == model.provenance.facts
    assert Provenance().of_classes({"Mass": "Mass"}).classes == {}


def test_what_a_later_version_adds_is_ignored():
    assert Provenance.read({KEY: json.dumps({**REAL, "protocol": "x"})}, "w").synthetic is False


@pytest.mark.parametrize(
    ("of_class", "at_chance"),
    [
        ({}, False),
        ({"auroc": 0.8, "auroc_interval": (0.7, 0.9)}, False),
        ({"auroc": 0.8, "auroc_interval": (0.5, 0.95)}, True),
        ({"auroc": 0.59, "auroc_interval": (0.55, 0.63)}, True),
        ({"auroc": 0.61, "auroc_interval": (0.58, 0.64)}, False),
        ({"auroc": 0.61}, False),
        ({"auroc": 0.3, "auroc_interval": (0.2, 0.4)}, True),
    ],
)
def test_at_chance(of_class, at_chance):
    assert ClassProvenance(**of_class).at_chance == at_chance
    warnings = Provenance(**REAL, classes={"Mass": ClassProvenance(**of_class)}).warnings
    assert len(warnings) == at_chance
    if at_chance:
        assert f"Mass (AUROC {of_class['auroc']:.2f}, 95 % {of_class['auroc_interval'][0]:.2f}–" in warnings[0]


def test_every_pair_of_weights_and_images():
    real, drawn, unknown = (Provenance(**{**REAL, "synthetic": synthetic}) for synthetic in (False, True, None))
    assert real.warnings_for(synthetic=False) == ()
    assert real.warnings_for(synthetic=True) == (DRAWN_IMAGES,)
    assert drawn.warnings_for(synthetic=False) == (*drawn.warnings, OTHER_IMAGES)
    assert drawn.warnings_for(synthetic=True) == (*drawn.warnings, DRAWN_IMAGES)
    assert drawn.warnings[0].startswith("weights learnt from drawings, not from people")
    assert unknown.warnings_for(synthetic=False) == unknown.warnings != ()
    assert str(real).startswith("1,200 X-rays of nih, 30 with boxes; chestxray14")
