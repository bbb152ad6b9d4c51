"""Patches of boxes against a slow count of sub-pixels, and the numbers of the design on the real boxes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.data.datasets._chestxray14_boxes import read_boxes
from cxrfast.data.patches import boxes_to_aligned_patches, boxes_to_patches
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


IDENTITY = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]], dtype=torch.float64)
NAMES = ("half", "any", "center")


@settings(max_examples=40, deadline=None)
@given(box=a_box, grid=st.sampled_from((4, 8, 16)), rule=st.sampled_from(NAMES))
def test_aligned_patches_of_the_identity_are_those_of_the_image(box, grid, rule):
    """For boxes on the points where coverage is counted: both are then exact."""
    step = 256 // (8 * grid)
    left, top = box[0] // step * step, box[1] // step * step
    on_points = [
        left,
        top,
        left + max(1, (box[2] - box[0]) // step) * step,
        top + max(1, (box[3] - box[1]) // step) * step,
    ]
    boxes, has_box = torch.tensor([[[on_points]]]), torch.ones(1, 1, 1, dtype=torch.bool)
    aligned = boxes_to_aligned_patches(boxes, has_box, 256, grid, IDENTITY, rule=rule)
    assert torch.equal(aligned, boxes_to_patches(boxes, has_box, 256, grid, rule=rule))


def test_aligned_patches_of_a_turned_frame_against_a_slow_count():
    c, s = 0.9659258262890683, 0.25881904510252074  # 15 degrees
    theta = torch.tensor([[[1.1 * c, -0.9 * s, 0.1], [1.1 * s, 0.9 * c, -0.2]]], dtype=torch.float64)
    box, size, grid = (40.0, 60.0, 150.0, 200.0), 256, 8
    n = 20  # points along a patch
    (a, b, right), (d, e, down) = theta[0].tolist()
    count = torch.zeros(grid, grid)
    for i in range(grid * n):
        for j in range(grid * n):
            v, u = ((k + 0.5) / (grid * n) * 2 - 1 for k in (i, j))
            x, y = (a * u + b * v + right + 1) * size / 2, (d * u + e * v + down + 1) * size / 2
            if box[0] <= x < box[2] and box[1] <= y < box[3]:
                count[i // n, j // n] += 1
    covered = count / n**2
    boxes, has_box = torch.tensor([[[box]]]), torch.ones(1, 1, 1, dtype=torch.bool)
    half = boxes_to_aligned_patches(boxes, has_box, size, grid, theta)[0, 0]
    assert half[covered > 0.55].all()
    assert not half[covered < 0.45].any()
    some = boxes_to_aligned_patches(boxes, has_box, size, grid, theta, rule="any")[0, 0]
    assert some[covered > 0.05].all()
    assert not some[covered == 0].any()


def test_aligned_patches_of_several_boxes_and_images():
    shifted = IDENTITY.clone()
    shifted[0, 0, 2] = 1.0  # the frame begins in the middle of the image, and its right half is empty
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 8.0, 16.0, 16.0], [8.0, 0.0, 16.0, 8.0]]).expand(2, 2, 3, 4)
    has_box = torch.tensor([True, True, False]).expand(2, 2, 3).clone()
    has_box[1, 1] = False
    patches = boxes_to_aligned_patches(boxes, has_box, 16, 2, torch.cat([IDENTITY, shifted]))
    assert patches[0].tolist() == [[[True, False], [False, True]]] * 2
    assert patches[1, 0].tolist() == [[False, False], [True, False]]  # the first box has left the frame
    assert not patches[1, 1].any()
    none = boxes_to_aligned_patches(boxes, torch.zeros_like(has_box), 16, 2, torch.cat([IDENTITY, shifted]))
    assert not none.any()
    with pytest.raises(UsageError, match="most"):
        boxes_to_aligned_patches(boxes, has_box, 16, 2, IDENTITY, rule="most")
