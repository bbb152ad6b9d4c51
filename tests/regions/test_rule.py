"""Rules from maps to regions, against plain loops over scipy's components."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from cxrfast.errors import UsageError
from cxrfast.regions.rule import RegionRule

EIGHT = np.ones((3, 3), dtype=int)


def one_box(mask: np.ndarray) -> tuple[int, ...]:
    y, x = mask.nonzero()
    return (int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)


def plain_components(values: np.ndarray, threshold: float) -> list[np.ndarray]:
    labels, count = ndimage.label(values >= threshold, structure=EIGHT)
    return [labels == i for i in range(1, count + 1)]


def plain_selection(values: np.ndarray, threshold: float, select: str) -> list[np.ndarray]:
    components = plain_components(values, threshold)
    if select == "all" or not components:
        return components
    if select == "largest":
        return [max(components, key=lambda mask: mask.sum())]
    return [max(components, key=lambda mask: values[mask].max())]


@st.composite
def cases(draw):
    shape = draw(st.tuples(*(st.integers(1, high) for high in (2, 3, 7, 6))))
    # Few distinct values: ties, and thresholds that are reached exactly.
    values = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(1, 10, shape) / 10
    return torch.from_numpy(values), torch.from_numpy(np.full(shape[1], draw(st.integers(1, 10)) / 10))


@given(cases(), st.sampled_from(["all", "largest", "peak"]), st.sampled_from(["patches", "boxes", "rectangle"]))
def test_rules_agree_with_plain_loops(case, select, shape):
    maps, thresholds = case
    regions = RegionRule(shape, select).find(maps, thresholds)
    images, classes = maps.shape[:2]
    image, channel = torch.cartesian_prod(torch.arange(images), torch.arange(classes)).T
    candidates = regions.candidates(image, channel)
    found = regions.boxes
    for b, k, masks in zip(image.tolist(), channel.tolist(), candidates.numpy(), strict=True):
        values = maps[b, k].numpy()
        components = plain_selection(values, float(thresholds[k]), select)
        union = np.any(components, axis=0) if components else np.zeros(values.shape, dtype=bool)
        rows = ((found.image == b) & (found.channel == k)).nonzero()[:, 0]
        boxes = [tuple(int(c) for c in found.boxes[row]) for row in rows]
        expected = [one_box(mask) for mask in components]
        if shape == "rectangle":
            expected = [one_box(union)] if components else []
        assert sorted(boxes) == sorted(expected)
        assert int(found.area[rows].sum()) == union.sum()
        if components:
            assert float(found.peak[rows].max()) == values[union].max()
            assert float((found.mean * found.area)[rows].sum()) == pytest.approx(values[union].sum())
        if shape == "patches":
            assert (masks[0] == union).all()
        else:
            drawn = [one_box(mask) for mask in masks if mask.any()]
            assert sorted(drawn) == sorted(expected)
            assert all(mask.sum() == (b[2] - b[0]) * (b[3] - b[1]) for mask, b in zip(masks, drawn, strict=False))


def test_levels_give_regions_of_their_own():
    maps = torch.tensor([[[[0.3, 0.9, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0]]]])
    regions = RegionRule("boxes", levels=(60 / 255, 180 / 255)).find(maps, torch.tensor([0.99]))
    assert regions.boxes.boxes.tolist() == [[0, 0, 3, 1], [1, 0, 2, 1]]
    candidates = regions.candidates(torch.tensor([0]), torch.tensor([0]))
    assert candidates.sum(dim=(2, 3)).tolist() == [[3, 1]]
    with pytest.raises(UsageError, match="levels: expected shape"):
        RegionRule(levels=(0.2, 0.7))


def test_a_gate_is_a_score_to_exceed():
    maps = torch.ones(2, 1, 2, 2)
    rule = RegionRule(gate=0.5)
    regions = rule.find(maps, torch.tensor([0.5]), scores=torch.tensor([[0.5], [0.51]]))
    assert regions.masks.sum(dim=(1, 2, 3)).tolist() == [0, 4]
    with pytest.raises(ValueError, match="scores"):
        rule.find(maps, torch.tensor([0.5]))


@given(st.integers(2, 8), st.integers(0, 2**32 - 1), st.sampled_from(["opening", "closing", "both"]))
def test_opening_and_closing_agree_with_scipys_of_the_upsampled_map(size, seed, kind):
    maps = torch.from_numpy(np.random.default_rng(seed).random((1, 2, 6, 6)))
    names = ("opening", "closing") if kind == "both" else (kind,)
    for sides in (dict.fromkeys(names, size), dict.fromkeys(names, size / 12)):  # in pixels, and as a share
        regions = RegionRule(**sides).find(maps, torch.full((2,), 0.4, dtype=torch.float64), image_size=12)
        for k in range(2):
            mask = (maps[0, k].numpy() >= 0.4).repeat(2, 0).repeat(2, 1)
            expected = np.pad(mask, 20)  # scipy's closing eats from the border
            for name in names:
                expected = getattr(ndimage, f"binary_{name}")(expected, np.ones((size, size)))
            found = regions.masks[0, k].numpy().repeat(2, 0).repeat(2, 1)
            assert (found == expected[20:-20, 20:-20]).all()


def test_a_closing_joins_what_is_near():
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 1:3, [1, 2, 4]] = 0.6
    maps[0, 0, 1:3, 7] = 0.9
    rule, threshold = RegionRule("boxes", closing=0.25), torch.tensor([0.5])  # two patches
    assert rule.find(maps, threshold).boxes.boxes.tolist() == [[1, 1, 5, 3], [7, 1, 8, 3]]
    wider = RegionRule("boxes", "peak", closing=3 / 8)
    assert wider.find(maps, threshold).boxes.boxes.tolist() == [[1, 1, 8, 3]]
    opened = RegionRule("boxes", opening=0.25, closing=3 / 8).find(maps, threshold).boxes.boxes.tolist()
    assert opened == [[1, 1, 3, 3]]  # first


def test_a_side_in_pixels_needs_an_image_and_a_share_does_not():
    maps, threshold = torch.ones(1, 1, 4, 8), torch.tensor([0.5])
    for name in ("opening", "closing"):
        with pytest.raises(ValueError, match="image_size: expected the number of pixels"):
            RegionRule(**{name: 2}).find(maps, threshold)
        assert RegionRule(**{name: 2}).needs_image_size
        assert RegionRule(**{name: 0.5}).find(maps, threshold).masks.all()
        assert not RegionRule(**{name: 0.5}).needs_image_size
        for side in (-1, float("nan"), float("inf")):
            with pytest.raises(UsageError, match=f"{name}: expected a number of pixels or a share .* got {side}"):
                RegionRule(**{name: side})
    rule = RegionRule()
    assert [rule.square(side, (4, 8), 64) for side in (0, 1, 2, 8, 8.5, 16, 17, 1 / 8, 0.126)] == [
        (1, 1), (1, 1), (1, 1), (1, 1), (1, 2), (1, 2), (2, 3), (1, 1), (1, 2),
    ]  # fmt: skip


def test_an_opening_removes_thin_regions():
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 1:4, 1:4] = 0.6
    maps[0, 0, 6, :] = 0.9
    regions = RegionRule("boxes", "peak", opening=2).find(maps, torch.tensor([0.5]), image_size=8)
    assert regions.boxes.boxes.tolist() == [[1, 1, 4, 4]]


@pytest.mark.parametrize("rule", [RegionRule(), RegionRule("rectangle"), RegionRule("boxes", "peak")])
def test_nothing_over_the_threshold_and_no_images(rule):
    none = rule.find(torch.zeros(2, 3, 4, 4), torch.full((3,), 0.5))
    assert len(none.boxes.boxes) == 0
    assert not none.candidates(torch.tensor([0, 1]), torch.tensor([2, 0])).any()
    empty = rule.find(torch.zeros(0, 3, 4, 4), torch.full((3,), 0.5))
    assert len(empty.boxes.boxes) == 0
    assert len(empty.candidates(torch.tensor([], dtype=torch.long), torch.tensor([], dtype=torch.long))) == 0


def test_a_rule_says_what_it_is():
    assert str(RegionRule()) == "patches of every component, map ≥ the threshold"
    rule = RegionRule("boxes", "peak", opening=3, gate=0.5)
    assert str(rule) == (
        "box around the component of the maximum, map ≥ the threshold, opened by 3 pixels, where the score is over 0.5"
    )
    shares = RegionRule("boxes", opening=1 / 16, closing=1 / 8)
    assert str(shares).endswith("map ≥ the threshold, opened by 6.25 % of the side, closed by 12.5 % of the side")
