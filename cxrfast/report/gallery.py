"""Which cases are shown, their pictures, and what the viewer needs to find their regions again at any threshold."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cxrfast.data.images import read_image
from cxrfast.errors import CxrfastError
from cxrfast.evaluation.detection import Boxes
from cxrfast.evaluation.localization import Localization
from cxrfast.evaluation.sources import BoxSource, MapSource, MaskSource, Source
from cxrfast.evaluation.truth import Truth
from cxrfast.regions import RegionRule
from cxrfast.report.facts import Evaluated

SIDE = 416  # pixels of the longer side of an embedded picture
CASES = 40  # about so many are shown in all
MOST_PER_RANK = 4
MAP_BYTES = 2_000_000  # of all maps that the viewer gets; the shown classes first
CODES = 256  # a value of a map is one byte
HEAT = "YlOrRd"  # as `cxrfast localize` draws it
Rectangle = tuple[float, float, float, float]  # xyxy as fractions of the image


class Picture(NamedTuple):
    """An image of the report, embedded once however often it is shown."""

    name: str
    n: int  # place among the evaluated images
    width: int  # of the file, in pixels
    height: int
    data: str | None  # data URI
    reason: str  # why there is none


@dataclass(frozen=True)
class Case:
    """One image and class, with the region that the protocol scored."""

    picture: int
    class_index: int
    rank: str  # "best", "median", "worst"
    iou: float
    ior: float
    score: float  # of the image; NaN where nobody said
    threshold: float | None  # of the map; None where the rule has levels
    annotated: list[Rectangle]
    found: list[Rectangle]
    heat: str | None  # data URI of the map's picture


@dataclass(frozen=True)
class Gallery:
    """Cases in the order of classes, then best to worst; pictures as they first occur."""

    pictures: list[Picture]
    cases: list[Case]


def make_gallery(evaluated: Evaluated) -> Gallery:
    """The best, the median and the worst cases of every class by the IoU of what the protocol scores.

    Of equally bad ones those come first whose score is highest: sure, and wrong. More of each where there are few
    classes; no case is shown twice. Empty where there are no regions.
    """
    found, truth, source = evaluated.localization, evaluated.truth, evaluated.source
    if found is None or truth is None or source is None:
        return Gallery([], [])
    chosen = [
        (k, rank, u)
        for k in range(len(truth.class_names))
        for rank, u in choose_units(found, evaluated.predictions.prob, k, _per_rank(found))
    ]
    place: dict[int, int] = {}
    for _, _, u in chosen:
        place.setdefault(int(found.units.image[u]), len(place))
    pictures = [_picture(evaluated, truth.images[n], n) for n in place]
    regions = _protocol_regions(found, source)
    cases = [_case(evaluated, found, truth, source, regions, k, rank, u, place) for k, rank, u in chosen]
    return Gallery(pictures, cases)


def choose_units(found: Localization, prob: Tensor, k: int, count: int) -> list[tuple[str, int]]:
    """(rank, unit) of class k: ``count`` of each rank while there are enough, best first."""
    units = (found.units.class_index == k).nonzero()[:, 0].tolist()
    iou, images = found.overlap.iou.tolist(), found.units.image.tolist()
    scores = prob[:, k].nan_to_num(0.0).tolist()
    order = sorted(units, key=lambda u: (-iou[u], scores[images[u]] if iou[u] == 0 else -scores[images[u]], u))
    count = min(count, max(len(order) // 3, 1))
    best, rest = order[:count], order[count:]
    worst = rest[max(len(rest) - count, 0) :]
    middle = rest[: len(rest) - len(worst)]
    start = max((len(middle) - count) // 2, 0)
    ranked = {"best": best, "median": middle[start : start + count], "worst": worst}
    return [(rank, u) for rank, members in ranked.items() for u in members]


def _per_rank(found: Localization) -> int:
    boxed = max(int((found.n_units > 0).sum()), 1)
    return min(max(round(CASES / (3 * boxed)), 1), MOST_PER_RANK)


def _protocol_regions(found: Localization, source: Source) -> list[Boxes]:
    """The boxes of what the protocol scores, one entry for each row of its thresholds."""
    if found.protocol.stretched and isinstance(source, MapSource):
        source = source.stretched()
    return [source.boxes(found.rule, row) for row in found.thresholds]


def _case(
    evaluated: Evaluated,
    found: Localization,
    truth: Truth,
    source: Source,
    regions: Sequence[Boxes],
    k: int,
    rank: str,
    u: int,
    place: dict[int, int],
) -> Case:
    n = int(found.units.image[u])
    fold = 0 if found.fold is None else int(found.fold[u])
    boxes = regions[fold]
    own = boxes.xyxy[(boxes.image == n) & (boxes.class_index == k)]
    annotated = found.units.boxes[u][found.units.has_box[u]]
    values = _map_of(source, n, k)
    return Case(
        picture=place[n],
        class_index=k,
        rank=rank,
        iou=found.overlap.iou[u].item(),
        ior=found.overlap.ior[u].item(),
        score=evaluated.predictions.prob[n, k].item(),
        threshold=None if found.rule.levels else found.thresholds[fold, k].item(),
        annotated=_rectangles(annotated),
        found=_rectangles(own),
        heat=None if values is None else heat_picture(values),
    )


def _map_of(source: Source, n: int, k: int) -> Tensor | None:  # [P, Q]
    if not isinstance(source, MapSource):
        return None
    at = int(torch.searchsorted(source.images, n))
    return source.maps[at, k] if at < len(source.images) and int(source.images[at]) == n else None


def _rectangles(boxes: Tensor) -> list[Rectangle]:  # [N, 4]
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in boxes.double().tolist()]


# Pictures


def _picture(evaluated: Evaluated, image: str, n: int) -> Picture:
    record = evaluated.records.get(image)
    if record is None:
        return Picture(image, n, 1, 1, None, "not in the data set")
    try:
        pixels = read_image(record.path)
    except CxrfastError as error:
        return Picture(image, n, 1, 1, None, str(error))
    return Picture(image, n, pixels.shape[1], pixels.shape[0], _embed(pixels), "")


def _embed(pixels: np.ndarray) -> str:  # [H, W] float32
    """A data URI, no larger than :data:`SIDE`, over the range of values that is there."""
    import cv2
    from PIL import Image

    darkest, brightest = np.percentile(pixels, [0.1, 99.9])
    factor = SIDE / max(pixels.shape)
    if factor < 1:
        size = (max(round(pixels.shape[1] * factor), 1), max(round(pixels.shape[0] * factor), 1))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    grey = np.clip((pixels - darkest) / max(brightest - darkest, 1e-6), 0, 1)
    buffer = io.BytesIO()
    Image.fromarray((255 * grey + 0.5).astype(np.uint8)).save(buffer, "JPEG", quality=78, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def heat_picture(values: Tensor) -> str:  # [P, Q] in [0, 1]
    """A map as PNG with one pixel for each cell, clear where it is 0 and half clear where it is 1."""
    from matplotlib import colormaps
    from PIL import Image

    heat = values.clamp(0, 1).numpy()
    colours = colormaps[HEAT](heat)
    colours[..., 3] = opacity(heat)
    buffer = io.BytesIO()
    Image.fromarray((255 * colours + 0.5).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def opacity(heat: np.ndarray) -> np.ndarray:
    """Low values hardly show; the viewer has the same formula."""
    return 0.62 * np.clip(heat, 0, 1) ** 0.7


def heat_colours(count: int = 33) -> list[list[int]]:
    """Red, green and blue at equal steps from 0 to 1, for the viewer to interpolate."""
    from matplotlib import colormaps

    return [[round(255 * part) for part in colormaps[HEAT](i / (count - 1))[:3]] for i in range(count)]


# The viewer's data


def viewer_data(evaluated: Evaluated, gallery: Gallery) -> dict[str, Any] | None:
    """What the page's script needs, for JSON; None where there is nothing to view."""
    own, truth, source = evaluated.own, evaluated.truth, evaluated.source
    if own is None or truth is None or source is None or not gallery.pictures:
        return None
    thresholds = own.thresholds.double().cpu()
    shown = {(case.picture, case.class_index) for case in gallery.cases}
    classes = [
        {
            "name": name,
            "levels": list(own.rule.levels) or [thresholds[k].item()],
            "knots": _knots(own.rule, thresholds[k].item()),
        }
        for k, name in enumerate(truth.class_names)
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
    room = MAP_BYTES
    for i, k in sorted(pairs, key=lambda pair: pair not in shown):
        n = gallery.pictures[i].n
        entry = _viewer_entry(evaluated, source, own.rule, thresholds, n, k)
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
            "opening": own.rule.opening if isinstance(source, MapSource) else 0,
            "gate": own.rule.gate,
        },
        "imageSize": source.image_size if isinstance(source, MapSource) else None,
        "colours": heat_colours(),
    }


def _viewer_entry(
    evaluated: Evaluated, source: Source, rule: RegionRule, thresholds: Tensor, n: int, k: int
) -> dict[str, Any]:
    truth = evaluated.truth
    assert truth is not None
    annotated = truth.boxes.xyxy[(truth.boxes.image == n) & (truth.boxes.class_index == k)]
    score = evaluated.predictions.prob[n, k].item()
    label = truth.labels[n, k].item()
    entry: dict[str, Any] = {
        "score": None if math.isnan(score) else score,
        "label": None if math.isnan(label) else bool(label),
        "annotated": _rectangles(annotated),
    }
    values = _map_of(source, n, k)
    if values is not None:
        codes = encode_map(values, _thresholds_of(rule, thresholds[k]))
        entry["map"] = base64.b64encode(codes.tobytes()).decode()
    elif isinstance(source, BoxSource | MaskSource):
        own = (source.found.image == n) & (source.found.class_index == k)
        assert source.found.score is not None
        scored = torch.cat([source.found.xyxy[own].double(), source.found.score[own].double()[:, None]], dim=1)
        entry["boxes"] = scored.tolist()
    return entry


def _thresholds_of(rule: RegionRule, threshold: Tensor) -> Tensor:  # [] -> [levels]
    return torch.tensor(rule.levels, dtype=torch.float64) if rule.levels else threshold[None]


def _knots(rule: RegionRule, threshold: float) -> list[float]:
    inner = rule.levels or (threshold,)
    return [0.0, *sorted({value for value in inner if 0 < value < 1}), 1.0]


def encode_map(
    values: Tensor,  # [P, Q] float32 in [0, 1]
    thresholds: Tensor,  # [levels] float64: the method's own
) -> np.ndarray:  # [P, Q] uint8
    """One byte for each cell, so that regions at the method's own thresholds come out exactly.

    The thresholds are knots: between two knots values are rounded down to equal steps, so no value crosses one. Where
    that makes others equal to the highest value, it gets the next code, so the component of the maximum stays the same.
    Each segment keeps one code for that, and 1 has a code of its own.
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
    top = values == values.max()
    if (codes[~top] == codes.max()).any():
        codes[top] += 1
    codes[values >= 1] = size * (len(knots) - 1)
    return codes.to(torch.uint8).numpy()


def own_boxes(evaluated: Evaluated) -> Boxes:
    """The boxes of the method's own regions at its own thresholds, behind its own gate: what the viewer starts with."""
    own, source = evaluated.own, evaluated.source
    if own is None or source is None:
        raise ValueError("evaluated: expected regions, got none")
    boxes = source.boxes(replace(own.rule, gate=None), own.thresholds.double().cpu())
    if own.rule.gate is not None:
        passes = evaluated.predictions.prob.nan_to_num(0.5)[boxes.image, boxes.class_index] > own.rule.gate
        boxes = Boxes(*(None if column is None else column[passes] for column in boxes))  # type: ignore[arg-type]
    return boxes
