"""Data for the page's viewer, whose script finds the regions of the shown images at any threshold."""

import base64
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxrfast.evaluation.sources import BoxSource, MapSource, MaskSource, Source
from cxrfast.metrics.detection import Boxes
from cxrfast.regions.rule import RegionRule
from cxrfast.report.facts import Evaluated
from cxrfast.report.html.gallery import HEAT, Gallery, map_of, rectangles

MAP_BYTES = 2_000_000  # of all maps together; maps of the cases have priority
CODES = 256  # a value of a map is one byte


def viewer_data(evaluated: Evaluated, gallery: Gallery) -> dict[str, Any] | None:
    """Data for the viewer's script, as JSON values; None if there is nothing to view."""
    own, ground_truth, source = evaluated.own, evaluated.ground_truth, evaluated.source
    if own is None or ground_truth is None or source is None or not gallery.pictures:
        return None
    thresholds = own.thresholds.double().cpu()
    shown = {(case.picture, case.class_index) for case in gallery.cases}
    classes = [
        {
            "name": name,
            "levels": list(own.rule.levels) or [thresholds[k].item()],
            "knots": _knots(own.rule, thresholds[k].item()),
        }
        for k, name in enumerate(ground_truth.class_names)
    ]
    pictures = [
        {
            "name": picture.name,
            "width": picture.width,
            "height": picture.height,
            "classes": {},
        }
        for picture in gallery.pictures
    ]
    pairs = [(i, k) for i in range(len(pictures)) for k in range(len(classes))]
    peaks = _own_peaks(evaluated)
    room = MAP_BYTES
    for i, k in sorted(pairs, key=lambda pair: pair not in shown):
        n = gallery.pictures[i].n
        entry = _viewer_entry(evaluated, source, own.rule, thresholds, n, k, peaks.get((n, k)))
        room -= len(entry.get("map", ""))
        if room >= 0 or (i, k) in shown:
            pictures[i]["classes"][k] = entry  # type: ignore[index]
    grid = source.grid
    return {
        "classes": classes,
        "pictures": pictures,
        "grid": None if grid is None else list(grid),
        "rule": {
            "shape": own.rule.shape,
            "select": own.rule.select,
            "opening": _square(own.rule, own.rule.opening, source),
            "closing": _square(own.rule, own.rule.closing, source),
            "gate": own.rule.gate,
        },
        "colours": heat_colours(),
    }


def _square(rule: RegionRule, side: float, source: Source) -> list[int]:
    """Square of an opening or closing in patches; boxes and masks from files have none."""
    return list(rule.square(side, source.grid, source.image_size)) if isinstance(source, MapSource) else [1, 1]


def _viewer_entry(
    evaluated: Evaluated,
    source: Source,
    rule: RegionRule,
    thresholds: Tensor,
    n: int,
    k: int,
    peak: float | None,
) -> dict[str, Any]:
    ground_truth = evaluated.ground_truth
    assert ground_truth is not None
    annotated = ground_truth.boxes.xyxy[(ground_truth.boxes.image == n) & (ground_truth.boxes.class_index == k)]
    score = evaluated.predictions.prob[n, k].item()
    label = ground_truth.labels[n, k].item()
    entry: dict[str, Any] = {
        "score": None if math.isnan(score) else score,
        "label": None if math.isnan(label) else bool(label),
        "annotated": rectangles(annotated),
    }
    values = map_of(source, n, k)
    if values is not None:
        codes = encode_map(values, _thresholds_of(rule, thresholds[k]), peak)
        entry["map"] = base64.b64encode(codes.tobytes()).decode()
    elif isinstance(source, BoxSource | MaskSource):
        own = (source.found.image == n) & (source.found.class_index == k)
        assert source.found.score is not None
        scored = torch.cat([source.found.xyxy[own].double(), source.found.score[own].double()[:, None]], dim=1)
        entry["boxes"] = scored.tolist()
    return entry


def _own_peaks(evaluated: Evaluated) -> dict[tuple[int, int], float]:
    """Highest value of the initial region per image and class, for rules that select the component of the maximum."""
    if evaluated.own is None or evaluated.own.rule.select != "peak":
        return {}
    boxes = own_boxes(evaluated)
    assert boxes.score is not None
    return dict(
        zip(zip(boxes.image.tolist(), boxes.class_index.tolist(), strict=True), boxes.score.tolist(), strict=True)
    )


def _thresholds_of(rule: RegionRule, threshold: Tensor) -> Tensor:  # [] -> [levels]
    return torch.tensor(rule.levels, dtype=torch.float64) if rule.levels else threshold[None]


def _knots(rule: RegionRule, threshold: float) -> list[float]:
    inner = rule.levels or (threshold,)
    return [0.0, *sorted({value for value in inner if 0 < value < 1}), 1.0]


def encode_map(
    values: Tensor,  # [P, Q] float32 in [0, 1]
    thresholds: Tensor,  # [levels] float64: the method's own
    peak: float | None = None,  # highest value of the region at these thresholds; None: of the map
) -> np.ndarray:  # [P, Q] uint8
    """A map in one byte per cell, such that regions at the method's own thresholds are exact.

    Between two thresholds, values are rounded down to equal steps, so that no value crosses a threshold. If other
    values would get the code of the peak, the peak gets the next code, so that the component of the maximum is the
    same. Each segment reserves one code for that, and the value 1 has its own code.
    """
    inner = sorted({value for value in thresholds.tolist() if 0 < value < 1})
    knots = torch.tensor([0.0, *inner, 1.0], dtype=torch.float64)
    size = (CODES - 1) // (len(knots) - 1)  # codes of a segment
    segment = torch.zeros_like(values, dtype=torch.long)
    for knot in inner:
        segment += values >= torch.tensor(knot).to(values)  # in the dtype of the map, as RegionRule compares them
    low, high = knots[segment], knots[segment + 1]
    inside = ((values.double() - low) / (high - low) * (size - 1)).floor().long().clamp(0, size - 2)
    codes = segment * size + inside
    top = values == (values.max() if peak is None else peak)
    if (codes[~top] == codes[top].max()).any():
        codes[top] += 1
    codes[values >= 1] = size * (len(knots) - 1)
    return codes.to(torch.uint8).numpy()


def own_boxes(evaluated: Evaluated) -> Boxes:
    """Boxes of the method's own regions at its own thresholds, behind its own gate: the viewer's initial state."""
    own, source = evaluated.own, evaluated.source
    if own is None or source is None:
        raise ValueError("evaluated: expected regions, got none")
    boxes = source.boxes(replace(own.rule, gate=None), own.thresholds.double().cpu())
    if own.rule.gate is not None:
        passes = evaluated.predictions.prob.nan_to_num(0.5)[boxes.image, boxes.class_index] > own.rule.gate
        boxes = Boxes(*(None if column is None else column[passes] for column in boxes))  # type: ignore[arg-type]
    return boxes


def heat_colours(count: int = 33) -> list[list[int]]:
    """RGB colours at equal steps from 0 to 1, between which the viewer interpolates."""
    from matplotlib import colormaps

    return [[round(255 * part) for part in colormaps[HEAT](i / (count - 1))[:3]] for i in range(count)]
