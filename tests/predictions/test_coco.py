"""COCO's data sets with scores and lists of results."""

import json

import numpy as np
import pytest
import torch

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.predictions.files import read_files

DATASET = {
    "images": [
        {"id": 4, "file_name": "images_001/images/a.png", "width": 64, "height": 32},
        {"id": 9, "file_name": "b.png", "width": 8, "height": 8},
    ],
    "categories": [{"id": 7, "name": "Mass"}, {"id": 90, "name": "Nodule"}],
}
RESULTS = [{"image_id": 4, "category_id": 90, "bbox": [16, 8, 32, 8], "score": 0.25}]


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def region(tmp_path, **entry):
    whole = {**DATASET, "annotations": [{"image_id": 4, "category_id": 7, "score": 0.5, **entry}]}
    return read_files([write(tmp_path / "p.json", whole)], ())


def test_a_list_of_results_with_the_file_of_its_data_set(tmp_path):
    """cocoapi#195: results have ids only. The ground truth beside them is not taken for predictions."""
    results = write(tmp_path / "results.json", RESULTS)
    truth = [{"id": 1, "image_id": 9, "category_id": 7, "bbox": [0, 0, 4, 4]}]
    data = write(tmp_path / "instances.json", {**DATASET, "annotations": truth})
    for files, given in (([results, data], None), ([data, results], None), ([results], data)):
        found = read_files(files, (), given)
        (only,) = found.regions
        assert (only.image, only.class_name, only.score) == ("images_001/images/a.png", "Nodule", 0.25)
        assert only.xyxy == (0.25, 0.25, 0.75, 0.5)
        assert list(found.images) == ["images_001/images/a.png", "b.png"]
        assert list(found.region_classes) == ["Mass", "Nodule"]
        noted = "instances.json has no scores: only its images and categories are used, not its annotations"
        assert found.notes == ([] if given else [noted])


def test_a_list_of_results_alone_is_refused(tmp_path):
    results = write(tmp_path / "results.json", RESULTS)
    for data in (None, tmp_path, write(tmp_path / "other.json", {"a": 1})):
        with pytest.raises(CxrfastError, match="results.json is a list of results with ids only; give the COCO file"):
            read_files([results], (), data)
    data = write(tmp_path / "instances.json", {**DATASET, "annotations": []})
    twin = write(tmp_path / "twin.json", {**DATASET, "annotations": []})
    with pytest.raises(UsageError, match="instances.json and .*twin.json both name images and categories"):
        read_files([results, data, twin], ())
    for entry, message in (
        ({**RESULTS[0], "image_id": 5}, "annotation 0: image_id 5 is not among the 'images'"),
        ({key: RESULTS[0][key] for key in ("image_id", "category_id", "bbox")}, "annotation 0: no 'score'; add it"),
    ):
        with pytest.raises(CxrfastError, match=message):
            read_files([write(results, [entry]), data], ())


@pytest.mark.parametrize("empty", [None, [], [[]], [[], []], {}])
def test_an_empty_segmentation_is_no_mask(empty, tmp_path):
    (only,) = region(tmp_path, segmentation=empty, bbox=[16, 8, 32, 8]).regions
    assert only.mask is None
    assert only.xyxy == (0.25, 0.25, 0.75, 0.5)


def test_polygons_are_drawn(tmp_path):
    polygons = [[16, 8, 48, 8, 48, 16, 16, 16], [16.6, 20.6, 18.4, 20.6, 18.4, 22.4, 16.6, 22.4], []]
    (only,) = region(tmp_path, segmentation=polygons, bbox=[0, 0, 64, 32]).regions
    expected = np.zeros((32, 64), dtype=bool)
    expected[8:16, 16:48] = True
    expected[21:22, 17:18] = True  # the one pixel whose centre lies in the second polygon
    mask = torch.zeros(32, 64, dtype=torch.bool)
    top, left = only.mask.corner
    mask[top : top + only.mask.inside.shape[0], left : left + only.mask.inside.shape[1]] = only.mask.inside
    assert only.mask.size == (32, 64)
    assert np.array_equal(mask.numpy(), expected)
    assert only.xyxy == (0.25, 0.25, 0.75, 22 / 32)


def test_masks_without_a_pixel_are_counted(tmp_path):
    for nothing in ([[3.1, 3.1, 3.2, 3.1, 3.2, 3.2]], [[70, 1, 80, 1, 80, 9]], {"counts": [2048]}):
        found = region(tmp_path, segmentation=nothing, bbox=[0, 0, 4, 4])
        assert found.regions == []
        assert found.notes == ["1 masks of p.json have no pixel: left out"]


@pytest.mark.parametrize(
    "bad", [[[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [["a", 1, 2, 3, 4, 5]], [7], [[1, 2, 3, 4, 5, None]]]
)
def test_damaged_polygons(bad, tmp_path):
    with pytest.raises(CxrfastError, match="annotation 0: a polygon is .*; expected .x1, y1, x2, y2, x3, y3"):
        region(tmp_path, segmentation=bad, bbox=[0, 0, 4, 4])
