"""A linear probe over folds, against plain computation, and the tables that methods and probe make."""

import csv
import io
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

import cxrfast
from cxrfast.data import FoldSplits, make_folds, read_chestxray14
from cxrfast.errors import UsageError
from cxrfast.experiments.cross_validation import cross_validate
from cxrfast.experiments.transfer import compare, linear_probe, pooled_features, probe_folds, runs_csv, to_markdown
from cxrfast.experiments.transfer.probe import STRENGTHS, _fit
from cxrfast.methods import get_method
from cxrfast.models import create_backbone
from cxrfast.predictions.table import read_predictions
from cxrfast.training import build_config
from tests.data.test_splits import make_records


@pytest.fixture(scope="module")
def crossed(phantoms, tmp_path_factory):
    """Two folds of all phantoms by chexnet, from weights in a file. Not to be changed."""
    folder = tmp_path_factory.mktemp("transfer")
    torch.manual_seed(0)
    save_file(create_backbone("resnet_nano", in_chans=3).state_dict(), str(folder / "start.safetensors"))
    options = {"backbone": "resnet_nano", "pretrained": str(folder / "start.safetensors"), "upsample": 2}
    settings = {"method": "chexnet", "data": phantoms, "image_size": 64, "epochs": 1, "options": options}
    config = build_config({**settings, "device": "cpu", "val_share": 0})
    return cross_validate(config, folds=2, of="all", val_share=0.0, out=folder / "crossed")


def test_features_are_means_of_the_map(phantoms):
    options = get_method("chexnet").Options(backbone="resnet_nano", input_mean=[0.4, 0.5], input_std=[0.2, 0.3])
    records = read_chestxray14(phantoms).records[:5]
    torch.manual_seed(0)
    found = pooled_features(options, records, 64, batch_size=2)
    torch.manual_seed(0)
    backbone, scaling = options.build_backbone(64).eval(), options.build_scaling()
    from cxrfast.data import XrayDataset

    images = torch.stack([item["image"] for item in XrayDataset(records, ("",), 64)])
    with torch.inference_mode():
        maps = backbone(scaling(images))
    np.testing.assert_allclose(found, maps.flatten(2).mean(dim=2).numpy(), rtol=1e-4, atol=1e-5)


def test_each_image_is_scored_by_a_classifier_of_other_patients(monkeypatch):
    """With the strength given, the probabilities are those of scikit-learn on the other folds."""
    monkeypatch.setattr("cxrfast.experiments.transfer.probe.STRENGTHS", (0.1,))
    records = make_records([2] * 40)
    rng = np.random.default_rng(0)
    labels = rng.random((80, 2)) < 0.3
    features = rng.normal(size=(80, 6)) + labels @ rng.normal(size=(2, 6))
    splits = make_folds(records, folds=4, of="all", validation=0.2, seed=1)
    prob = probe_folds(features, labels, records, splits)
    assert not np.isnan(prob).any()
    names = [record.image for record in records]
    for fold in splits.folds:
        test = np.isin(names, fold.test)
        assert not {r.patient for r, t in zip(records, test, strict=True) if t} & {
            r.patient for r, t in zip(records, test, strict=True) if not t
        }
        scaler = StandardScaler().fit(features[~test])
        for k in range(2):
            fitted = LogisticRegression(C=0.1, max_iter=1000).fit(scaler.transform(features[~test]), labels[~test, k])
            expected = fitted.predict_proba(scaler.transform(features[test]))[:, 1]
            np.testing.assert_allclose(prob[test, k], expected, rtol=1e-6)
    assert np.mean([roc_auc_score(labels[:, k], prob[:, k]) for k in range(2)]) > 0.6


def test_the_strength_is_chosen_inside_the_training_part():
    """Noise in many dimensions calls for a strong penalty; which one is no business of the tested images."""
    from cxrfast.experiments.transfer.probe import _choose

    rng = np.random.default_rng(1)
    labels = rng.random((120, 1)) < 0.4
    features = np.concatenate([labels + rng.normal(size=(120, 1)), rng.normal(size=(120, 300))], axis=1)
    patients = np.array([str(n // 2) for n in range(120)])
    assert _choose(features, labels, patients) in STRENGTHS
    assert _choose(features, np.zeros((120, 1), bool), patients) == STRENGTHS[0]  # nothing to choose by


def test_probe_and_methods_beside_each_other(crossed, tmp_path):
    probe = tmp_path / "probe.csv"
    found = linear_probe(crossed)
    found.write_csv(probe)
    assert sorted(found.images) == sorted(
        i for fold in FoldSplits.load(crossed / "splits.json").folds for i in fold.test
    )
    comparison = compare({"chexnet": crossed, "again": crossed}, probe, positives=5)
    assert list(comparison.auroc) == ["linear probe", "chexnet", "again"]
    assert comparison.n_images == 40
    runs = [read_predictions(crossed / f"fold-{fold}/seed-0/predictions.csv") for fold in (0, 1)]
    for k, name in enumerate(comparison.class_names):
        column = found.class_names.index(name)
        assert comparison.n_positive[k] == found.labels[:, column].sum() >= 5
        own = roc_auc_score(found.labels[:, column], found.prob[:, column])
        assert comparison.auroc["linear probe"][0].value[k].item() == pytest.approx(own)
        column = runs[0].class_names.index(name)
        labels, prob = (torch.cat([getattr(run, key)[:, column] for run in runs]) for key in ("labels", "prob"))
        assert comparison.auroc["chexnet"][0].value[k].item() == pytest.approx(roc_auc_score(labels, prob), abs=1e-6)
    means = {name: of[1].value.item() for name, of in comparison.auroc.items()}
    difference = comparison.difference["chexnet"].difference.item()
    assert difference == pytest.approx(means["chexnet"] - means["linear probe"])
    assert list(comparison.difference) == ["chexnet", "again"]
    text = to_markdown(comparison)
    assert f"{means['chexnet']:.3f} (" in text
    assert "| boxes found, of all folds | chexnet | again |" in text
    rare = compare({"chexnet": crossed}, probe, positives=39)
    assert rare.class_names == ()
    lines = list(csv.DictReader(io.StringIO(runs_csv({"a": crossed}))))
    assert [(line["row"], line["fold"], line["seed"], line["epochs"]) for line in lines] == [
        ("a", "0", "0", "1"),
        ("a", "1", "0", "1"),
    ]
    assert sum(int(line["n_images"]) for line in lines) == 40
    assert all(math.isfinite(float(line["mean_auroc"])) for line in lines)


def test_the_commands(crossed, tmp_path):
    module = [sys.executable, "-m", "cxrfast.experiments.transfer"]

    def run(*words, check=True):
        """Run in an empty folder: in the project's own, the uncompiled package would hide the installed one."""
        environment = {**os.environ, "PYTHONPATH": str(Path(cxrfast.__file__).parents[1])}
        options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "check": check}
        return subprocess.run([*module, *words], **options)

    probe, out = tmp_path / "p" / "probe.csv", tmp_path / "table"
    done = run("probe", crossed, "--out", probe)
    assert "40 images" in done.stdout
    done = run("table", f"chexnet={crossed}", "--probe", probe, "--out", out, "--positives", "5")
    assert out.with_suffix(".md").read_text().strip() == done.stdout.strip()
    assert out.with_suffix(".csv").read_text().startswith("row,method,fold")
    done = run("table", str(crossed), "--out", out, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "expected NAME=FOLDER" in done.stderr


def test_wrong_use(crossed, tmp_path, phantoms):
    unfinished = shutil.copytree(crossed, tmp_path / "unfinished")
    text = (unfinished / "cross-validation.json").read_text()
    (unfinished / "cross-validation.json").write_text(
        text.replace('"complete": true', '"complete": false').replace('"missing": []', '"missing": ["fold-1/seed-0"]')
    )
    with pytest.raises(UsageError, match="expected all runs to be finished, got none of fold-1/seed-0"):
        compare({"a": unfinished})
    other = shutil.copytree(crossed, tmp_path / "other")
    shutil.copy(other / "fold-0/seed-0/predictions.csv", other / "fold-1/seed-0/predictions.csv")
    with pytest.raises(UsageError, match="b: expected the test images of the first, got others"):
        compare({"a": crossed, "b": other})
    config = build_config({"method": "chexnet", "data": phantoms, "options": {"backbone": "resnet_nano"}})
    random = tmp_path / "random"
    shutil.copytree(crossed, random)
    settings = (random / "config.yaml").read_text()
    (random / "config.yaml").write_text(
        "\n".join("  pretrained: false" if "pretrained:" in line else line for line in settings.splitlines())
    )
    assert not config.options["pretrained"]
    with pytest.raises(UsageError, match="expected a cross-validation with pretrained weights, got chexnet without"):
        linear_probe(random)


def test_unknown_labels_do_not_train_the_probe():
    """As if the images were left out, but for the standardisation, which takes all images."""
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(60, 4)), (random.random((60, 2)) < 0.5).astype(float)
    unknown = np.arange(60) < 30
    found = _fit(features, np.where(unknown[:, None], np.nan, labels), features, 1.0)
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    by_hand = []
    for k in range(2):
        model = LogisticRegression(C=1.0, max_iter=1000).fit(x[~unknown], labels[~unknown, k])
        by_hand.append(model.predict_proba(x)[:, 1])
    np.testing.assert_allclose(found, np.stack(by_hand, axis=1), rtol=0, atol=1e-9)
