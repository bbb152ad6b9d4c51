"""Phantoms: the layout, the truth of their labels and boxes, and their reproducibility."""

import time
from collections import Counter

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.data.datasets.chestxray14 import read_chestxray14
from cxrfast.data.images import read_image
from cxrfast.data.labels import BOXED_CLASSES
from cxrfast.data.phantoms import writing as phantom_module
from cxrfast.data.phantoms.anatomy import Chest, Pose
from cxrfast.data.phantoms.lesions import draw_lesion, region_box
from cxrfast.data.phantoms.writing import draw_build, draw_phantom, write_phantoms
from cxrfast.data.splits import PARTS, make_splits
from cxrfast.errors import CxrfastError, UsageError

SIZE = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("phantoms") / "data", images=120, image_size=SIZE, progress=False)


def test_layout_is_that_of_chestxray14(folder):
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "images",
        "Data_Entry_2017.csv",
        "BBox_List_2017.csv",
        "train_val_list.txt",
        "test_list.txt",
        "README.txt",
        "phantoms.json",
    }
    assert "SYNTHETIC" in (folder / "README.txt").read_text()
    assert (folder / "BBox_List_2017.csv").read_text().startswith("Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
    data = read_chestxray14(folder)
    assert len(data.records) == 120
    assert {record.split for record in data.records} == {"train_val", "test"}
    assert read_image(data.records[0].path).shape == (SIZE, SIZE)


def test_labels_and_boxes(folder):
    data = read_chestxray14(folder)
    assert not any("labels lack" in note for note in data.notes)
    classes = Counter(name for record in data.records for name in record.labels)
    assert set(classes) == set(BOXED_CLASSES)
    healthy = sum(not record.labels for record in data.records) / 120
    assert 0.25 < healthy < 0.5
    assert any(len(record.labels) > 1 for record in data.records)
    assert all(record.boxes.keys() == record.labels for record in data.records if record.split == "test")
    train_val = [record for record in data.records if record.split == "train_val"]
    boxed = sum(len(record.boxes) for record in train_val) / sum(len(record.labels) for record in train_val)
    assert 0.15 < boxed < 0.45
    assert len({record.patient for record in data.records}) < 120
    splits = make_splits(data.records, seed=0)
    assert all(any(record.boxes for record in splits.part(part, data.records)) for part in PARTS)


def test_boxes_lie_where_the_table_says(folder):
    """The table's fractions give back the pixels that were drawn."""
    rows = {record.image: record for record in read_chestxray14(folder).records}
    drawn = draw_phantom(0, 1, 0, SIZE)
    record = rows["00000001_000.png"]
    np.testing.assert_array_equal(cv2.imread(str(record.path), cv2.IMREAD_UNCHANGED), drawn.image)
    assert record.labels == set(drawn.boxes)
    for name, (box,) in record.boxes.items():
        np.testing.assert_allclose(np.array(box) * SIZE, drawn.boxes[name], atol=1e-3)


def test_image_i_does_not_depend_on_how_many_follow(tmp_path, folder):
    few = write_phantoms(tmp_path / "few", images=7, image_size=SIZE, progress=False)
    for path in (few / "images").iterdir():
        assert path.read_bytes() == (folder / "images" / path.name).read_bytes()
    other = write_phantoms(tmp_path / "other", images=2, image_size=SIZE, seed=1, progress=False)
    first = next((other / "images").iterdir())
    assert first.read_bytes() != (folder / "images" / first.name).read_bytes()


def test_number_of_patients(tmp_path):
    root = write_phantoms(tmp_path / "x", images=12, image_size=64, patients=5, progress=False)
    records = read_chestxray14(root).records
    assert len({record.patient for record in records}) == 5
    assert len(records) == 12


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**40), index=st.integers(0, 10**6), size=st.integers(64, 200))
def test_boxes_are_inside_and_of_their_classes_size(seed, index, size):
    phantom = draw_phantom(seed, 1, index, size)
    assert phantom.image.shape == (size, size)
    assert phantom.image.dtype == np.uint8
    for name, (x0, y0, x1, y1) in phantom.boxes.items():
        assert 0 <= x0 < x1 <= size
        assert 0 <= y0 < y1 <= size
        longer = max(x1 - x0, y1 - y0) / size
        assert longer > 0.06 - 1 / size  # of which a pixel at either end may round away
        if name == "Nodule":
            assert longer < 0.13
        if name == "Mass":
            assert 0.12 < longer < 0.28


@pytest.mark.parametrize("name", sorted(set(BOXED_CLASSES) - {"Cardiomegaly"}))
def test_a_lesion_changes_its_box_and_little_else(name):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        chest = Chest(draw_build(seed, 1), Pose.draw(rng), 128, rng)
        lesion = draw_lesion(name, chest, rng, np.zeros((128, 128), bool))
        assert lesion is not None
        x0, y0, x1, y1 = region_box(lesion.region)
        changed = np.abs(lesion.density) > 0.1
        inside = np.zeros_like(changed)
        inside[max(y0 - 3, 0) : y1 + 3, max(x0 - 3, 0) : x1 + 3] = True
        # the fluid of an effusion goes on behind the heart, the line of a pneumothorax beyond its air
        assert (changed & inside).sum() > 0.7 * changed.sum()
        assert changed[lesion.region].mean() > 0.3
        assert chest.visible_lung[lesion.region].mean() > 0.7


def test_an_enlarged_heart_is_wider():
    widths = {True: [], False: []}
    for index in range(60):
        build, rng = draw_build(0, index), np.random.default_rng(index)
        for big in (False, True):
            chest = Chest(build, Pose.draw(rng), 96, rng, heart_scale=1.5 if big else 1.0)
            x0, _, x1, _ = region_box(chest.heart > 0.5)
            widths[big].append((x1 - x0) / 96 / (2 * build.lung_width))
    assert max(widths[False]) < 0.5 < min(widths[True])  # the cardiothoracic ratio, roughly


def test_looks_like_a_radiograph():
    """Lungs darker than the mediastinum and the flanks, air around the neck darkest, nothing saturated."""
    for index in range(8):
        image = draw_phantom(3, index + 1, index, 128).image / 255
        lung, middle = np.median(image[45:70, 25:45]), np.median(image[60:90, 60:68])
        assert middle > lung + 0.15
        assert image[4:10, 10:20].mean() < lung
        assert (image > 0.99).mean() < 0.12


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def interrupt(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw_phantom(*arguments)

    monkeypatch.setattr(phantom_module, "draw_phantom", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path / "x", images=5, image_size=64, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_never_overwrites(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UsageError, match="is not empty"):
        write_phantoms(tmp_path, images=1, image_size=64, progress=False)
    with pytest.raises(UsageError, match="is a file"):
        write_phantoms(tmp_path / "mine.txt", images=1, image_size=64, progress=False)
    (tmp_path / "empty").mkdir()
    write_phantoms(tmp_path / "empty", images=1, image_size=64, progress=False)
    with pytest.raises(CxrfastError, match="cannot be written"):
        write_phantoms(tmp_path / "mine.txt" / "x", images=1, image_size=64, progress=False)
    assert (tmp_path / "mine.txt").read_text() == "keep me"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 0}, "number of images is 0"),
        ({"image_size": 10}, "image size is 10"),
        ({"seed": -1}, "seed is -1"),
        ({"boxed_fraction": 1.5}, "boxed fraction is 1.5"),
        ({"images": 3, "patients": 4}, "number of patients is 4"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        write_phantoms(tmp_path / "x", **options)


def test_is_quick_enough_for_a_demo():
    begin = time.process_time()
    for index in range(10):
        draw_phantom(0, index + 1, index, 256)
    assert time.process_time() - begin < 5  # about 0.3 s on one idle core
