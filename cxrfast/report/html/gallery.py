"""Selects the cases of a report, and draws their pictures."""

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cxrfast.data.images import read_image
from cxrfast.errors import CxrfastError
from cxrfast.evaluation.record import AnnotationRecord, Gate, LocalizationRecord, NoGate
from cxrfast.evaluation.sources import MapSource, Source
from cxrfast.metrics.detection import Boxes
from cxrfast.report.facts import Evaluated, passes_gate

SIDE = 416  # pixels of the longer side of an embedded picture
CASES = 40  # approximate number of cases in all
MOST_PER_RANK = 4
HEAT = "YlOrRd"  # colour map, as in `cxrfast localize`
Rank = Literal["best", "median", "worst"]
Rectangle = tuple[float, float, float, float]  # xyxy as fractions of the image


class Picture(NamedTuple):
    """An image of the report. It is embedded once, even if it is shown several times."""

    name: str
    n: int  # place among the evaluated images
    width: int  # of the file, in pixels
    height: int
    data: str | None  # data URI
    reason: str  # why there is no data


@dataclass(frozen=True)
class Case:
    """One pair of image and class, with the region that the protocol scored."""

    picture: int
    class_index: int
    rank: Rank
    iou: float
    ior: float
    score: float  # of the image; NaN if there is none
    threshold: float | None  # of the map; None if the rule has levels
    annotated: list[Rectangle]
    found: list[Rectangle]
    shut: bool  # by the gallery's gate: no region counts
    heat: str | None  # data URI of the map's picture


@dataclass(frozen=True)
class Gallery:
    """Cases, by class and from best to worst, and their pictures in order of first use."""

    pictures: list[Picture]
    cases: list[Case]
    gate: Gate  # of the protocol


def make_gallery(evaluated: Evaluated) -> Gallery:
    """The best, the median and the worst cases of every class, by the IoU that the protocol scores.

    Among misses, those with the highest score are taken. With few classes, more cases of each rank are shown; no case
    is shown twice. If the protocol has several gates, its first one applies (`strict`: none). Empty without regions.
    """
    found, source = evaluated.record.localization, evaluated.source
    if found is None or evaluated.ground_truth is None or source is None or not found.tables:
        return Gallery([], [], NoGate())
    gate = found.tables[0].gate
    units = list(_units(evaluated, found, passes_gate(gate, evaluated, evaluated.predictions)))
    names = evaluated.predictions.class_names
    per_rank = min(max(round(CASES / (3 * max(len({unit.k for unit in units}), 1))), 1), MOST_PER_RANK)
    chosen = [
        (rank, unit)
        for k in range(len(names))
        for rank, unit in choose_units([unit for unit in units if unit.k == k], per_rank)
    ]
    shown: dict[int, int] = {}
    for _, unit in chosen:
        shown.setdefault(unit.n, len(shown))
    pictures = [_picture(evaluated, evaluated.predictions.images[n], n) for n in shown]
    regions = _protocol_regions(found, source, names)
    cases = [_case(found, source, regions, rank, unit, shown[unit.n]) for rank, unit in chosen]
    return Gallery(pictures, cases, gate)


class Unit(NamedTuple):
    """An annotation, with its indices in the predictions."""

    annotation: AnnotationRecord
    n: int  # index of its image
    k: int  # index of its class
    score: float  # of the image; NaN if there is none
    open: bool  # whether the gallery's gate is open

    @property
    def iou(self) -> float:
        return self.annotation.iou if self.open else 0.0


def _units(evaluated: Evaluated, found: LocalizationRecord, passes: Tensor) -> Iterator[Unit]:  # [N, K] bool
    image = {name: n for n, name in enumerate(evaluated.predictions.images)}
    column = {name: k for k, name in enumerate(evaluated.predictions.class_names)}
    for annotation in found.annotations:
        n, k = image[annotation.image], column[annotation.class_name]
        yield Unit(annotation, n, k, evaluated.predictions.prob[n, k].item(), bool(passes[n, k]))


def choose_units(units: Sequence[Unit], count: int) -> list[tuple[Rank, Unit]]:
    """The units of one class that are shown, best first: ``count`` of each rank, or fewer."""

    def order(unit: Unit) -> tuple[float, float]:
        score = 0.0 if math.isnan(unit.score) else unit.score
        return -unit.iou, score if unit.iou == 0 else -score

    ordered = sorted(units, key=order)
    count = min(count, max(len(ordered) // 3, 1))
    best, rest = ordered[:count], ordered[count:]
    worst = rest[max(len(rest) - count, 0) :]
    middle = rest[: len(rest) - len(worst)]
    start = max((len(middle) - count) // 2, 0)
    ranked: dict[Rank, Sequence[Unit]] = {
        "best": best,
        "median": middle[start : start + count],
        "worst": worst,
    }
    return [(rank, unit) for rank, members in ranked.items() for unit in members]


def _protocol_regions(found: LocalizationRecord, source: Source, class_names: Sequence[str]) -> list[Boxes]:
    """Boxes of the regions that the protocol scores, for each row of its thresholds."""
    if found.minmax_normalised and isinstance(source, MapSource):
        source = source.minmax_normalised()
    rows = [[row[name] for name in class_names] for row in found.thresholds]
    return [source.boxes(found.rule, torch.tensor(row, dtype=torch.float64)) for row in rows]


def _case(
    found: LocalizationRecord, source: Source, regions: Sequence[Boxes], rank: Rank, unit: Unit, picture: int
) -> Case:
    annotation = unit.annotation
    boxes = regions[annotation.fold]
    own = boxes.xyxy[(boxes.image == unit.n) & (boxes.class_index == unit.k)]
    values = map_of(source, unit.n, unit.k)
    return Case(
        picture=picture,
        class_index=unit.k,
        rank=rank,
        iou=unit.iou,
        ior=annotation.ior if unit.open else 0.0,
        score=unit.score,
        threshold=None if found.rule.levels else found.threshold_of(annotation),
        annotated=list(annotation.boxes),
        found=rectangles(own) if unit.open else [],
        shut=not unit.open,
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
    return Picture(image, n, pixels.shape[1], pixels.shape[0], embed_picture(pixels), "")


def embed_picture(pixels: np.ndarray) -> str:  # [H, W] float32
    """A JPEG as data URI, at most :data:`SIDE` pixels large, with its range of values stretched to black and white."""
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
    """A map as PNG (data URI) with one pixel per cell, transparent at 0 and 62 % opaque at 1."""
    from matplotlib import colormaps
    from PIL import Image

    heat = values.clamp(0, 1).numpy()
    colours = colormaps[HEAT](heat)
    colours[..., 3] = opacity(heat)
    buffer = io.BytesIO()
    Image.fromarray((255 * colours + 0.5).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def opacity(heat: np.ndarray) -> np.ndarray:
    """Opacity of a heat-map value in [0, 1]: 0.62 · value^0.7. viewer.js has the same formula."""
    return 0.62 * np.clip(heat, 0, 1) ** 0.7
