"""Localises diseases on one image, with boxes in its pixel coordinates."""

import os

import numpy as np
import torch

from cxrfast.data.images import ImageFile, read_image_file
from cxrfast.data.phantoms.marker import is_phantom_image
from cxrfast.data.transforms import to_input
from cxrfast.errors import UsageError
from cxrfast.inference.findings import ClassFinding, FoundBox, Localization
from cxrfast.regions.prediction import Predictor, predict
from cxrfast.regions.rule import Regions
from cxrfast.runs.provenance import Provenance


def localize(
    predictor: Predictor,
    image: str | os.PathLike | np.ndarray,
    *,
    score_threshold: float | None = None,
    top: int | None = None,
    max_pixels: int | None = None,
) -> Localization:
    """Find diseases on one image, with boxes.

    A class is *detected*, and reported, if its score is at least ``score_threshold``. The default threshold is the
    model's operating point for the class, ``predictor.operating_points``. The boxes of a class enclose its regions
    according to the method's rule, ``predictor.region_rule``. For most methods, regions are connected patches (8
    neighbours) whose map value is at least the threshold of the class, ``predictor.thresholds``. Scores and maps are
    separate outputs: many weak patches may add up to a high score although none reaches the map threshold. Such a class
    is reported without a box.

    Args:
        image: a file that :func:`cxrfast.data.images.read_image` can read, or grey values ``[H, W]`` in [0, 1].
        max_pixels: the largest image that is read; see :func:`cxrfast.data.images.read_image`.
        top: report the ``top`` classes with the highest scores instead, detected or not.

    Raises :class:`CxrfastError` for a file that cannot be read.
    """
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise UsageError(f"score-threshold: expected a number in [0, 1], got {score_threshold}")
    if top is not None and top < 1:
        raise UsageError(f"top: expected a number of classes of at least 1, got {top}")
    source = None if isinstance(image, np.ndarray) else os.fspath(image)
    read = (
        ImageFile(_check_pixels(image))
        if isinstance(image, np.ndarray)
        else read_image_file(image, max_pixels=max_pixels)
    )
    pixels = read.pixels
    prediction = predict(predictor, to_input(pixels, predictor.image_size)[None])
    regions = predictor.region_rule.find(
        prediction.maps, predictor.thresholds, scores=prediction.scores, image_size=predictor.image_size
    )
    boxes = _boxes(regions, *pixels.shape)
    scores = prediction.scores[0].tolist()
    provenance: Provenance | None = getattr(predictor, "provenance", None)
    points = [score_threshold] * len(scores) if score_threshold is not None else predictor.operating_points.tolist()
    return Localization(
        source=source,
        image=pixels,
        notes=read.notes,
        classes=tuple(
            ClassFinding(name, score, score >= point, point, threshold, found)
            for name, score, point, threshold, found in zip(
                predictor.class_names, scores, points, predictor.thresholds.tolist(), boxes, strict=True
            )
        ),
        maps=prediction.maps[0].float().cpu(),
        top=top,
        model={
            "method": predictor.method,
            "weights": str(predictor.weights),
            "label_version": predictor.label_version,
            "image_size": predictor.image_size,
            **({"notes": list(notes)} if (notes := getattr(predictor, "notes", ())) else {}),
            **({} if provenance is None else {"learnt_from": provenance.facts}),
        },
        warnings=_warnings(provenance, source),
    )


def _warnings(provenance: Provenance | None, source: str | None) -> tuple[str, ...]:
    """Of grey values without a file, nobody knows whether they are a phantom."""
    if provenance is None:
        return ()
    return provenance.warnings if source is None else provenance.warnings_for(synthetic=is_phantom_image(source))


def _check_pixels(image: np.ndarray) -> np.ndarray:
    if image.ndim != 2 or image.size == 0 or image.dtype.kind != "f":
        raise ValueError(f"image: expected floating-point values [H, W], got {image.dtype} {list(image.shape)}")
    if not (image.min() >= 0 and image.max() <= 1):  # NaN too
        raise ValueError(f"image: expected values in [0, 1], got {image.min():g} to {image.max():g}")
    return np.ascontiguousarray(image, dtype=np.float32)


def _boxes(
    regions: Regions,  # of one image
    height: int,
    width: int,
) -> list[tuple[FoundBox, ...]]:
    """Boxes of each of the K classes, in an image of ``height`` × ``width`` pixels, most confident first."""
    found, (rows, columns) = regions.boxes, regions.size
    # Multiply before dividing, in float64, so that a box at the edge of the grid ends exactly at the edge of the image
    corners = found.boxes.double().cpu() * torch.tensor([width, height] * 2) / torch.tensor([columns, rows] * 2)
    areas = found.area.double().cpu() * (width * height) / (columns * rows)
    per_class: list[list[FoundBox]] = [[] for _ in range(regions.masks.shape[1])]
    for k, xyxy, peak, mean, area in zip(
        found.channel.tolist(), corners.tolist(), found.peak.tolist(), found.mean.tolist(), areas.tolist(), strict=True
    ):
        per_class[k].append(FoundBox((xyxy[0], xyxy[1], xyxy[2], xyxy[3]), peak, mean, area))
    return [tuple(sorted(boxes, key=lambda box: -box.confidence)) for boxes in per_class]
