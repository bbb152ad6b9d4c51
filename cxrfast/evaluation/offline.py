"""Evaluates predictions from files, without a model: scores, boxes, masks or heat maps.

The formats are described in docs/evaluation.md. Nothing is unpickled.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cxrfast.data.class_names import ClassMatcher, describe_matches
from cxrfast.data.datasets.interface import DataOptions
from cxrfast.data.datasets.registry import read_data
from cxrfast.data.image_names import ImageIndex
from cxrfast.data.records import Record
from cxrfast.data.splits import Splits
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation.evaluated_data import EvaluatedData
from cxrfast.evaluation.ground_truth import GroundTruth
from cxrfast.evaluation.protocols import Protocol, find_protocol
from cxrfast.evaluation.result import EvaluationResult
from cxrfast.evaluation.scoring import EvaluationMetadata, score_predictions
from cxrfast.evaluation.sources import BoxSource, MapSource, MaskSource, Source
from cxrfast.metrics.detection import Boxes
from cxrfast.predictions.files import read_files
from cxrfast.predictions.parsed import ParsedPredictions
from cxrfast.regions.rule import MethodDefaults, RegionRule
from cxrfast.runs.provenance import DRAWN_IMAGES


def evaluate_files(
    paths: Sequence[Path],
    ground_truth: GroundTruth,
    protocol: Protocol,
    facts: EvaluationMetadata,
    *,
    resamples: int = 1000,
) -> EvaluationResult:
    """Score files by a protocol, on the images of ``ground_truth``.

    Several files together are one prediction, for example scores in one and maps in another. A pair of image and class
    that is in no file has no region (a miss) and no score (left out of AUROC). If the files have boxes or masks but no
    scores, the score of a pair is that of its best region, or 0 if it has none and the files have the class. If they
    have maps but no scores, it is the maximum of the map.

    Raises :class:`CxrfastError`, with file and line, for a file that cannot be read or is inconsistent.
    """
    found = read_files(paths, ground_truth.class_names)
    return score_files(found, ground_truth, protocol, facts, resamples=resamples)


def read_maps(path: Path, ground_truth: GroundTruth) -> tuple[Source | None, MethodDefaults]:
    """Read a file of maps: the regions on the images of ``ground_truth``, and the defaults of the method."""
    found = read_files([path], ground_truth.class_names)
    return _source(found, ground_truth, ImageIndex(ground_truth.images)), _own(found, ground_truth)


def score_files(
    found: ParsedPredictions,
    ground_truth: GroundTruth,
    protocol: Protocol,
    facts: EvaluationMetadata,
    *,
    resamples: int = 1000,
) -> EvaluationResult:
    """Score parsed files: the second half of :func:`evaluate_files`."""
    image_of = ImageIndex(ground_truth.images)
    if found.images and not any(name in image_of for name in found.images):
        raise _strangers(found, facts.weights, f"the {len(ground_truth.images)} evaluated images", ground_truth.images)
    source = _source(found, ground_truth, image_of)
    scores = _scores(found, ground_truth, image_of, source)
    own = _own(found, ground_truth)
    facts = replace(facts, notes=(*facts.notes, *_notes(found, ground_truth, image_of, scores)))
    return score_predictions(protocol, ground_truth, scores, source, own, facts, resamples=resamples)


def evaluate_data_set(
    paths: Sequence[Path],
    data: Path,
    *,
    splits: Path | None = None,
    split: str = "test",
    options: DataOptions = DataOptions(),  # noqa: B008, frozen
    protocol: str = "strict",
    thresholds: Sequence[float] = (),
    resamples: int = 1000,
) -> EvaluationResult:
    """Score files against a data set in any known layout. Only its tables are needed, not its images.

    With ``splits``, the images of its part ``split`` are evaluated. Otherwise, these are the images that the files
    name and, if the files have regions, all images with boxes, because files of boxes do not list images without a
    detection. Classes are those of the data set that occur in the files or have boxes. Names of classes in the files
    are matched by their synonyms.
    """
    rules = find_protocol(protocol)
    if thresholds:
        rules = rules.with_thresholds(*thresholds)
    source = read_data(data, replace(options, images_required=False))
    found = read_files(paths, source.class_names, Path(data))
    matches = _match_classes(found, source.class_names)
    records, name, split_hash, patients = list(source.records), "all", None, None
    notes: tuple[str, ...] = ()
    if splits is not None:
        parts = Splits.load(splits)
        parts.check(records)
        seen = ("train", "val") if split == "test" else ("train",)
        patients = frozenset(record.patient for part in seen for record in parts.part(part, records))
        records, name, split_hash = parts.part(split, records), split, parts.hash
        if parts.label_version not in (None, source.label_version):
            notes = (f"{splits} was made with the labels of {parts.label_version}, not of {source.label_version}",)
    else:
        records = _named_records(found, records, f"the {len(records)} images of {data}", _and(paths))
    classes = _named_classes(found, source.class_names, records, _and(paths))
    if not records or not classes:
        raise CxrfastError(f"{_and(paths)}: no prediction in it, and no box to miss in {data}; is the file complete?")
    facts = EvaluationMetadata(
        split=name,
        label_version=source.label_version,
        method="predictions",
        weights=f"{_and(paths)} ({files_hash(paths)})",
        prediction_files=tuple(map(str, paths)),
        split_hash=split_hash,
        training_patients=patients,
        notes=(*notes, *((matches,) if matches else ())),
        warnings=(DRAWN_IMAGES,) if source.synthetic else (),
        data=EvaluatedData.of(source, options),
    )
    return score_files(found, GroundTruth.from_records(records, classes), rules, facts, resamples=resamples)


def files_hash(paths: Sequence[Path]) -> str:
    """12 hexadecimal digits of a hash of the files' contents."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(Path(path).read_bytes())
        except OSError as error:
            raise CxrfastError(f"predictions: {path} cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()[:12]


# Names to indices


def _and(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def _named_records(found: ParsedPredictions, records: list[Record], images: str, files: str) -> list[Record]:
    """The records that the files name and, if the files have regions, those with boxes."""
    names = [record.image for record in records]
    image_of = ImageIndex(names)
    named = {image_of[name] for name in found.images if name in image_of}
    if found.images and not named:
        raise _strangers(found, files, images, names)
    return [r for n, r in enumerate(records) if n in named or (r.boxes and found.has_regions)]


def _match_classes(found: ParsedPredictions, known: Sequence[str]) -> str | None:
    """Rename the classes of the files to those of the data set. Returns what was matched between other spellings."""
    matches = ClassMatcher(known).matches(found.classes)
    found.rename_classes(matches)
    return describe_matches(matches)


def _named_classes(found: ParsedPredictions, known: Sequence[str], records: Sequence[Record], files: str) -> list[str]:
    """The classes that occur in the files or have boxes."""
    if found.classes and not any(name in found.classes for name in known):
        first = next(iter(found.classes))
        raise CxrfastError(f"{files}: no known class (the first is {first}); expected {', '.join(known)}")
    boxed = {class_name for record in records for class_name in record.boxes}
    return [name for name in known if name in boxed or name in found.classes]


def _strangers(found: ParsedPredictions, files: str, images: str, names: Sequence[str]) -> CxrfastError:
    return CxrfastError(
        f"{files} names none of {images} (its first: {next(iter(found.images))}; theirs: "
        f"{next(iter(names), 'none')}); name images as the data set does"
    )


def _source(found: ParsedPredictions, ground_truth: GroundTruth, image_of: ImageIndex) -> Source | None:
    if found.maps and found.regions:
        raise UsageError("predictions: maps in one file and boxes or masks in another; give one kind of regions")
    if not found.has_regions:
        return None
    if found.maps:
        return _map_source(found, ground_truth, image_of)
    regions = [r for r in found.regions if r.image in image_of and r.class_name in ground_truth.class_names]
    boxes = Boxes(
        torch.tensor([image_of[r.image] for r in regions], dtype=torch.long),
        torch.tensor([ground_truth.class_names.index(r.class_name) for r in regions], dtype=torch.long),
        torch.tensor([r.xyxy for r in regions], dtype=torch.float64).view(-1, 4),
        torch.tensor([r.score for r in regions], dtype=torch.float64),
    )
    masks = [r.mask for r in regions if r.mask is not None]
    if masks and len(masks) < len(regions):
        raise UsageError("predictions: some regions are masks and others boxes; give one kind of regions")
    return MaskSource(masks, boxes) if masks else BoxSource(boxes)


def _map_source(found: ParsedPredictions, ground_truth: GroundTruth, image_of: ImageIndex) -> MapSource:
    """The maps of all files in one order of images and classes. A map that is in no file is 0."""
    images = sorted({image_of[name] for part in found.maps for name in part.images if name in image_of})
    row_of = {place: row for row, place in enumerate(images)}
    maps = torch.zeros(len(images), len(ground_truth.class_names), *found.maps[0].values.shape[2:])
    filled = torch.zeros(maps.shape[:2], dtype=torch.bool)
    for part in found.maps:
        chosen = [n for n, name in enumerate(part.images) if name in image_of]
        rows = torch.tensor([row_of[image_of[part.images[n]]] for n in chosen], dtype=torch.long)
        if len(rows.unique()) < len(rows):
            raise CxrfastError(f"{part.path}: an image is there by two names, with and without suffix; keep one")
        for at, name in enumerate(part.classes):
            if name not in ground_truth.class_names:
                continue
            k = ground_truth.class_names.index(name)
            again = filled[rows, k].nonzero()[:, 0].tolist()
            if again:
                image = part.images[chosen[again[0]]]
                raise CxrfastError(f"{part.path}: a map of {name} on {image} is in a file before; keep one of the two")
            maps[rows, k], filled[rows, k] = part.values[chosen, at], True
    size = found.method.get(("image_size", ""), 0) or None
    return MapSource(torch.tensor(images, dtype=torch.long), maps, size)


def _scores(
    found: ParsedPredictions, ground_truth: GroundTruth, image_of: ImageIndex, source: Source | None
) -> Tensor:  # [N, K]
    """NaN where there is no score: a class that is in no file has none."""
    scores = torch.full((len(ground_truth.images), len(ground_truth.class_names)), torch.nan)
    class_of = {name: k for k, name in enumerate(ground_truth.class_names)}
    for (image, class_name), value in found.scores.items():
        if image in image_of and class_name in class_of:
            pair = image_of[image], class_of[class_name]
            if not scores[pair].isnan():
                raise CxrfastError(
                    f"predictions: two scores of {class_name} on {ground_truth.images[pair[0]]}, by its names with and "
                    "without suffix; keep one of the two"
                )
            scores[pair] = value
    if found.scores or source is None:
        return scores
    if isinstance(source, MapSource):
        for part in found.maps:
            known = [(n, image_of[name]) for n, name in enumerate(part.images) if name in image_of]
            for at, name in enumerate(part.classes):
                if name in class_of:
                    peaks = part.values[[n for n, _ in known], at].amax(dim=(1, 2))
                    scores[[place for _, place in known], class_of[name]] = peaks
        return scores
    assert isinstance(source, BoxSource | MaskSource)
    boxes = source.found
    assert boxes.score is not None
    place = boxes.image * len(ground_truth.class_names) + boxes.class_index
    best = torch.zeros(scores.numel(), dtype=torch.float64)
    best = best.scatter_reduce(0, place, boxes.score, "amax").view(scores.shape)
    searched = torch.tensor([name in found.region_classes for name in ground_truth.class_names])
    return torch.where(searched, best, torch.nan).float()


def _own(found: ParsedPredictions, ground_truth: GroundTruth) -> MethodDefaults:
    """Defaults in the files of maps; otherwise regions as they are, and thresholds and operating points of ½."""

    def of_classes(what: str, default: float) -> Tensor:
        values = [found.method.get((what, name), default) for name in ground_truth.class_names]
        return torch.tensor(values, dtype=torch.float64)

    masks = any(region.mask is not None for region in found.regions)
    rule = RegionRule() if found.maps or masks else RegionRule("boxes")
    return MethodDefaults(
        found.method.get(("region_rule", ""), rule),
        of_classes("thresholds", 0.5 if found.maps else 0.0),
        of_classes("operating_points", 0.5),
    )


def _notes(found: ParsedPredictions, ground_truth: GroundTruth, image_of: ImageIndex, scores: Tensor) -> list[str]:
    named = {image_of[name] for name in found.images if name in image_of}
    strangers = [name for name in found.images if name not in image_of]
    unknown = sorted(found.classes.keys() - set(ground_truth.class_names))
    unsearched = [name for name in ground_truth.class_names if found.has_regions and name not in found.region_classes]
    scoreless = [name for name, column in zip(ground_truth.class_names, scores.T, strict=True) if column.isnan().all()]
    decided: dict[str, bool] = {}
    for (_, name), value in found.scores.items():
        decided[name] = decided.get(name, True) and value in (0.0, 1.0)
    certain = [name for name in ground_truth.class_names if decided.get(name)]
    notes = [
        f"{len(named)} of the {len(ground_truth.images)} evaluated images are named in the predictions",
        *found.notes,
    ]
    if strangers:
        notes.append(f"{len(strangers)} images of the predictions are not evaluated (first: {strangers[0]})")
    if unknown:
        notes.append(f"classes of the predictions that are not evaluated: {', '.join(unknown)}")
    if unsearched:
        notes.append(f"no regions in the predictions, so all annotations are missed: {', '.join(unsearched)}")
    if scoreless:
        notes.append(f"no scores in the predictions, so no AUROC: {', '.join(scoreless)}")
    if certain:
        notes.append(
            f"every score is 0 or 1; if these are labels, the numbers are not of predictions: {', '.join(certain)}"
        )
    return notes
