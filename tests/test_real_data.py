"""On real chest X-rays: methods train on the partial copy; boxes come in pixels of the original; published AUROCs."""

import csv
import json
import os
from pathlib import Path

import pytest
import torch

from cxrfast.data import read_chestxray14
from cxrfast.experiments.evaluate_run import evaluate_run
from cxrfast.inference import load_predictor, localize
from cxrfast.metrics import auroc
from cxrfast.runs import RunDirectory
from cxrfast.training import build_config, train

SETTINGS = {"method": "rozenberg", "image_size": 64, "epochs": 1, "batch_size": 32, "device": "cpu"}
OPTIONS = {
    "backbone": "resnetv2_nano",
    "grid": 8,
    "hidden": 16,
    "output_stride": 8,
    "guide_channels": 4,
    "crf_kernel_size": 5,
    "crf_epochs": 1,
}


@pytest.mark.slow
def test_train_and_localize(real_data, tmp_path, logged):
    config = build_config({**SETTINGS, "options": OPTIONS, "data": real_data / "nih"})
    run = train(config, tmp_path / "run")
    assert any(": 515; the others are left out" in message for message in logged.messages)
    rows = RunDirectory(run.path).read_metrics()
    assert [row["stage"] for row in rows] == ["unary", "crf"]
    model = load_predictor(run.path)
    assert len(model.class_names) == 14
    model.thresholds[:] = 0.0  # an untrained map: every patch is in the region, so each class has one box
    original = localize(model, real_data / "nih" / "originals" / "00000004_000.png", top=14)
    copy = localize(model, real_data / "nih" / "images" / "00000004_000.png", top=14)
    for result, size in ((original, 1024), (copy, 512)):
        content = json.loads(result.to_json())
        assert (content["width"], content["height"]) == (size, size)
        assert {tuple(box["xyxy"]) for f in content["findings"] for box in f["boxes"]} == {(0, 0, size, size)}


@pytest.mark.slow
def test_distance_learning(real_data, tmp_path):
    (tmp_path / "nih").mkdir()
    for path in (real_data / "nih").iterdir():  # hashes are kept beside the data: here, not there
        (tmp_path / "nih" / path.name).symlink_to(path)
    options = {"backbone": "densenet_nano"}
    settings = {"method": "zhang", "epochs": 1, "device": "cpu", "options": options, "data": tmp_path / "nih"}
    run = train(build_config(settings), tmp_path / "run")
    assert (tmp_path / "nih" / "cxrfast_hashes.npz").is_file()
    result = evaluate_run(run.path).result
    assert result.n_images == 103
    assert 0 <= result.mean_auroc.value <= 1
    found = localize(load_predictor(run.path), real_data / "nih" / "originals" / "00000004_000.png", top=14)
    assert (found.width, found.height) == (1024, 1024)


def test_published_aurocs_of_another_project(real_data):
    """Predictions for 22,433 test images and the AUROCs that their authors computed with scikit-learn: the files
    preds.csv and aucs.csv in the folder `pretrained` of github.com/jrzech/reproduce-chexnet."""
    folder = os.environ.get("CXRFAST_TEST_CHEXNET")
    if folder is None:
        pytest.skip("set CXRFAST_TEST_CHEXNET to the folder `pretrained` of reproduce-chexnet")
    with (Path(folder) / "aucs.csv").open(newline="") as file:
        published = {row["label"]: float(row["auc"]) for row in csv.DictReader(file)}
    with (Path(folder) / "preds.csv").open(newline="") as file:
        predicted = {row["Image Index"]: row for row in csv.DictReader(file)}
    records = read_chestxray14(real_data / "nih", labels="2020", images_required=False).records
    records = [record for record in records if record.image in predicted]
    assert len(records) == len(predicted) == 22433
    scores = torch.tensor([[float(predicted[record.image][f"prob_{k}"]) for k in published] for record in records])
    labels = torch.tensor([[float(k in record.labels) for k in published] for record in records])
    torch.testing.assert_close(
        auroc(scores, labels), torch.tensor(list(published.values()), dtype=torch.float64), atol=1e-6, rtol=0
    )
