"""Evaluations of any size, made up: images, maps that more or less find a box, scores that more or less know."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cxrfast.data import Record
from cxrfast.evaluation import EvaluationMetadata, GroundTruth, MapSource, find_protocol, score_predictions
from cxrfast.evaluation.sources import BoxSource
from cxrfast.metrics import Boxes
from cxrfast.regions.rule import MethodDefaults, RegionRule
from cxrfast.report import Evaluated, from_result

CUT_OFF = (
    """[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.ariaLabel)"""
)
"""Script: the tables that are wider than their place on the screen."""
FILES = 4  # pictures on disk, shared by the records


def made_up(
    folder: Path,
    images: int,
    class_names: Sequence[str],
    *,
    seed: int = 0,
    rule: RegionRule | None = None,
    protocol: str = "strict",
    grid: tuple[int, int] = (10, 12),
    threshold: float = 0.5,
    boxed: Sequence[str] | None = None,
    regions: str = "maps",
    noise: float = 0.0,
    point: float = 0.5,
    thresholds: Sequence[float] = (),
) -> Evaluated:
    """`boxed` are the classes that have boxes (default: all); `regions` are maps, boxes or none. `noise` is added to
    the scores, `point` the operating point, and `thresholds` replace the protocol's T."""
    generator = torch.Generator().manual_seed(seed)
    k = len(class_names)
    labels = (torch.rand(images, k, generator=generator) < max(0.15, 3 / images)).float()
    ground_truth = _truth(labels, class_names, boxed or class_names, generator)
    scores = (0.35 * labels + 0.6 * torch.rand(images, k, generator=generator)).clamp(0.01, 0.99)
    annotated = (ground_truth.n_boxes > 0).any(dim=1).nonzero()[:, 0]
    maps = _maps(ground_truth, annotated, grid, generator)
    rule = rule or RegionRule()
    source = MapSource(annotated, maps, 60)
    if regions == "boxes":
        source = BoxSource(source.boxes(RegionRule("boxes"), torch.full((k,), 0.4)))
    scores = (scores + noise * torch.randn(images, k, generator=generator)).clamp(0.01, 0.99)
    own = MethodDefaults(rule, torch.full((k,), threshold), torch.full((k,), point))
    facts = EvaluationMetadata("test", "2017", "made-up", "nowhere.safetensors", training_patients=())
    used = None if regions == "none" else source
    rules = find_protocol(protocol)
    rules = rules.with_thresholds(*thresholds) if thresholds else rules
    result = score_predictions(rules, ground_truth, scores, used, own, facts, resamples=20)
    return from_result(result, _records(folder, ground_truth))


def _truth(
    labels: torch.Tensor, class_names: Sequence[str], boxed: Sequence[str], generator: torch.Generator
) -> GroundTruth:
    has = torch.tensor([name in boxed for name in class_names])
    image, class_index = (labels.bool() & has).nonzero(as_tuple=True)
    corner = 0.05 + 0.5 * torch.rand(len(image), 2, generator=generator, dtype=torch.float64)
    size = 0.1 + 0.3 * torch.rand(len(image), 2, generator=generator, dtype=torch.float64)
    names = [f"{n:08d}_000.png" for n in range(len(labels))]
    boxes = Boxes(image, class_index, torch.cat([corner, corner + size], dim=1))
    return GroundTruth(tuple(class_names), names, [f"p{n // 2}" for n in range(len(labels))], labels, boxes)


def _maps(
    ground_truth: GroundTruth, annotated: torch.Tensor, grid: tuple[int, int], generator: torch.Generator
) -> torch.Tensor:
    rows, columns = grid
    maps = 0.45 * torch.rand(len(annotated), len(ground_truth.class_names), rows, columns, generator=generator)
    y = ((torch.arange(rows) + 0.5) / rows)[:, None]
    x = ((torch.arange(columns) + 0.5) / columns)[None]
    for n, k, box in zip(
        ground_truth.boxes.image, ground_truth.boxes.class_index, ground_truth.boxes.xyxy, strict=True
    ):
        x1, y1, x2, y2 = (box + 0.1 * torch.randn(4, generator=generator)).tolist()
        at = int(torch.searchsorted(annotated, n))
        maps[at, k] += 0.4 * ((x > x1) & (x < x2) & (y > y1) & (y < y2))
    return maps


def _records(folder: Path, ground_truth: GroundTruth) -> list[Record]:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (FILES, 75, 60), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).resize((480, 600), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return [
        Record(name, folder / f"{n % FILES}.png", patient, frozenset())
        for n, (name, patient) in enumerate(zip(ground_truth.images, ground_truth.patients, strict=True))
    ]
