"""The best region on a grid against all regions there are, and its cost for annotations of many boxes."""

import functools
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cxrfast.evaluation.ground_truth import Units
from cxrfast.evaluation.oracle import oracle
from cxrfast.metrics import box_overlap, patch_overlap
from cxrfast.regions.rule import RegionRule

FINE = 12  # boxes lie on lines of twelfths, the largest beyond the image


@st.composite
def annotations(draw):
    """A grid, and annotations of one to three boxes, with their sides in twelfths."""
    grid = draw(st.sampled_from([(3, 3), (2, 4), (4, 1)]))
    side = st.tuples(st.integers(0, FINE - 1), st.integers(1, FINE)).map(lambda s: (s[0], s[0] + s[1]))
    box = st.tuples(side, side)
    return grid, draw(st.lists(st.lists(box, min_size=1, max_size=3), min_size=1, max_size=3))


def units_of(found, most):
    boxes, has = torch.zeros(len(found), most, 4, dtype=torch.float64), torch.zeros(len(found), most, dtype=torch.bool)
    for u, of in enumerate(found):
        for m, ((x1, x2), (y1, y2)) in enumerate(of):
            boxes[u, m], has[u, m] = torch.tensor([x1, y1, x2, y2], dtype=torch.float64) / FINE, True
    return Units(torch.arange(len(found)), torch.zeros(len(found), dtype=torch.long), boxes, has)


def cells_of(rows, columns, grid):
    """Cells of a twelfth by a twelfth in a box of patches."""
    height, width = FINE // grid[0], FINE // grid[1]
    return {
        (x, y) for y in range(rows[0] * height, rows[1] * height) for x in range(columns[0] * width, columns[1] * width)
    }


@functools.cache
def every_region(shape, grid):
    if shape == "patches":
        patches = [cells_of((p, p + 1), (q, q + 1), grid) for p in range(grid[0]) for q in range(grid[1])]
        some = itertools.chain.from_iterable(itertools.combinations(patches, n) for n in range(1, len(patches) + 1))
        return [set().union(*of) for of in some]
    sides = [list(itertools.combinations(range(count + 1), 2)) for count in grid]
    return [cells_of(rows, columns, grid) for rows, columns in itertools.product(*sides)]


@pytest.mark.parametrize("shape", ["patches", "boxes", "rectangle"])
@given(annotations())
def test_no_region_is_better_and_one_is_as_good(shape, case):
    grid, found = case
    units = units_of(found, 3)
    targets = [{(x, y) for (x1, x2), (y1, y2) in of for x in range(x1, x2) for y in range(y1, y2)} for of in found]
    regions = every_region(shape, grid)
    for measure in ("iou", "ior"):
        expected = [
            max(len(region & target) / len(region | target if measure == "iou" else region) for region in regions)
            for target in targets
        ]
        assert oracle(units, grid, RegionRule(shape), measure).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", ["patches", "boxes"])
def test_many_boxes_that_tile_a_region_have_its_oracle(shape):
    """64 boxes: what cost 2^boxes, or boxes^4, would not end."""
    tiles = [((x, x + 1), (y, y + 1)) for x in range(2, 10) for y in range(1, 9)]
    whole = units_of([[((2, 10), (1, 9))]], 1)
    for measure in ("iou", "ior"):
        found = oracle(units_of([tiles], 64), (20, 20), RegionRule(shape), measure)
        torch.testing.assert_close(found, oracle(whole, (20, 20), RegionRule(shape), measure), rtol=0, atol=1e-12)


@pytest.mark.parametrize("opening", [4, 5, 8, 11, 0.4])
@pytest.mark.parametrize("closing", [0, 5])
def test_an_opening_is_as_much_as_a_box_must_have(opening, closing):
    """All maps there are on 3×3 patches of 10/3 pixels, through the rule itself."""
    pixels = 10
    maps = (torch.arange(512)[:, None] >> torch.arange(9) & 1).view(512, 1, 3, 3).double()
    annotations = torch.tensor([[0, 0, 3, 3], [2, 1, 6, 9], [3, 3, 7, 7], [1, 4, 10, 6]]).double() / pixels
    units = Units(torch.arange(4), torch.zeros(4).long(), annotations[:, None], torch.ones(4, 1).bool())
    for shape in ("boxes", "rectangle", "patches"):
        rule = RegionRule(shape, opening=opening, closing=closing)
        found = rule.find(maps, torch.tensor([0.5]), image_size=pixels)
        for measure in ("iou", "ior"):
            if shape == "patches":
                masks = found.masks[:, 0]
                overlaps = [patch_overlap(masks, annotation.expand(512, 4)) for annotation in annotations]
            else:
                boxes = found.boxes.boxes.double() / 3
                overlaps = [box_overlap(boxes, annotation.expand(len(boxes), 4)) for annotation in annotations]
            best = [max(getattr(overlap, measure).tolist(), default=0.0) for overlap in overlaps]
            limit = oracle(units, (3, 3), rule, measure, pixels).tolist()
            if shape == "patches":
                assert all(b <= c + 1e-12 for b, c in zip(best, limit, strict=True))
            else:
                assert limit == pytest.approx(best, abs=1e-12)
