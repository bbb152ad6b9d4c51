"""Scores predictions of any source against the ground truth."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from cxrfast.errors import UsageError
from cxrfast.evaluation.evaluated_data import EvaluatedData
from cxrfast.evaluation.ground_truth import GroundTruth, count_pairs
from cxrfast.evaluation.localization import score_localization
from cxrfast.evaluation.protocols import Protocol
from cxrfast.evaluation.result import Calibration, Detection, EvaluationResult
from cxrfast.evaluation.sources import MapSource, Source
from cxrfast.metrics.bootstrap import (
    Interval,
    Statistic,
    bootstrap_interval_with_mean,
    weighted_auroc,
    weighted_average_precision,
)
from cxrfast.metrics.calibration import calibrate, expected_calibration_error, reliability_curve
from cxrfast.metrics.classification import Mean, mean_without_nan
from cxrfast.metrics.detection import Boxes, box_average_precision, froc, pointing_game
from cxrfast.metrics.operating import Rates, rates_at_operating_points
from cxrfast.predictions.table import Predictions, empty_overlaps
from cxrfast.regions.rule import MethodDefaults
from cxrfast.runs.provenance import Provenance

DETECTION_THRESHOLDS = (0.1, 0.3, 0.5)  # of the IoU, for mAP
FROC_THRESHOLD = 0.1


@dataclass(frozen=True)
class EvaluationMetadata:
    """Where predictions come from; stored in the record."""

    split: str
    label_version: str
    method: str
    weights: str  # path of the weights, or of the predictions
    split_hash: str | None = None
    training_patients: Collection[str] | None = None  # None: unknown
    prediction_files: tuple[str, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    learnt_from: Provenance | None = None  # None: not of weights that say it
    data: EvaluatedData | None = None


def score_predictions(
    protocol: Protocol,
    ground_truth: GroundTruth,
    scores: Tensor,  # [N, K]; NaN where there is none
    source: Source | None,  # None: no regions
    own: MethodDefaults,
    facts: EvaluationMetadata,
    *,
    temperature: Tensor | None = None,  # [K]
    resamples: int = 1000,
) -> EvaluationResult:
    """AUROC and AP of the scores, and localisation of the regions by the protocol."""
    shared = None
    if facts.training_patients is not None:
        shared = len(set(facts.training_patients) & set(ground_truth.patients))
        if shared and protocol.patients_apart:
            raise UsageError(
                f"protocol {protocol.name}: {shared} patients of the evaluated images are in the training data; "
                "evaluate images of other patients, or choose another protocol"
            )
    labels = torch.where(scores.isnan(), torch.nan, ground_truth.labels)
    known = scores.nan_to_num(0.5)
    localization = None
    if source is not None and len(ground_truth.boxes.image):
        localization = score_localization(protocol, source, ground_truth, known, own, resamples=resamples)
    iou, ior = empty_overlaps(*scores.shape), empty_overlaps(*scores.shape)
    if localization is not None:
        units, best = localization.units, localization.overlap
        # If a pair has several boxes that are counted one by one, the mean of their overlaps
        count = count_pairs(units.image, units.class_index, *scores.shape)
        for table, values in ((iou, best.iou), (ior, best.ior)):
            table[count > 0] = 0.0
            table.index_put_((units.image, units.class_index), values, accumulate=True)
            table /= count.clamp(min=1)
    calibrated = None if temperature is None else calibrate(known, temperature)
    auroc, mean_auroc = _interval(weighted_auroc(known, labels), ground_truth, resamples)
    precision, mean_precision = _interval(weighted_average_precision(known, labels), ground_truth, resamples)
    return EvaluationResult(
        protocol=protocol,
        split=facts.split,
        split_hash=facts.split_hash,
        images_hash=images_hash(ground_truth.images),
        label_version=facts.label_version,
        data=facts.data,
        method=facts.method,
        weights=facts.weights,
        prediction_files=facts.prediction_files,
        shared_patients=shared,
        class_names=ground_truth.class_names,
        n_images=len(ground_truth.images),
        n_patients=len(set(ground_truth.patients)),
        n_positive=tuple((labels == 1).sum(dim=0).tolist()),
        n_negative=tuple((labels == 0).sum(dim=0).tolist()),
        auroc=auroc,
        average_precision=precision,
        mean_auroc=mean_auroc,
        mean_average_precision=mean_precision,
        calibration=_calibration(known, calibrated, labels, temperature),
        rates=_rates(known, labels, own, ground_truth, resamples),
        localization=localization,
        detection=None if localization is None or source is None else _detection(source, ground_truth, known, own),
        notes=facts.notes,
        warnings=facts.warnings,
        learnt_from=facts.learnt_from,
        predictions=Predictions(
            class_names=ground_truth.class_names,
            images=ground_truth.images,
            patients=ground_truth.patients,
            prob=scores,
            labels=ground_truth.labels,
            n_boxes=ground_truth.n_boxes,
            iou=iou,
            ior=ior,
            prob_calibrated=calibrated,
            unreadable=dict(facts.unreadable),
        ),
        ground_truth=ground_truth,
        source=source,
        own=own,
    )


def images_hash(images: Sequence[str]) -> str:
    """12 hexadecimal digits of a hash of the set of names; their order does not matter."""
    return hashlib.sha256("\n".join(sorted(images)).encode()).hexdigest()[:12]


def _interval(statistic: Statistic, ground_truth: GroundTruth, resamples: int) -> tuple[Interval, Mean]:
    classes, (_, low, high) = bootstrap_interval_with_mean(statistic, ground_truth.patients, resamples=resamples)
    return classes, mean_without_nan(classes.value, ground_truth.class_names, (low.item(), high.item()))


def _calibration(
    scores: Tensor, calibrated: Tensor | None, labels: Tensor, temperature: Tensor | None
) -> Calibration | None:
    """None if scores are not probabilities."""
    if not _are_probabilities(scores):
        return None
    after = None
    if calibrated is not None:
        unknown = calibrated.isnan()
        after = expected_calibration_error(calibrated.nan_to_num(0.5), torch.where(unknown, torch.nan, labels))
    return Calibration(
        expected_calibration_error(scores, labels), after, temperature, reliability_curve(scores, labels)
    )


def _rates(
    scores: Tensor, labels: Tensor, own: MethodDefaults, ground_truth: GroundTruth, resamples: int
) -> Rates | None:
    """None if scores are not probabilities, which the operating points are thresholds of."""
    if not _are_probabilities(scores):
        return None
    return rates_at_operating_points(scores, labels, own.operating_points, ground_truth.patients, resamples=resamples)


def _are_probabilities(scores: Tensor) -> bool:
    return bool(((scores >= 0) & (scores <= 1)).all())


def _detection(source: Source, ground_truth: GroundTruth, scores: Tensor, own: MethodDefaults) -> Detection:
    """Detection by the boxes of the method's regions, on the images with any annotation.

    Where an image has a positive label but no box of a class, predicted boxes of the class are ignored: without an
    annotation they are neither true nor false positives.
    """
    boxes = source.boxes(replace(own.rule, gate=None), own.thresholds.double())
    annotated = ground_truth.n_boxes > 0
    decided = annotated.any(dim=1)[:, None] & (annotated | (ground_truth.labels != 1))
    if own.rule.gate is not None:
        decided &= scores > own.rule.gate
    counted = decided[boxes.image, boxes.class_index]
    boxes = Boxes(*(column[counted] for column in boxes if column is not None))
    k, n = len(ground_truth.class_names), int(annotated.any(dim=1).sum())
    pointing = torch.full((k,), torch.nan, dtype=torch.float64)
    if isinstance(source, MapSource):
        units = ground_truth.units("annotation")
        inside = torch.isin(units.image, source.images)
        place = torch.searchsorted(source.images, units.image[inside])
        found = pointing_game(source.maps[place, units.class_index[inside]], units.boxes[inside], units.has_box[inside])
        size = torch.bincount(units.class_index, minlength=k)
        pointing = torch.zeros(k, dtype=torch.float64).index_add(0, units.class_index[inside], found) / size
    curve = froc(boxes, ground_truth.boxes, k, n, FROC_THRESHOLD)
    return Detection(
        n_images=n,
        thresholds=DETECTION_THRESHOLDS,
        average_precision=box_average_precision(boxes, ground_truth.boxes, k, DETECTION_THRESHOLDS),
        froc_threshold=FROC_THRESHOLD,
        froc=curve,
        pointing=pointing,
    )
