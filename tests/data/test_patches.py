"""Patches of boxes against a slow count of sub-pixels, and the numbers of the design on the real boxes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.data._boxes import read_boxes
from cxrfast.data.patches import boxes_to_patches
from cxrfast.errors import UsageError


def coverage(box, image_size, grid):
    """[P, P] of one box, patch by patch."""
    side = image_size / grid
    covered = torch.zeros(grid, grid, dtype=torch.float64)
    for i in range(grid):
        for j in range(grid):
            height = min(box[3], (i + 1) * side) - max(box[1], i * side)
            width = min(box[2], (j + 1) * side) - max(box[0], j * side)
            covered[i, j] = max(height, 0) * max(width, 0) / side**2
    return covered


def one(box, image_size, grid, rule="half"):
    return boxes_to_patches(torch.tensor([box]), torch.tensor([True]), image_size, grid, rule=rule)


corner = st.integers(0, 255)
a_box = st.tuples(corner, corner, st.integers(1, 128), st.integers(1, 128)).map(
    lambda v: (float(v[0]), float(v[1]), float(min(v[0] + v[2], 256)), float(min(v[1] + v[3], 256)))
)


@settings(max_examples=60, deadline=None)
@given(box=a_box, grid=st.integers(1, 20))
def test_agrees_with_the_slow_count(box, grid):
    covered = coverage(box, 256, grid)
    assert torch.equal(one(box, 256, grid, "any"), covered > 1e-9)
    half = one(box, 256, grid)
    if (covered >= 0.5 + 1e-5).any():
        assert half[covered >= 0.5 + 1e-5].all()
        assert not half[covered < 0.5 - 1e-5].any()
    elif covered.max() < 0.5 - 1e-5:
        assert half.sum() == 1
        assert covered[half].item() == pytest.approx(covered.max().item(), abs=1e-5)
    assert half.any()


def test_fallback_is_the_first_in_raster_order():
    patches = one([7.0, 7.0, 9.0, 9.0], 16, 2)  # a quarter in each of four patches
    assert patches.tolist() == [[True, False], [False, False]]


def test_exactly_half_belongs():
    assert one([0.0, 0.0, 4.0, 8.0], 16, 2).tolist() == [[True, False], [False, False]]
    assert one([4.0, 0.0, 12.0, 8.0], 16, 2).tolist() == [[True, True], [False, False]]


def test_center():
    assert one([4.0, 4.0, 12.0, 12.0], 16, 2, "center").tolist() == [[True, False], [False, False]]
    assert not one([5.0, 5.0, 11.0, 11.0], 16, 2, "center").any()


def test_union_of_several_boxes_and_leading_dimensions():
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 8.0, 16.0, 16.0], [0.0, 8.0, 8.0, 16.0]]).expand(2, 5, 3, 4)
    has_box = torch.tensor([True, True, False]).repeat(2, 5, 1)
    has_box[1, 4] = False
    patches = boxes_to_patches(boxes, has_box, 16, 2)
    assert patches.shape == (2, 5, 2, 2)
    assert patches[0, 0].tolist() == [[True, False], [False, True]]
    assert not patches[1, 4].any()


def test_no_box_no_patch():
    for rule in ("half", "any", "center"):
        assert not boxes_to_patches(torch.zeros(3, 1, 4), torch.zeros(3, 1, dtype=torch.bool), 64, 8, rule=rule).any()
        assert not boxes_to_patches(torch.zeros(3, 1, 4), torch.ones(3, 1, dtype=torch.bool), 64, 8, rule=rule).any()
        assert boxes_to_patches(torch.zeros(0, 1, 4), torch.ones(0, 1) > 0, 64, 8, rule=rule).shape == (0, 8, 8)


def test_wrong_use():
    with pytest.raises(UsageError, match="most"):
        one([0.0, 0.0, 1.0, 1.0], 16, 2, "most")
    with pytest.raises(ValueError, match="expected boxes"):
        boxes_to_patches(torch.zeros(3, 4), torch.zeros(2, dtype=torch.bool), 16, 2)


def test_real_boxes_on_a_20_by_20_grid(real_data):
    """Best IoU that each rule allows, over the 984 boxes: the reason for the default."""
    table = read_boxes(real_data / "nih" / "BBox_List_2017.csv", [])
    boxes = torch.tensor([box for of in table.values() for several in of.values() for box in several]) * 512
    assert len(boxes) == 984
    covered = torch.stack([coverage(box.tolist(), 512, 20) for box in boxes])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).double() / (512 / 20) ** 2

    def reachable(rule):
        patches = boxes_to_patches(boxes[:, None], torch.ones(984, 1, dtype=torch.bool), 512, 20, rule=rule)
        intersection = (covered * patches).sum(dim=(1, 2))
        iou = intersection / (area + patches.sum(dim=(1, 2)) - intersection)
        return (iou >= 0.5).float().mean().item(), int((~patches.any(dim=(1, 2))).sum())

    share, empty = reachable("any")
    assert round(share, 2) == 0.77
    assert empty == 0
    assert reachable("center")[1] == 9
    share, empty = reachable("half")
    assert round(share, 2) == 0.91
    assert empty == 0
