"""Which cases are shown, and the maps that the viewer gets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cxrfast.evaluation import HitCriterion
from cxrfast.evaluation.localization import hits_at
from cxrfast.evaluation.record import NoGate, ScoreGate
from cxrfast.regions.rule import RegionRule
from cxrfast.report import render_report
from cxrfast.report.html.gallery import Unit, choose_units, make_gallery
from cxrfast.report.html.viewer import CODES, encode_map, viewer_data
from tests.report.made_up import made_up


def decode(codes, thresholds):
    """As templates/viewer.js does."""
    knots = torch.tensor([0.0, *sorted({t for t in thresholds if 0 < t < 1}), 1.0], dtype=torch.float64)
    size = (CODES - 1) // (len(knots) - 1)
    codes = torch.from_numpy(codes).long()
    segment = codes // size
    end = segment >= len(knots) - 1
    segment = segment.clamp(max=len(knots) - 2)
    inside = (codes - segment * size).double().clamp(max=size - 1.5)
    values = knots[segment] + inside / (size - 1) * (knots[segment + 1] - knots[segment])
    return torch.where(end, 1.0, values)


levels = st.lists(st.sampled_from([0.0, 60 / 255, 0.25, 0.5, 0.62, 180 / 255, 0.999, 1.0]), min_size=1, max_size=3)


@given(seed=st.integers(0, 2**31), thresholds=levels, special=st.booleans(), narrow=st.booleans())
def test_encoded_maps_keep_the_regions_and_the_order(seed, thresholds, special, narrow):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(7, 9, generator=generator)
    if narrow:  # many values in one step
        values = 0.61 + 0.02 * values
    if special:  # values on and beside thresholds, and the ends
        points = torch.tensor([*thresholds, 0.0, 1.0])
        points = torch.cat([points, points.nextafter(torch.tensor(0.0)), points.nextafter(torch.tensor(1.0))])
        place = torch.randint(63, (len(points),), generator=generator)
        values.view(-1)[place] = points.clamp(0, 1)
    decoded = decode(encode_map(values, torch.tensor(thresholds, dtype=torch.float64)), thresholds)
    assert (decoded - values).abs().max() < 1 / ((CODES - 1) // (len(set(thresholds)) + 1) - 1) + 1e-6
    for threshold in thresholds:
        above = values >= torch.tensor(threshold)
        torch.testing.assert_close(decoded >= threshold, above, rtol=0, atol=0)
    flat = values.flatten().argsort()
    assert (decoded.flatten()[flat].diff() >= 0).all()
    assert torch.equal(decoded == decoded.max(), values == values.max())


@given(seed=st.integers(0, 2**31), opening=st.sampled_from([0, 3, 4]), closing=st.sampled_from([0, 0.2]))
def test_encoded_maps_keep_the_component_of_the_maximum(seed, opening, closing):
    generator = torch.Generator().manual_seed(seed)
    # Values so near to each other that many share a code, over and under the threshold
    maps = (0.5 + 0.02 * torch.randn(1, 1, 8, 8, generator=generator)).clamp(0, 1)
    rule, threshold = RegionRule("boxes", "peak", opening=opening, closing=closing), torch.tensor([0.5])
    expected = rule.find(maps, threshold, image_size=16).boxes
    peak = expected.peak[0].item() if len(expected.peak) else None
    decoded = decode(encode_map(maps[0, 0], threshold.double(), peak), [0.5])[None, None]
    found = rule.find(decoded, threshold.double(), image_size=16).boxes
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=0)


def units_of(evaluated, k):
    """All annotations of class k, without a gate."""
    predictions = evaluated.predictions
    for annotation in evaluated.record.localization.annotations:
        n = list(predictions.images).index(annotation.image)
        if annotation.class_name == predictions.class_names[k]:
            yield Unit(annotation, n, k, predictions.prob[n, k].item(), True)


def criterion_of(table):
    return HitCriterion(table.measure, table.inclusive, tuple(row.T for row in table.rows))


def test_best_median_and_worst(tmp_path):
    evaluated = made_up(tmp_path, 60, ("Mass", "Nodule"))
    for k in (0, 1):
        units = list(units_of(evaluated, k))
        assert len(units) == evaluated.record.classes[("Mass", "Nodule")[k]].n_annotated
        chosen = choose_units(units, 2)
        assert [rank for rank, _ in chosen] == ["best"] * 2 + ["median"] * 2 + ["worst"] * 2
        iou = [unit.iou for _, unit in chosen]
        everything = torch.tensor([unit.annotation.iou for unit in units], dtype=torch.float64)
        assert iou[:2] == everything.sort(descending=True).values[:2].tolist()
        assert iou[-1] == everything.min()
        assert abs(iou[2] - everything.median()) < abs(iou[0] - everything.median())
        scores = [unit.score for rank, unit in chosen if rank == "worst" and unit.iou == 0]
        assert scores == sorted(scores)  # the surest of them last


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_no_case_is_shown_twice(tmp_path, count):
    evaluated = made_up(tmp_path, 12, ("Mass",), seed=count)
    units = list(units_of(evaluated, 0))
    total = len(units)
    assert total == evaluated.record.classes["Mass"].n_annotated > 0
    chosen = [units.index(unit) for _, unit in choose_units(units, count)]
    assert len(chosen) == len(set(chosen)) == min(total, 3 * min(count, max(total // 3, 1)))


def test_what_stands_under_a_case_is_what_was_scored(tmp_path):
    evaluated = made_up(tmp_path, 40, ("Mass", "Nodule"), rule=RegionRule("boxes"), protocol="own")
    table = evaluated.record.localization.tables[0]
    for case in make_gallery(evaluated).cases:
        best = 0.0
        for x1, y1, x2, y2 in case.found:
            ((a1, b1, a2, b2),) = case.annotated
            both = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
            best = max(best, both / ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - both))
        assert case.iou == pytest.approx(best, abs=1e-9)
    shown = torch.tensor([case.iou for case in make_gallery(evaluated).cases])
    assert hits_at(shown, criterion_of(table)).shape == (4, len(shown))


@pytest.mark.parametrize("protocol", ["seibold2020", "own"])
def test_nothing_is_found_where_the_gate_is_shut(tmp_path, protocol):
    evaluated = made_up(tmp_path, 40, ("Mass", "Nodule"), rule=RegionRule("boxes", gate=0.5), protocol=protocol)
    gallery = make_gallery(evaluated)
    assert gallery.gate == ScoreGate(score=0.5)
    shut = [case.score <= 0.5 for case in gallery.cases]
    assert 0 < sum(shut) < len(shut)
    assert [case.shut for case in gallery.cases] == shut
    assert all((case.iou, case.ior, case.found) == (0, 0, []) for case in gallery.cases if case.shut)
    assert any(case.found for case in gallery.cases if not case.shut)
    table = evaluated.record.localization.tables[0]
    assert table.rows[0].T == 0.1
    for k, name in enumerate(("Mass", "Nodule")):
        best = next(case for case in gallery.cases if case.class_index == k)
        assert hits_at(torch.tensor([best.iou]), criterion_of(table))[0].item() == (
            table.rows[0].classes[name].hits > 0
        )
    html = render_report(evaluated)
    assert html.count(" · gate shut") == sum(shut)
    assert "does not meet “score &gt; 0.5”, nothing counts as found" in html


def test_strict_shows_what_it_scores_without_a_gate(tmp_path):
    evaluated = made_up(tmp_path, 40, ("Mass", "Nodule"), point=2.0)
    gallery = make_gallery(evaluated)
    assert gallery.gate == NoGate()
    assert max(case.iou for case in gallery.cases) == max(a.iou for a in evaluated.record.localization.annotations) > 0


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    evaluated = made_up(tmp_path, 12, ("Mass",))
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"no image")
    pictures = make_gallery(evaluated).pictures
    assert all(picture.data is None and "no image" not in picture.reason for picture in pictures)
    assert all(".png is not an image of a known format" in picture.reason for picture in pictures)


def test_large_maps_are_left_out_but_for_the_shown_cases(tmp_path, monkeypatch):
    monkeypatch.setattr("cxrfast.report.html.viewer.MAP_BYTES", 1000)
    evaluated = made_up(tmp_path, 30, ("Mass", "Nodule"))
    gallery = make_gallery(evaluated)
    data = viewer_data(evaluated, gallery)
    sent = {(i, k) for i, picture in enumerate(data["pictures"]) for k in picture["classes"]}
    assert sent == {(case.picture, case.class_index) for case in gallery.cases}
