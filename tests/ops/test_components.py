"""component_boxes and component_boxes_static against their references, on known maps and on extreme scores."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast import reference
from cxrfast.ops import (
    ComponentBoxes,
    StaticComponentBoxes,
    component_boxes,
    component_boxes_static,
    connected_components,
)
from tests.ops.inputs import FLOATS, LAYOUTS, random, random_mask, tensor
from tests.tolerances import assert_close

SELECTIONS = ("all", "largest", "peak")


def check_boxes(scores, threshold, **options):
    actual, expected = (
        component_boxes(scores, threshold, **options),
        reference.component_boxes(scores, threshold, **options),
    )
    assert isinstance(actual, ComponentBoxes)
    for a, e in zip(actual, expected, strict=True):
        assert a.is_contiguous()
        assert_close(a, e)
    assert torch.equal(actual.peak, expected.peak)
    return actual


def check_static_boxes(scores, threshold, **options):
    actual, expected = (
        component_boxes_static(scores, threshold, **options),
        reference.component_boxes_static(scores, threshold, **options),
    )
    assert isinstance(actual, StaticComponentBoxes)
    for a, e in zip(actual, expected, strict=True):
        assert a.is_contiguous()
        assert_close(a, e)
    return actual


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("select", SELECTIONS)
def test_boxes_equal_reference(dtype, layout, select):
    scores = tensor((2, 3, 9, 11), dtype=dtype, layout=layout)
    threshold = torch.tensor([0.0, 0.5, -0.5], dtype=dtype)
    for connectivity in (4, 8):
        for min_area in (0, 1, 3):
            found = check_boxes(scores, threshold, select=select, connectivity=connectivity, min_area=min_area)
            assert found.area.numel() > 0
    check_boxes(scores, 0.3, select=select)


@settings(max_examples=120, deadline=None)
@given(
    batch=st.integers(0, 2),
    channels=st.integers(0, 3),
    height=st.integers(0, 9),
    width=st.integers(0, 9),
    levels=st.integers(1, 4),
    threshold=st.sampled_from([-1, 0.0, 0.25, 0.5, 1.0, float("inf"), float("-inf"), float("nan")]),
    select=st.sampled_from(SELECTIONS),
    connectivity=st.sampled_from([4, 8]),
    min_area=st.integers(0, 5),
    dtype=st.sampled_from(FLOATS),
    seed=st.integers(0, 1000),
)
def test_boxes_equal_reference_for_any_shape(
    batch, channels, height, width, levels, threshold, select, connectivity, min_area, dtype, seed
):
    # Few levels make ties of area and of peak, and NaN holes.
    scores = random(torch.randint, 0, levels + 1, (batch, channels, height, width), seed=seed) / levels
    scores[random(torch.rand, scores.shape, seed=seed + 1) < 0.1] = float("nan")
    check_boxes(scores.to(dtype), threshold, select=select, connectivity=connectivity, min_area=min_area)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(1, 2, 6, 63), (2, 1, 5, 64), (1, 3, 66, 65), (2, 1, 130, 33), (1, 1, 2, 4500)])
@pytest.mark.parametrize("density", [0.3, 0.6, 0.97, 1.0])
def test_large_maps_and_long_runs(shape, density, dtype):
    scores = tensor(shape, dtype=dtype, scale=1e-3) - (~random_mask(shape, density)).to(dtype)
    for connectivity in (4, 8):
        check_boxes(scores, -0.5, connectivity=connectivity)
        expected = reference.connected_components(scores >= -0.5, connectivity=connectivity)
        assert_close(connected_components(scores >= -0.5, connectivity=connectivity), expected)


def test_a_known_map():
    scores = torch.tensor(
        [
            [0.9, 0.0, 0.0, 0.6, 0.6],
            [0.0, 0.0, 0.0, 0.6, 0.0],
            [0.5, 0.7, 0.0, 0.0, 0.9],
        ]
    )[None, None]
    assert component_boxes(scores, 0.5).boxes.tolist() == [[0, 0, 1, 1], [3, 0, 5, 3], [0, 2, 2, 3]]
    found = component_boxes(scores, 0.5, connectivity=4)
    assert found.boxes.tolist() == [[0, 0, 1, 1], [3, 0, 5, 2], [0, 2, 2, 3], [4, 2, 5, 3]]
    assert found.boxes.dtype == torch.float32
    assert found.area.tolist() == [1, 3, 2, 1]
    assert_close(found.peak, torch.tensor([0.9, 0.6, 0.7, 0.9]))
    assert_close(found.mean, torch.tensor([0.9, 0.6, 0.6, 0.9]))
    assert component_boxes(scores, 0.5, select="largest").boxes.tolist() == [[3, 0, 5, 3]]
    assert component_boxes(scores, 0.5, select="peak").boxes.tolist() == [[0, 0, 1, 1]]
    assert component_boxes(scores, 0.5, select="peak", min_area=2, connectivity=4).boxes.tolist() == [[0, 2, 2, 3]]
    assert component_boxes(scores, 1.0, select="peak").boxes.shape == (0, 4)


def test_peak_takes_the_first_highest_pixel_not_the_first_component():
    scores = torch.tensor([[0.5, 0.0, 1.0], [1.0, 0.0, 0.0]])[None, None]
    assert component_boxes(scores, 0.5, select="peak").boxes.tolist() == [[2, 0, 3, 1]]
    assert component_boxes(scores, 0.5, select="largest").boxes.tolist() == [[0, 0, 1, 2]]


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_score_equal_to_the_threshold_is_foreground(dtype):
    for value in (0.1, 0.7, 0.3):
        scores = torch.full((1, 1, 2, 2), value, dtype=dtype)
        assert component_boxes(scores, value).area.tolist() == [4]
        assert component_boxes(scores, torch.tensor([value], dtype=dtype)).area.tolist() == [4]
        assert component_boxes(scores, torch.tensor(value, dtype=torch.float64)).area.tolist() == [4]


def test_extreme_scores():
    nan = torch.full((1, 1, 3, 3), float("nan"))
    assert component_boxes(nan, float("-inf")).area.numel() == 0
    infinite = torch.full((1, 1, 3, 3), float("inf"))
    assert component_boxes(infinite, 50.0).mean.tolist() == [float("inf")]
    check_boxes(tensor((1, 2, 6, 6), scale=50), -50.0)
    half = torch.full((1, 1, 200, 200), 60000.0, dtype=torch.float16)
    assert component_boxes(half, 0.0).mean.tolist() == [60000.0]
    assert component_boxes(half, 1e6).area.numel() == 0


@pytest.mark.parametrize("dtype", FLOATS)
def test_infinite_scores_of_both_signs(dtype):
    inf = float("inf")
    scores = torch.tensor([[inf, 1.0], [float("nan")] * 2, [-inf, 1.0], [float("nan")] * 2, [inf, -inf]], dtype=dtype)
    found = check_boxes(scores[None, None], -inf)
    assert found.mean[:2].tolist() == [inf, -inf]
    assert found.mean[2].isnan()
    for select in SELECTIONS:
        check_boxes(scores[None, None], -inf, select=select)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_means_of_very_different_scores_in_one_map(dtype):
    scores = torch.full((1, 1, 90, 90), float("nan"), dtype=dtype)
    for i, magnitude in enumerate((1e-30, 1e30, 1e-5, -1e20, 0.0, 3e-39)):
        part = scores[0, 0, 15 * i : 15 * i + 14, :80]
        part.copy_(tensor(part.shape, dtype=dtype, seed=i).abs() * magnitude)
    found = component_boxes(scores, float("-inf"))
    expected = reference.component_boxes(scores, float("-inf"))
    assert found.area.tolist() == [14 * 80] * 6
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(found.mean, expected.mean, rtol=tolerance, atol=0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("select", SELECTIONS)
@pytest.mark.parametrize("capacity", [0, 1, 5, 6, 40, 500])
def test_static_boxes_equal_reference(capacity, select, dtype):
    scores = tensor((2, 3, 9, 11), dtype=dtype)
    for connectivity, min_area in ((4, 1), (8, 1), (8, 4)):
        found = check_static_boxes(
            scores, 0.3, capacity=capacity, select=select, connectivity=connectivity, min_area=min_area
        )
        assert found.area.shape == (capacity,)
        assert (found.image >= 0).sum() == min(int(found.total), capacity)


@pytest.mark.parametrize("shape", [(0, 2, 4, 4), (2, 0, 4, 4), (2, 2, 0, 4), (2, 2, 4, 0)])
@pytest.mark.parametrize("select", SELECTIONS)
def test_boxes_of_empty_scores(shape, select):
    check_boxes(torch.zeros(shape), 0.5, select=select)
    assert check_static_boxes(torch.zeros(shape), 0.5, capacity=3, select=select).total == 0


def test_large_map_with_one_component():
    found = component_boxes(torch.ones(1, 1, 2048, 2048), 0.5)
    assert found.boxes.tolist() == [[0, 0, 2048, 2048]]
    assert found.area.tolist() == [2048 * 2048]
    assert found.mean.tolist() == [1.0]


def test_deterministic_whatever_the_number_of_threads():
    scores, threads, results = tensor((4, 5, 60, 60)), torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(component_boxes(scores, 0.2))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_no_gradient_flows_and_none_is_promised():
    scores = tensor((1, 1, 4, 4)).requires_grad_()
    threshold = torch.zeros(1, requires_grad=True)
    assert not any(column.requires_grad for column in component_boxes(scores, threshold))
    assert not any(column.requires_grad for column in component_boxes_static(scores, threshold, capacity=2))
    direct = torch.ops.cxrfast.component_boxes(scores, threshold, 8, 0, 1)
    with pytest.raises(RuntimeError, match="cxrfast::component_boxes has no derivative$"):
        direct[1].sum().backward()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout):
    scores = tensor((2, 3, 6, 5), layout=layout)
    torch.library.opcheck(torch.ops.cxrfast.connected_components.default, (scores > 0, 8))
    torch.library.opcheck(torch.ops.cxrfast.component_boxes.default, (scores, torch.zeros(3), 8, 0, 1))
    torch.library.opcheck(torch.ops.cxrfast.component_boxes_static.default, (scores, torch.zeros(3), 8, 0, 1, 7))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles(dynamic):
    def function(scores, threshold):
        found = component_boxes(scores, threshold, select="all", min_area=2)
        return connected_components(scores > 0.1), found, found.boxes * 2, component_boxes(scores, 0.5).peak.sum()

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
        for size in (7, 9):
            scores, threshold = tensor((2, 3, size, 8)), torch.tensor([0.0, 0.3, 9.0])
            actual, expected = compiled(scores, threshold), function(scores, threshold)
            assert isinstance(actual[1], ComponentBoxes)
            torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dynamic", [False, True])
def test_static_boxes_compile_without_a_dynamic_shape(dynamic):
    def function(scores):
        found = component_boxes_static(scores, 0.3, capacity=9)
        return found, found.boxes * 2

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for size in (7, 9):
        scores = tensor((2, 3, size, 8))
        torch.testing.assert_close(compiled(scores), function(scores), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("error", "message", "capacity"),
    [
        (ValueError, "capacity: expected at least 0, got -1", -1),
        (TypeError, "capacity: expected an integer, got 1.5", 1.5),
    ],
)
def test_wrong_capacity(error, message, capacity):
    with pytest.raises(error, match=message):
        component_boxes_static(torch.ones(1, 2, 3, 3), 0.5, capacity=capacity)


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (
            TypeError,
            "scores: expected a floating-point tensor, got torch.int64",
            {"scores": torch.ones(1, 2, 3, 3).long()},
        ),
        (ValueError, r"scores: expected \[B, K, H, W\]", {"scores": torch.ones(2, 3, 3)}),
        (TypeError, "threshold: expected a number or a tensor, got '0.5'", {"threshold": "0.5"}),
        (TypeError, "threshold: expected a number or a tensor, got True", {"threshold": True}),
        (TypeError, "threshold: expected a floating-point tensor", {"threshold": torch.ones(2).long()}),
        (
            ValueError,
            r"threshold: expected a number or \[2\] for 2 channels, got shape \(3,\)",
            {"threshold": torch.ones(3)},
        ),
        (ValueError, "threshold: expected scores' device cpu, got meta", {"threshold": torch.ones(2, device="meta")}),
        (ValueError, "connectivity: expected 4 or 8, got True", {"connectivity": True}),
        (ValueError, "connectivity: expected 4 or 8, got 8.0", {"connectivity": 8.0}),
        (ValueError, "select: expected one of all, largest, peak, got 'best'", {"select": "best"}),
        (ValueError, "min_area: expected at least 0, got -1", {"min_area": -1}),
        (TypeError, "min_area: expected an integer, got 1.5", {"min_area": 1.5}),
    ],
)
def test_wrong_scores(error, message, change):
    arguments = {"scores": torch.ones(1, 2, 3, 3), "threshold": 0.5} | change
    with pytest.raises(error, match=message):
        component_boxes(**arguments)
