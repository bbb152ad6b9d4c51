"""Detection measures against plain loops, and by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cxrfast.metrics import (
    Boxes,
    box_average_precision,
    box_overlap,
    boxes_of_known_labels,
    froc,
    match_boxes,
    pointing_game,
    union_overlap,
)

GRID = 8  # boxes of the property tests lie on eighths


def boxes_on_a_lattice(draw, count, *, scored):
    rows = []
    for _ in range(count):
        x1, y1 = draw(st.integers(0, GRID - 1)), draw(st.integers(0, GRID - 1))
        rows.append((x1, y1, draw(st.integers(x1 + 1, GRID)), draw(st.integers(y1 + 1, GRID))))
    image = torch.tensor([draw(st.integers(0, 2)) for _ in rows], dtype=torch.long)
    class_index = torch.tensor([draw(st.integers(0, 1)) for _ in rows], dtype=torch.long)
    score = torch.tensor([draw(st.integers(0, 4)) for _ in rows], dtype=torch.float32) if scored else None
    return Boxes(image, class_index, torch.tensor(rows, dtype=torch.float64).view(-1, 4) / GRID, score)


@st.composite
def scenes(draw):
    predicted = boxes_on_a_lattice(draw, draw(st.integers(0, 8)), scored=True)
    annotated = boxes_on_a_lattice(draw, draw(st.integers(0, 5)), scored=False)
    return predicted, annotated


def cells(box):
    x1, y1, x2, y2 = (round(float(value) * GRID) for value in box)
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


def plain_overlap(first, second, measure):
    first, second = cells(first), cells(second)
    return len(first & second) / len(first | second if measure == "iou" else first)


def plain_matches(predicted, annotated, threshold, measure):
    hit, taken = [False] * len(predicted.xyxy), set()
    for d in sorted(range(len(hit)), key=lambda d: -predicted.score[d]):
        best, best_overlap = None, threshold - 1e-9
        for g in range(len(annotated.xyxy)):
            same = predicted.image[d] == annotated.image[g] and predicted.class_index[d] == annotated.class_index[g]
            overlap = plain_overlap(predicted.xyxy[d], annotated.xyxy[g], measure)
            if same and g not in taken and overlap > best_overlap + (0 if best is None else 1e-9):
                best, best_overlap = g, overlap
        if best is not None:
            hit[d] = True
            taken.add(best)
    return hit


@given(scenes(), st.sampled_from([0.1, 0.25, 0.5, 1.0]), st.sampled_from(["iou", "ior"]))
def test_matches_are_those_of_the_plain_rule(scene, threshold, measure):
    assert match_boxes(*scene, threshold, measure=measure).tolist() == plain_matches(*scene, threshold, measure)


@given(scenes(), st.sampled_from([0.1, 0.5]))
def test_curves_are_those_of_the_plain_rule(scene, threshold):
    predicted, annotated = scene
    hit = plain_matches(predicted, annotated, threshold, "iou")
    precision = box_average_precision(predicted, annotated, 2, [threshold])
    rates = (0.0, 0.5, 2.0)
    curve = froc(predicted, annotated, 2, 3, threshold, rates=rates)
    for k in range(2):
        total = int((annotated.class_index == k).sum())
        mine = [(float(predicted.score[d]), hit[d]) for d in range(len(hit)) if predicted.class_index[d] == k]
        if not total:
            assert precision[0, k].isnan()
            assert curve.sensitivity[k].isnan().all()
            continue
        points = []
        for level in sorted({score for score, _ in mine}, reverse=True):
            called = [is_hit for score, is_hit in mine if score >= level]
            points.append((sum(called) / total, sum(called) / len(called), called.count(False) / 3))
        area, last = 0.0, 0.0
        for index, (recall, _, _) in enumerate(points):
            area += (recall - last) * max(value for _, value, _ in points[index:])
            last = recall
        assert precision[0, k].item() == pytest.approx(area, abs=1e-12)
        expected = [max([recall for recall, _, false in points if false <= rate], default=0.0) for rate in rates]
        assert curve.sensitivity[k].tolist() == pytest.approx(expected, abs=1e-12)
        assert curve.mean[k].item() == pytest.approx(sum(expected) / 3)


@given(scenes())
def test_overlap_of_boxes_is_exact(scene):
    predicted, annotated = scene
    n = min(len(predicted.xyxy), len(annotated.xyxy))
    overlap = box_overlap(predicted.xyxy[:n], annotated.xyxy[:n])
    for i in range(n):
        assert overlap.iou[i].item() == pytest.approx(plain_overlap(predicted.xyxy[i], annotated.xyxy[i], "iou"))
        assert overlap.ior[i].item() == pytest.approx(plain_overlap(predicted.xyxy[i], annotated.xyxy[i], "ior"))


@given(st.lists(scenes(), min_size=1, max_size=3))
def test_overlap_of_unions_is_exact(pairs):
    """Scenes of different sizes in one call, padded."""
    most = max(1, *(len(boxes.xyxy) for pair in pairs for boxes in pair))

    def padded(which):
        boxes, has = torch.zeros(len(pairs), most, 4, dtype=torch.float64), torch.zeros(len(pairs), most, dtype=bool)
        for n, pair in enumerate(pairs):
            boxes[n, : len(pair[which].xyxy)], has[n, : len(pair[which].xyxy)] = pair[which].xyxy, True
        return boxes, has

    overlap = union_overlap(*padded(0), *padded(1))
    for n, pair in enumerate(pairs):
        first, second = (set().union(*map(cells, boxes.xyxy)) for boxes in pair)
        expected = [len(part) / GRID**2 for part in (first & second, first, second)]
        assert [value[n].item() for value in overlap] == pytest.approx(expected, abs=1e-12)


def test_a_second_prediction_of_a_box_is_a_false_positive():
    one = torch.zeros(3, dtype=torch.long)
    box = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    predicted = Boxes(one, one, box.repeat(3, 1), torch.tensor([0.2, 0.9, 0.5]))
    annotated = Boxes(one[:1], one[:1], box)
    assert match_boxes(predicted, annotated, 1.0).tolist() == [False, True, False]
    assert box_average_precision(predicted, annotated, 1).tolist() == [[1.0]] * 3
    curve = froc(predicted, annotated, 1, 4, 0.5, rates=[0.0, 0.5])
    assert curve.sensitivity.tolist() == [[1.0, 1.0]]
    assert curve.curves[0][0].tolist() == [0.0, 0.0, 0.25, 0.5]


def test_nothing_predicted_is_zero_and_nothing_annotated_is_nan():
    none = torch.zeros(0, dtype=torch.long)
    predicted = Boxes(none, none, torch.zeros(0, 4), torch.zeros(0))
    annotated = Boxes(torch.tensor([0]), torch.tensor([0]), torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    precision = box_average_precision(predicted, annotated, 2, [0.5])
    assert precision[0, 0] == 0
    assert math.isnan(precision[0, 1])
    assert froc(predicted, annotated, 2, 1, 0.5).sensitivity[0].tolist() == [0.0] * 7


@given(scene=scenes(), threshold=st.sampled_from([0.1, 0.5]), seed=st.integers(0, 1000))
def test_boxes_of_unknown_labels_are_as_if_removed_by_hand(scene, threshold, seed):
    """Of every class alone, over the images whose label is known; an annotated box makes it known."""
    predicted, annotated = scene
    known = torch.rand(3, 2, generator=torch.Generator().manual_seed(seed)) < 0.6
    known[annotated.image, annotated.class_index] = True
    kept = boxes_of_known_labels(predicted, known)
    assert len(boxes_of_known_labels(annotated, known).xyxy) == len(annotated.xyxy)
    precision = box_average_precision(kept, annotated, 2, (threshold,))
    curve = froc(kept, annotated, 2, known.sum(dim=0), threshold)
    for k in range(2):
        images = known[:, k].nonzero()[:, 0]
        place = torch.full((3,), -1).scatter_(0, images, torch.arange(len(images)))
        alone = []
        for boxes in scene:
            rows = (boxes.class_index == k) & (place[boxes.image] >= 0)
            score = None if boxes.score is None else boxes.score[rows]
            alone.append(Boxes(place[boxes.image[rows]], torch.zeros_like(boxes.image[rows]), boxes.xyxy[rows], score))
        expected = box_average_precision(*alone, 1, (threshold,))
        torch.testing.assert_close(precision[:, k], expected[:, 0], rtol=0, atol=0, equal_nan=True)
        expected = froc(*alone, 1, max(len(images), 1), threshold)
        torch.testing.assert_close(curve.sensitivity[k], expected.sensitivity[0], rtol=0, atol=0, equal_nan=True)
        if len(images):
            for found, by_hand in zip(curve.curves[k], expected.curves[0], strict=True):
                torch.testing.assert_close(found, by_hand, rtol=0, atol=0, equal_nan=True)


def test_pointing_game():
    maps = torch.zeros(4, 4, 4)
    maps[0, 1, 1] = 1  # centre at 3/8, 3/8
    maps[1, 3, 3] = 1
    maps[2, 0, 0] = maps[2, 3, 3] = 1  # one of two maxima
    boxes = torch.tensor([[[0.25, 0.25, 0.5, 0.5], [0.0, 0.0, 0.25, 0.25]]]).repeat(4, 1, 1)
    has_box = torch.tensor([[True, True]]).repeat(4, 1)
    # The last map says nothing: two of its sixteen cells are in the boxes.
    assert pointing_game(maps, boxes, has_box).tolist() == [1.0, 0.0, 0.5, 2 / 16]
    assert pointing_game(maps, boxes, has_box, tolerance=0.5)[1] == 1
    assert pointing_game(maps[2:3], boxes[2:3], torch.tensor([[True, False]])).tolist() == [0.0]


def test_predictions_without_scores_are_refused():
    one = torch.zeros(1, dtype=torch.long)
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    for score in (None, torch.tensor([math.nan])):
        with pytest.raises(ValueError, match="expected a score"):
            match_boxes(Boxes(one, one, box, score), Boxes(one, one, box), 0.5)
