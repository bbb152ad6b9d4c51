"""Evaluate predictions that anybody has written to a file: scores, boxes, masks or heat maps, without a model.

The formats are described in docs/evaluation.md. Nothing is unpickled.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cxrfast.data.chestxray14 import read_chestxray14
from cxrfast.data.labels import CLASSES
from cxrfast.data.splits import Splits
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation.detection import Boxes
from cxrfast.evaluation.localization import OwnRule
from cxrfast.evaluation.prediction_files import FoundInFiles, read_file
from cxrfast.evaluation.protocols import Protocol, find_protocol
from cxrfast.evaluation.result import EvaluationResult
from cxrfast.evaluation.scoring import Facts, score_predictions
from cxrfast.evaluation.sources import BoxSource, MapSource, MaskSource, Source
from cxrfast.evaluation.truth import Truth
from cxrfast.regions import RegionRule


def evaluate_files(
    paths: Sequence[Path],
    truth: Truth,
    protocol: Protocol,
    facts: Facts,
    *,
    resamples: int = 1000,
) -> EvaluationResult:
    """Score files by a protocol, on the images of ``truth``.

    Several files are one prediction: for example scores in one and maps in the other. An image and class that no file
    names has no region, which is a miss, and no score: it is left out of AUROC. Where the files have regions but no
    scores, the score of an image and class is that of its best region, or 0.

    Raises :class:`CxrfastError` for a file that cannot be read or contradicts itself, naming it and the place.
    """
    return score_files(read_files(paths), truth, protocol, facts, resamples=resamples)


def read_files(paths: Sequence[Path]) -> FoundInFiles:
    """Several files as one prediction."""
    found = FoundInFiles()
    for path in paths:
        read_file(Path(path), found)
    return found


def read_maps(path: Path, truth: Truth) -> tuple[Source | None, OwnRule]:
    """A file of maps as regions of the images of ``truth``, and what it says about its method."""
    found = read_files([path])
    return _source(found, truth, _names(truth.images)), _own(found, truth)


def score_files(
    found: FoundInFiles, truth: Truth, protocol: Protocol, facts: Facts, *, resamples: int = 1000
) -> EvaluationResult:
    """The second half of :func:`evaluate_files`."""
    image_of = _names(truth.images)
    used = {name for name in _all_images(found) if name in image_of}
    if not used:
        example = next(iter(_all_images(found)), "none")
        raise CxrfastError(
            f"{facts.weights} names none of the {len(truth.images)} evaluated images (its first: {example}; theirs: "
            f"{truth.images[0]}); name images as the data set does"
        )
    source = _source(found, truth, image_of)
    scores = _scores(found, truth, image_of, source)
    notes = _notes(found, truth, used)
    own = _own(found, truth)
    facts = replace(facts, notes=(*facts.notes, *notes))
    return score_predictions(protocol, truth, scores, source, own, facts, resamples=resamples)


def evaluate_data_set(
    paths: Sequence[Path],
    data: Path,
    *,
    splits: Path | None = None,
    split: str = "test",
    labels: str = "auto",
    protocol: str = "strict",
    thresholds: Sequence[float] = (),
    resamples: int = 1000,
) -> EvaluationResult:
    """Score files against a folder in the layout of ChestX-ray14; its images need not be there, only its tables.

    With ``splits``, the images of one of its parts. Without, those that the files name, and, where the files have
    regions, those with boxes: somebody who writes boxes writes nothing for an image on which nothing was found. Classes
    are the data set's, less those that neither the files nor the boxes name.
    """
    rules = find_protocol(protocol)
    if thresholds:
        rules = rules.with_thresholds(*thresholds)
    found = read_files(paths)
    source = read_chestxray14(data, labels=labels, images_required=False)
    records, name, split_hash, patients = list(source.records), "all", None, None
    if splits is not None:
        parts = Splits.load(splits)
        parts.check(records)
        seen = ("train", "val") if split == "test" else ("train",)
        patients = frozenset(record.patient for part in seen for record in parts.part(part, records))
        records, name, split_hash = parts.part(split, records), split, parts.hash
    else:
        named = {Path(image).stem for image in _all_images(found)}
        records = [r for r in records if Path(r.image).stem in named or (r.boxes and found.has_regions)]
    boxed = {class_name for record in records for class_name in record.boxes}
    classes = [name for name in CLASSES if name in boxed or name in _all_classes(found)]
    if not records or not classes:
        raise CxrfastError(
            f"{data}: nothing to evaluate; neither the predictions nor boxes name an image or class of it"
        )
    facts = Facts(
        split=name,
        label_version=source.label_version,
        method="predictions",
        weights=f"{', '.join(map(str, paths))} ({files_hash(paths)})",
        split_hash=split_hash,
        training_patients=patients,
    )
    return score_files(found, Truth.from_records(records, classes), rules, facts, resamples=resamples)


def files_hash(paths: Sequence[Path]) -> str:
    """12 hexadecimal digits of the files' contents."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(Path(path).read_bytes())
        except OSError as error:
            raise CxrfastError(f"predictions: {path} cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()[:12]


# From names to numbers


def _names(images: Sequence[str]) -> dict[str, int]:
    """Place of every image, by its name and by its stem."""
    places = {Path(name).stem: n for n, name in enumerate(images)}
    return places | {name: n for n, name in enumerate(images)}


def _all_images(found: FoundInFiles) -> dict[str, None]:
    names = [image for image, _ in found.scores] + [region.image for region in found.regions] + list(found.maps)
    return dict.fromkeys(names)


def _all_classes(found: FoundInFiles) -> set[str]:
    return {name for _, name in found.scores} | {r.class_name for r in found.regions} | set(found.map_classes)


def _source(found: FoundInFiles, truth: Truth, image_of: dict[str, int]) -> Source | None:
    if found.maps and found.regions:
        raise UsageError("predictions: maps in one file and boxes or masks in another; give one kind of regions")
    if not found.has_regions:
        return None
    if found.maps:
        places = sorted((image_of[name], name) for name in found.maps if name in image_of)
        # A class that the maps lack has nowhere a value.
        shape = next(iter(found.maps.values())).shape[1:]
        maps = torch.full((len(places), len(truth.class_names), *shape), 0.0)
        for k, name in enumerate(truth.class_names):
            if name in found.map_classes:
                at = found.map_classes.index(name)
                maps[:, k] = torch.stack([found.maps[image][at] for _, image in places])
        size = int(found.own.get("image_size", 0)) or None
        return MapSource(torch.tensor([place for place, _ in places], dtype=torch.long), maps, size)
    regions = [r for r in found.regions if r.image in image_of and r.class_name in truth.class_names]
    boxes = Boxes(
        torch.tensor([image_of[r.image] for r in regions], dtype=torch.long),
        torch.tensor([truth.class_names.index(r.class_name) for r in regions], dtype=torch.long),
        torch.tensor([r.xyxy for r in regions], dtype=torch.float64).view(-1, 4),
        torch.tensor([r.score for r in regions], dtype=torch.float64),
    )
    masks = [r.mask for r in regions if r.mask is not None]
    if masks and len(masks) < len(regions):
        raise UsageError("predictions: some regions are masks and others boxes; give one kind of regions")
    return MaskSource(masks, boxes) if masks else BoxSource(boxes)


def _scores(found: FoundInFiles, truth: Truth, image_of: dict[str, int], source: Source | None) -> Tensor:  # [N, K]
    scores = torch.full((len(truth.images), len(truth.class_names)), torch.nan)
    class_of = {name: k for k, name in enumerate(truth.class_names)}
    for (image, class_name), value in found.scores.items():
        if image in image_of and class_name in class_of:
            scores[image_of[image], class_of[class_name]] = value
    if found.scores or source is None:
        return scores
    if isinstance(source, MapSource):
        scores[source.images] = source.maps.amax(dim=(2, 3))
        return scores
    assert isinstance(source, BoxSource | MaskSource)
    boxes = source.found
    assert boxes.score is not None
    place = boxes.image * len(truth.class_names) + boxes.class_index
    best = torch.zeros(scores.numel(), dtype=torch.float64)
    return best.scatter_reduce(0, place, boxes.score, "amax").view(scores.shape).float()


def _own(found: FoundInFiles, truth: Truth) -> OwnRule:
    """What the file of maps says; else every region as it is, and ½ for maps and scores."""
    k = len(truth.class_names)
    threshold = torch.full((k,), 0.5 if found.maps else 0.0, dtype=torch.float64)
    points = torch.full((k,), 0.5, dtype=torch.float64)
    rule = RegionRule() if found.maps else RegionRule("boxes")
    if any(region.mask is not None for region in found.regions):
        rule = RegionRule()
    for name, values in (("thresholds", threshold), ("operating_points", points)):
        if name in found.own:
            for at, class_name in enumerate(found.map_classes):
                if class_name in truth.class_names:
                    values[truth.class_names.index(class_name)] = float(found.own[name][at])
    if "region_rule" in found.own:
        try:
            fields = json.loads(str(found.own["region_rule"]))
            rule = RegionRule(**{**fields, "levels": tuple(fields.get("levels", ()))})
        except (TypeError, ValueError) as error:
            raise CxrfastError(
                f"region_rule in the file of maps is not one of cxrfast ({error}); leave it out"
            ) from error
    return OwnRule(rule, threshold, points)


def _notes(found: FoundInFiles, truth: Truth, used: set[str]) -> list[str]:
    strangers = [name for name in _all_images(found) if name not in used]
    unknown = sorted(_all_classes(found) - set(truth.class_names))
    notes = [f"{len(used)} of the {len(truth.images)} evaluated images are named in the predictions"]
    if strangers:
        notes.append(f"{len(strangers)} images of the predictions are not evaluated (first: {strangers[0]})")
    if unknown:
        notes.append(f"classes of the predictions that are not evaluated: {', '.join(unknown)}")
    return notes
