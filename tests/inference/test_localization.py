"""Boxes are where the map is hot, in the pixels of the file that was given, whatever its size and shape."""

import json

import cv2
import numpy as np
import pytest
import torch

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.inference import NOTICE, localize, localize_many
from tests.predictors import FakePredictor, constant_answer

CLASSES = ("Mass", "Nodule", "Hernia")
SIZE, GRID = 64, 20


def hot_maps() -> torch.Tensor:
    """Mass has two regions that touch nowhere, Nodule one, Hernia none."""
    maps = torch.full((3, GRID, GRID), 0.1)
    maps[0, 2:5, 3:10] = 0.6
    maps[0, 3, 4] = 0.9
    maps[0, 18:, 19:] = 0.5
    maps[1, 10, 10] = 0.8
    maps[1, 11, 11] = 0.7
    return maps


def predictor(scores=(0.9, 0.5, 0.4)) -> FakePredictor:
    return FakePredictor(CLASSES, SIZE, constant_answer(list(scores), hot_maps()))


def write_image(path, height=40, width=60):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8))
    return path


def test_boxes_in_original_pixels_of_an_image_that_is_not_square(tmp_path):
    result = localize(predictor(), write_image(tmp_path / "x.png", height=200, width=600))
    assert (result.width, result.height) == (600, 200)
    mass, nodule, hernia = result.classes
    assert [box.xyxy for box in mass.boxes] == [(90, 20, 300, 50), (570, 180, 600, 200)]
    assert [box.confidence for box in mass.boxes] == pytest.approx([0.9, 0.5])
    assert mass.boxes[0].mean == pytest.approx((20 * 0.6 + 0.9) / 21)
    assert mass.boxes[0].area == pytest.approx(21 * 30 * 10)
    # Patches that touch at a corner are one region, which is smaller than its box
    assert [box.xyxy for box in nodule.boxes] == [(300, 100, 360, 120)]
    assert nodule.boxes[0].area == pytest.approx(2 * 30 * 10)
    assert hernia.boxes == ()
    assert torch.equal(result.maps, hot_maps())


def test_the_last_patch_ends_with_the_image():
    for width in (1, 7, 333, 1841, 2991):
        image = np.zeros((width + 1, width), np.float32)
        box = localize(predictor(), image).classes[0].boxes[1]
        assert box.xyxy[2:] == (width, width + 1)


def test_what_is_reported(tmp_path):
    image = write_image(tmp_path / "x.png")
    assert [finding.name for finding in localize(predictor(), image).findings] == ["Mass", "Nodule"]
    assert [finding.name for finding in localize(predictor((0.6, 0.7, 0.1)), image).findings] == ["Nodule", "Mass"]
    assert localize(predictor(), image, score_threshold=0.95).findings == ()
    best = localize(predictor(), image, top=3).findings
    assert [(finding.name, finding.detected) for finding in best] == [
        ("Mass", True),
        ("Nodule", True),
        ("Hernia", False),
    ]


def test_json(tmp_path):
    image = write_image(tmp_path / "brust röntgen.png", height=200, width=600)
    result = localize(predictor((0.9, 0.1, 0.6)), image)
    result.save_json(tmp_path / "out.json")
    text = (tmp_path / "out.json").read_text(encoding="utf-8")
    data = json.loads(text)
    assert data["notice"] == NOTICE
    assert data["image"] == str(image)
    assert (data["width"], data["height"]) == (600, 200)
    assert data["model"] == {
        "method": "fake",
        "weights": "runs/fake/weights/best.safetensors",
        "label_version": "v2020",
        "image_size": SIZE,
    }
    assert data["scores"] == {"Mass": 0.9, "Nodule": 0.1, "Hernia": 0.6}
    assert [finding["class"] for finding in data["findings"]] == ["Mass", "Hernia"]
    assert data["findings"][0]["boxes"][0] == {
        "xyxy": [90, 20, 300, 50],
        "confidence": 0.9,
        "mean": pytest.approx(0.614286, abs=1e-6),
        "area": 6300,
    }
    assert data["findings"][1]["boxes"] == []
    assert '"xyxy": [90.0, 20.0, 300.0, 50.0]' in text


def test_an_array_is_localized_as_its_file_is(tmp_path):
    path = write_image(tmp_path / "x.png")
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
    from_array = localize(predictor(), image)
    assert from_array.source is None
    assert from_array.classes == localize(predictor(), path).classes
    for wrong in (np.zeros((4, 4), np.uint8), np.full((4, 4), 2.0), np.full((4, 4), np.nan), np.zeros((4, 4, 3))):
        with pytest.raises(
            ValueError, match=r"image: expected (floating-point values \[H, W\]|values in \[0, 1\]), got"
        ):
            localize(predictor(), wrong)


def test_user_errors(tmp_path):
    image = write_image(tmp_path / "x.png")
    with pytest.raises(CxrfastError, match=r"missing\.png"):
        localize(predictor(), tmp_path / "missing.png")
    with pytest.raises(UsageError, match=r"score-threshold: expected a number in \[0, 1\], got 50"):
        localize(predictor(), image, score_threshold=50)
    with pytest.raises(UsageError, match="top: expected a number of classes of at least 1, got 0"):
        localize(predictor(), image, top=0)
    broken = FakePredictor(CLASSES, SIZE, constant_answer([0.5, float("nan"), 0.5], hot_maps()))
    with pytest.raises(CxrfastError, match="not a number"):
        localize(broken, image)


def test_a_batch_goes_on_past_bad_files(tmp_path):
    write_image(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_text("no image")
    write_image(tmp_path / "in" / "below" / "a.png", height=50)
    out = tmp_path / "in" / "out"
    inputs = [tmp_path / "in", tmp_path / "missing.png"]
    batch = localize_many(predictor(), inputs, out)
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*.*"))
    assert written == ["a.json", "a.png", "below/a.json", "below/a.png"]
    assert [output.source for output in batch.outputs] == [
        tmp_path / "in" / "a.png",
        tmp_path / "in" / "below" / "a.png",
    ]
    assert json.loads(batch.outputs[1].json.read_text())["height"] == 50
    assert [finding.name for finding in batch.outputs[0].findings] == ["Mass", "Nodule"]
    assert list(batch.failures) == [str(tmp_path / "in" / "b.png"), str(tmp_path / "missing.png")]
    # Once more: its own pictures are not taken for radiographs
    assert len(localize_many(predictor(), inputs, out, overwrite=True).outputs) == 2


def test_a_batch_never_overwrites_its_inputs(tmp_path):
    image = write_image(tmp_path / "x.png")
    before = image.read_bytes()
    with pytest.raises(UsageError, match="out: expected a folder without input images, got .*, which could be overwr"):
        localize_many(predictor(), [image], tmp_path)
    assert image.read_bytes() == before
    with pytest.raises(UsageError, match="top: expected a number of classes of at least 1, got 0"):
        localize_many(predictor(), [image], tmp_path / "out", top=0)


def test_two_patients_with_one_file_name(tmp_path):
    for patient, height in (("p1", 40), ("p2", 50)):
        write_image(tmp_path / "scans" / patient / "IM0001.png", height=height)
    first, second = (tmp_path / "scans" / patient for patient in ("p1", "p2"))
    out = tmp_path / "out"
    # In one call
    localize_many(predictor(), [first, second], out)
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.json")) == ["p1/IM0001.json", "p2/IM0001.json"]
    for patient, height in (("p1", 40), ("p2", 50)):
        assert json.loads((out / patient / "IM0001.json").read_text())["height"] == height
    assert len(localize_many(predictor(), [tmp_path / "scans"], tmp_path / "same").outputs) == 2
    assert (tmp_path / "same" / "p2" / "IM0001.png").is_file()
    # In two calls: the second is refused before any work, and changes nothing
    other = tmp_path / "other"
    localize_many(predictor(), [first], other)
    before = {path: path.read_bytes() for path in other.iterdir()}
    called = []
    busy = FakePredictor(CLASSES, SIZE, lambda image: called.append(image))
    write_image(second / "IM0000.png")
    problem = r"expected no results of these images, got .*IM0001\.json and 1 more; .*--overwrite"
    with pytest.raises(UsageError, match=problem):
        localize_many(busy, [second], other)
    assert called == []
    assert {path: path.read_bytes() for path in other.iterdir()} == before
    localize_many(predictor(), [second], other, overwrite=True)
    assert json.loads((other / "IM0001.json").read_text())["height"] == 50


def test_a_picture_that_cannot_be_drawn_leaves_no_json(tmp_path, monkeypatch):
    write_image(tmp_path / "in" / "a.png")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    batch = localize_many(predictor(), [tmp_path / "in"], tmp_path / "out")
    assert "a.png cannot be written (No space left on device)" in batch.failures[str(tmp_path / "in" / "a.png")]
    assert list((tmp_path / "out").iterdir()) == []


def test_an_image_above_the_limit_fails_alone(tmp_path):
    write_image(tmp_path / "in" / "a.png")
    write_image(tmp_path / "in" / "b.png", height=50)
    batch = localize_many(predictor(), [tmp_path / "in"], tmp_path / "out", max_pixels=40 * 60)
    assert [output.source.name for output in batch.outputs] == ["a.png"]
    assert "declares 60×50 pixels, more than 2400" in batch.failures[str(tmp_path / "in" / "b.png")]


def bright_spot_predictor() -> FakePredictor:
    """The map is the image itself, averaged over patches and stretched: hot where the radiograph is bright."""

    def answer(image):
        patches = torch.nn.functional.adaptive_avg_pool2d(image[None], GRID)[0]
        heat = ((patches + 1) / 2).clamp(0.01, 0.99)
        return torch.tensor([0.9]), (heat / heat.max() * 0.99)[None]

    return FakePredictor(("Bright",), 100, answer, threshold=0.9)


def test_real_radiographs_and_their_half_size_copies(real_data):
    for original in sorted((real_data / "nih" / "originals").glob("*.png"))[:4]:
        full = localize(bright_spot_predictor(), original)
        assert (full.width, full.height) == (1024, 1024)
        assert full.classes[0].boxes
        for box in full.classes[0].boxes:
            x1, y1, x2, y2 = (round(value * GRID / 1024) for value in box.xyxy)
            assert full.maps[0, y1:y2, x1:x2].max() == pytest.approx(box.confidence)
        maps = full.maps
        same = FakePredictor(("Bright",), 100, constant_answer([0.9], maps), threshold=0.9)
        half = localize(same, real_data / "nih" / "images" / original.name)
        assert (half.width, half.height) == (512, 512)
        for large, small in zip(full.classes[0].boxes, half.classes[0].boxes, strict=True):
            assert tuple(value / 2 for value in large.xyxy) == small.xyxy
            assert large.area / 4 == small.area


def test_a_dicom_file_that_is_not_square(real_data):
    result = localize(predictor(), real_data / "dicom" / "pydicom_RG1_J2KI.dcm")
    assert (result.width, result.height) == (1841, 1955)
    x1, y1, x2, y2 = result.classes[0].boxes[0].xyxy
    assert (x1, x2) == (3 * 1841 / 20, 10 * 1841 / 20)
    assert (y1, y2) == (2 * 1955 / 20, 5 * 1955 / 20)
