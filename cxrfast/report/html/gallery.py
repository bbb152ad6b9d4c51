"""Which cases are shown, and their pictures."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cxrfast.data.images import read_image
from cxrfast.errors import CxrfastError
from cxrfast.evaluation.ground_truth import GroundTruth
from cxrfast.evaluation.localization import Localization
from cxrfast.evaluation.sources import MapSource, Source
from cxrfast.metrics.detection import Boxes
from cxrfast.metrics.overlap import BestOverlap
from cxrfast.report.facts import Evaluated, passes_gate

SIDE = 416  # pixels of the longer side of an embedded picture
CASES = 40  # about so many are shown in all
MOST_PER_RANK = 4
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
    shut: bool  # by the gallery's gate: nothing counts as found
    heat: str | None  # data URI of the map's picture


@dataclass(frozen=True)
class Gallery:
    """Cases in the order of classes, then best to worst; pictures as they first occur."""

    pictures: list[Picture]
    cases: list[Case]
    gate: str | None = None  # of the protocol, in words


def make_gallery(evaluated: Evaluated) -> Gallery:
    """The best, the median and the worst cases of every class by the IoU of what the protocol scores.

    Of equally bad ones those come first whose score is highest: sure, and wrong. More of each where there are few
    classes; no case is shown twice. Of several gates the protocol's first counts, which for `strict` is none. Empty
    where there are no regions.
    """
    found, ground_truth, source = evaluated.localization, evaluated.ground_truth, evaluated.source
    tables = (evaluated.numbers["localization"] or {}).get("tables")
    if found is None or ground_truth is None or source is None or not tables:
        return Gallery([], [])
    gate = tables[0]["gate"]
    passes = passes_gate(gate, evaluated, evaluated.predictions)[found.units.image, found.units.class_index]
    found = replace(found, overlap=BestOverlap(*(overlap * passes for overlap in found.overlap)))
    chosen = [
        (k, rank, u)
        for k in range(len(ground_truth.class_names))
        for rank, u in choose_units(found, evaluated.predictions.prob, k, _per_rank(found))
    ]
    place: dict[int, int] = {}
    for _, _, u in chosen:
        place.setdefault(int(found.units.image[u]), len(place))
    pictures = [_picture(evaluated, ground_truth.images[n], n) for n in place]
    regions = _protocol_regions(found, source)
    cases = [_case(evaluated, found, ground_truth, source, regions, passes, k, rank, u, place) for k, rank, u in chosen]
    return Gallery(pictures, cases, gate)


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
    ground_truth: GroundTruth,
    source: Source,
    regions: Sequence[Boxes],
    passes: Tensor,  # [U] bool
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
    values = map_of(source, n, k)
    return Case(
        picture=place[n],
        class_index=k,
        rank=rank,
        iou=found.overlap.iou[u].item(),
        ior=found.overlap.ior[u].item(),
        score=evaluated.predictions.prob[n, k].item(),
        threshold=None if found.rule.levels else found.thresholds[fold, k].item(),
        annotated=rectangles(annotated),
        found=rectangles(own) if passes[u] else [],
        shut=not passes[u],
        heat=None if values is None else heat_picture(values),
    )


def map_of(source: Source, n: int, k: int) -> Tensor | None:  # [P, Q]
    if not isinstance(source, MapSource):
        return None
    at = int(torch.searchsorted(source.images, n))
    return source.maps[at, k] if at < len(source.images) and int(source.images[at]) == n else None


def rectangles(boxes: Tensor) -> list[Rectangle]:  # [N, 4]
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
