"""Rozenberg's localisation accuracy against exact rational arithmetic, and its edges by hand."""

import csv
import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.metrics.overlap import best_overlap, grid_oracle, localization_accuracy, patch_overlap

TWELFTHS = 12  # boxes of the property test lie on twelfths of the image, inside or a bit outside


@st.composite
def scenes(draw):
    """A region on a P×Q grid, and one to three boxes."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    region = draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    boxes = []
    for _ in range(draw(st.integers(1, 3))):
        x1, y1 = draw(st.integers(-2, TWELFTHS)), draw(st.integers(-2, TWELFTHS))
        boxes.append((x1, y1, x1 + draw(st.integers(1, 8)), y1 + draw(st.integers(1, 8))))
    return rows, columns, region, boxes


def exact_areas(rows, columns, region, boxes):
    """Areas |D∩G|, |D|, |G| by counting the cells of a lattice on which all lines of both lie."""
    patches = {(index // columns, index % columns) for index, positive in enumerate(region) if positive}
    fine_y, fine_x = TWELFTHS * rows, TWELFTHS * columns
    box = {
        (y, x)
        for x1, y1, x2, y2 in boxes
        for y in range(y1 * rows, y2 * rows)
        for x in range(x1 * columns, x2 * columns)
    }
    patch = {(y, x) for y in range(fine_y) for x in range(fine_x) if (y // TWELFTHS, x // TWELFTHS) in patches}
    return [Fraction(len(cells), fine_y * fine_x) for cells in (box & patch, patch, box)]


@given(scenes())
def test_areas_are_exact(scene):
    rows, columns, region, boxes = scene
    intersection, region_area, box_area = exact_areas(*scene)
    overlap = patch_overlap(
        torch.tensor(region).reshape(1, rows, columns), torch.tensor([boxes], dtype=torch.float64) / TWELFTHS
    )
    union = region_area + box_area - intersection
    expected = [
        intersection,
        region_area,
        box_area,
        intersection / union,
        intersection / region_area if region_area else 0,
    ]
    for actual, value in zip([*overlap, overlap.iou, overlap.ior], expected, strict=True):
        assert actual.dtype == torch.float64
        assert actual.item() == pytest.approx(float(value), abs=1e-12)


def test_pairs_do_not_mix():
    """N at once equals one by one, and the slots of absent boxes do not count."""
    generator = torch.Generator().manual_seed(0)
    regions = torch.rand(40, 20, 20, generator=generator) < 0.3
    corner = torch.rand(40, 3, 2, generator=generator)
    boxes = torch.cat([corner, corner + 0.01 + torch.rand(40, 3, 2, generator=generator)], dim=-1)
    has_box = torch.rand(40, 3, generator=generator) < 0.5
    has_box[:, 1] = True
    boxes[~has_box] = 0
    together = patch_overlap(regions, boxes, has_box)
    for n in range(40):
        alone = patch_overlap(regions[n : n + 1], boxes[n : n + 1, has_box[n]])
        for all_values, value in zip(together, alone, strict=True):
            assert all_values[n].item() == pytest.approx(value.item(), abs=1e-12)


def test_an_empty_region_is_a_miss():
    overlap = patch_overlap(torch.zeros(1, 4, 4, dtype=torch.bool), torch.tensor([[0.25, 0.25, 0.5, 0.5]]))
    assert overlap.iou == 0
    assert overlap.ior == 0
    assert localization_accuracy(overlap.ior, torch.tensor([0]), 1, 0.1).hits == 0


def test_a_perfect_region_scores_one():
    region = torch.zeros(1, 4, 4, dtype=torch.bool)
    region[0, 1:3, 0:2] = True
    overlap = patch_overlap(region, torch.tensor([[0.0, 0.25, 0.5, 0.75]]))
    assert overlap.iou == 1
    assert overlap.ior == 1


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_overlap_equal_to_t_is_a_hit(threshold, dtype):
    """The whole image as region and a box of T of its area: IoU is T in arithmetic, but not in floating point."""
    regions = torch.ones(1, 20, 20, dtype=torch.bool)
    overlap = patch_overlap(regions, torch.tensor([[0.3, 0.0, 0.3 + threshold, 1.0]], dtype=dtype))
    assert localization_accuracy(overlap.iou, torch.tensor([0]), 1, threshold).hits == 1
    smaller = patch_overlap(regions, torch.tensor([[0.3, 0.0, 0.3 + threshold - 1e-4, 1.0]], dtype=dtype))
    assert localization_accuracy(smaller.iou, torch.tensor([0]), 1, threshold).hits == 0


def test_accuracy_per_class():
    overlap = torch.tensor([0.05, 0.2, 0.1, 0.9])
    accuracy, hits, boxes = localization_accuracy(overlap, torch.tensor([0, 0, 2, 2]), 4, 0.1)
    assert hits.tolist() == [1, 0, 2, 0]
    assert boxes.tolist() == [2, 0, 2, 0]
    assert accuracy[0] == 0.5
    assert accuracy[2] == 1
    assert accuracy[[1, 3]].isnan().all()


def test_nothing_to_score():
    overlap = patch_overlap(torch.zeros(0, 4, 4, dtype=torch.bool), torch.zeros(0, 1, 4))
    accuracy, _, boxes = localization_accuracy(overlap.iou, torch.zeros(0, dtype=torch.int64), 2, 0.1)
    assert accuracy.isnan().all()
    assert boxes.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("regions", "boxes", "has_box", "message"),
    [
        (torch.zeros(1, 4, 4), torch.zeros(1, 4), None, "expected bool regions"),
        (torch.zeros(1, 4, 4, dtype=torch.bool), torch.zeros(2, 4), None, "for 1 regions"),
        (torch.zeros(1, 4, 4, dtype=torch.bool), torch.zeros(1, 4), None, "without area"),
        (
            torch.zeros(1, 4, 4, dtype=torch.bool),
            torch.zeros(1, 1, 4),
            torch.zeros(1, 1, dtype=torch.bool),
            "expected a box for every region",
        ),
    ],
)
def test_refuses(regions, boxes, has_box, message):
    with pytest.raises(ValueError, match=message):
        patch_overlap(regions, boxes, has_box)
    with pytest.raises(ValueError, match="expected overlap and class_index"):
        localization_accuracy(torch.zeros(2), torch.zeros(3), 4, 0.1)


def test_any_of_several_regions_may_match():
    """The best IoU and the best IoR are those of different regions here."""
    small, large = torch.zeros(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)
    small[0, 0] = True  # within the box
    large[:2, :3] = True  # the box and two patches more
    boxes, has_box = torch.tensor([[[0.0, 0.0, 0.5, 0.5]]]), torch.ones(1, 1, dtype=torch.bool)
    found = best_overlap(torch.stack([small, large])[None], boxes, has_box)
    assert found.iou.tolist() == pytest.approx([4 / 6])
    assert found.ior.tolist() == pytest.approx([1.0])


@settings(max_examples=30)
@given(scenes())
def test_the_best_region_of_patches_is_the_best_of_all(scene):
    *_, boxes = scene
    box = torch.tensor(boxes[:1], dtype=torch.float64) / TWELFTHS
    regions = torch.tensor(list(itertools.product([False, True], repeat=9))).reshape(-1, 3, 3)
    best = patch_overlap(regions, box.expand(len(regions), 4)).iou.max()
    assert grid_oracle(box, 3).item() == pytest.approx(best.item(), abs=1e-12)


def test_ceilings_of_the_released_boxes(real_data):
    """The numbers that docs/evaluation.md gives for ChestX-ray14."""
    with (real_data / "nih" / "BBox_List_2017.csv").open(newline="") as file:
        rows = [[float(value) for value in row[2:6]] for row in list(csv.reader(file))[1:]]
    x, y, w, h = torch.tensor(rows, dtype=torch.float64).T / 1024
    boxes = torch.stack([x, y, x + w, y + h], dim=1)
    assert len(boxes) == 984
    reached = {
        rule: [round(100 * (grid_oracle(boxes, 20, rule) >= t).double().mean().item(), 1) for t in (0.1, 0.5, 0.7)]
        for rule in ("best", "half", "any", "center")
    }
    assert reached == {
        "best": [100.0, 94.4, 72.1],
        "half": [100.0, 91.4, 71.4],
        "any": [100.0, 77.1, 40.1],
        "center": [99.1, 91.7, 71.0],
    }
