"""Scores regions by a protocol: tables of localisation accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cxrfast.data.dealing import deal_in_turn
from cxrfast.evaluation.ground_truth import GroundTruth, Units
from cxrfast.evaluation.oracle import oracle
from cxrfast.evaluation.protocols import OWN, Folds, HitCriterion, Protocol
from cxrfast.evaluation.record import Gate, NoGate, OperatingPointGate, ScoreGate
from cxrfast.evaluation.sources import MapSource, Source, pair_overlaps
from cxrfast.metrics.bootstrap import bootstrap_interval_with_mean, weighted_mean
from cxrfast.metrics.classification import Mean, mean_without_nan
from cxrfast.metrics.overlap import TIE, BestOverlap
from cxrfast.regions.rule import MethodDefaults, RegionRule

LEVELS = torch.linspace(-7, 7, 29, dtype=torch.float64).sigmoid()
"""Candidate thresholds of protocols that choose on folds: σ(−7), σ(−6.5) … σ(7). They do not depend on data."""


@dataclass(frozen=True)
class AccuracyTable:
    """Accuracies by one measure, behind one gate: a row per T, a column per class."""

    criterion: HitCriterion
    gate: Gate
    hits: Tensor  # [T, K] int64
    accuracy: Tensor  # [T, K] float64, NaN for a class without annotations
    low: Tensor  # [T, K] float64: 95 % interval, by patient
    high: Tensor  # [T, K] float64
    mean_interval: Tensor  # [2, T] float64: of the mean over the classes with annotations
    oracle: Tensor | None  # [T, K] float64: accuracy of oracle regions under the same rule
    false_positives: Tensor | None  # [T, K] int64: boxes that hit nothing
    afp: Tensor | None  # [T, K] float64: false_positives / all annotated boxes

    def means(self, class_names: Sequence[str]) -> list[Mean]:
        """For each T, the mean over the classes with annotations."""
        rows = zip(self.accuracy, *self.mean_interval.tolist(), strict=True)
        return [mean_without_nan(row, class_names, (low, high)) for row, low, high in rows]


@dataclass(frozen=True)
class LocalizationResult:
    """All tables of a protocol, with the thresholds used and the overlap of every unit."""

    protocol: Protocol
    rule: RegionRule
    n_units: Tensor  # [K] int64: annotations or boxes, the denominators
    tables: tuple[AccuracyTable, ...]
    thresholds: Tensor  # [folds or 1, K] float64: of the map
    fold: Tensor | None  # [U] int64: row of thresholds; None: one row
    units: Units
    overlap: BestOverlap  # [U], without gates
    fallbacks: int  # annotations scored at the method's own threshold because no other fold has their class
    grid: tuple[int, int] | None


def score_localization(
    protocol: Protocol,
    source: Source,
    ground_truth: GroundTruth,
    scores: Tensor,  # [N, K], for gates
    own: MethodDefaults,
    *,
    resamples: int = 1000,
) -> LocalizationResult:
    """Score regions by a protocol. The accuracy of a class without annotations is NaN."""
    units = ground_truth.units(protocol.unit)
    num_classes = len(ground_truth.class_names)
    if protocol.minmax_normalised and isinstance(source, MapSource):
        source = source.minmax_normalised()
    rule = replace(protocol.region or own.rule, gate=None)  # gates are the protocol's
    patients = [ground_truth.patients[n] for n in units.image.tolist()]
    found, thresholds, fold, fallbacks = _apply(protocol, source, units, rule, own, ground_truth, patients)
    tables = []
    best: dict[str, Tensor] = {}
    if isinstance(source, MapSource):
        measures = {criterion.measure for criterion in protocol.criteria}
        best = {measure: oracle(units, source.grid, rule, measure, source.image_size) for measure in measures}
    for gate in protocol.gates:
        passes, opened = _gate(gate, scores, own)
        for criterion in protocol.criteria:
            overlap = getattr(found, criterion.measure) * passes[units.image, units.class_index]
            false = None
            if protocol.false_positives:
                false = _false_positives(source, units, rule, thresholds[0], criterion, passes, num_classes)
            tables.append(
                _table(
                    criterion,
                    opened,
                    overlap,
                    best.get(criterion.measure),
                    false,
                    units,
                    num_classes,
                    len(ground_truth.boxes.xyxy),
                    patients,
                    resamples,
                )
            )
    n_units = torch.bincount(units.class_index, minlength=num_classes)
    return LocalizationResult(
        protocol, rule, n_units, tuple(tables), thresholds, fold, units, found, fallbacks, source.grid
    )


def hits_at(overlap: Tensor, criterion: HitCriterion) -> Tensor:  # [U] -> [T, U] bool
    """Which overlaps are hits. An overlap within 1e-6 of T equals T: a hit under "≥", a miss under ">"."""
    t = torch.tensor(criterion.thresholds, dtype=torch.float64)[:, None]
    return overlap >= t - TIE if criterion.inclusive else overlap > t + TIE


def _apply(
    protocol: Protocol,
    source: Source,
    units: Units,
    rule: RegionRule,
    own: MethodDefaults,
    ground_truth: GroundTruth,
    patients: list[str],
) -> tuple[BestOverlap, Tensor, Tensor | None, int]:
    """Best overlap of every unit, the thresholds used, the units' folds, and the number of fallbacks."""
    if isinstance(protocol.threshold, Folds):
        return _nested(protocol.threshold, source, units, rule, own, ground_truth, patients)
    thresholds = own.thresholds.double()
    if isinstance(protocol.threshold, float):
        thresholds = torch.full_like(thresholds, protocol.threshold)
    return source.overlaps(units, rule, thresholds), thresholds[None], None, 0


def _nested(
    folds: Folds,
    source: Source,
    units: Units,
    rule: RegionRule,
    own: MethodDefaults,
    ground_truth: GroundTruth,
    patients: list[str],
) -> tuple[BestOverlap, Tensor, Tensor, int]:
    """For each fold, and each class unless pooled, the level with the largest mean IoU on the other folds; the lowest
    if several are equal."""
    k = len(ground_truth.class_names)
    groups = {
        "patient": patients,
        "image": [ground_truth.images[n] for n in units.image.tolist()],
        "box": [str(u) for u in range(len(units.image))],
    }[folds.by]
    fold = torch.tensor(deal_in_turn([[k] for k in units.class_index.tolist()], groups, folds.count), dtype=torch.long)
    # The last row is the method's own threshold, for classes that no other fold has.
    levels = torch.cat([LEVELS[:, None].expand(-1, k), own.thresholds.double().cpu()[None]])
    found = [source.overlaps(units, rule, level) for level in levels]
    iou, ior = torch.stack([f.iou for f in found]), torch.stack([f.ior for f in found])  # [levels, U]
    chosen = torch.full((folds.count, k), len(LEVELS))
    for f in range(folds.count):
        total = torch.zeros(len(LEVELS), k, dtype=torch.float64)
        total.index_add_(1, units.class_index[fold != f], iou[:-1, fold != f])
        seen = torch.bincount(units.class_index[fold != f], minlength=k) > 0
        if folds.pooled:  # over the boxes of all classes
            total, seen = total.sum(dim=1, keepdim=True).expand(-1, k), seen.any().expand(k)
        chosen[f, seen] = total.argmax(dim=0)[seen]
    level = chosen[fold, units.class_index]
    at = (level, torch.arange(len(level)))
    fallbacks = int((level == len(LEVELS)).sum())
    return BestOverlap(iou[at], ior[at]), levels.gather(0, chosen), fold, fallbacks


def _gate(gate: float | str | None, scores: Tensor, own: MethodDefaults) -> tuple[Tensor, Gate]:
    """Where regions count, bool [N, K], and the gate as stored."""
    if gate == OWN:
        gate = own.rule.gate
    if gate is None:
        return torch.ones_like(scores, dtype=torch.bool), NoGate()
    if isinstance(gate, float):
        return scores > gate, ScoreGate(score=gate)
    return scores.double() >= own.operating_points.double().cpu(), OperatingPointGate()


def _false_positives(
    source: Source,
    units: Units,
    rule: RegionRule,
    thresholds: Tensor,
    criterion: HitCriterion,
    passes: Tensor,
    num_classes: int,
) -> Tensor:  # [T, K] int64
    """Number of boxes, on images with any annotation, that hit no unit of their class."""
    boxes = source.boxes(rule, thresholds)
    counted = torch.isin(boxes.image, units.image) & passes[boxes.image, boxes.class_index]
    d, _, overlap = pair_overlaps(boxes, units)
    best = torch.zeros(len(boxes.image), dtype=torch.float64)
    best = best.scatter_reduce(0, d, getattr(overlap, criterion.measure), "amax")
    missed = ~hits_at(best, criterion) & counted
    return torch.stack([torch.bincount(boxes.class_index[row], minlength=num_classes) for row in missed])


def _table(
    criterion: HitCriterion,
    gate: Gate,
    overlap: Tensor,  # [U]
    best: Tensor | None,  # [U]
    false: Tensor | None,  # [T, K]
    units: Units,
    num_classes: int,
    n_boxes: int,
    patients: list[str],
    resamples: int,
) -> AccuracyTable:
    hit = hits_at(overlap, criterion)
    member = torch.nn.functional.one_hot(units.class_index, num_classes)  # [U, K]
    n = member.sum(dim=0)

    def share(hit: Tensor) -> Tensor:  # [T, U] -> [T, K]; 0 / 0 is NaN
        return (hit.long() @ member).double() / n

    low = high = torch.full_like(share(hit), torch.nan)
    mean_interval = torch.full((2, len(hit)), torch.nan, dtype=torch.float64)
    if len(patients):
        # [U, T, K]: 1 or 0 for the class of the unit, NaN for the others
        values = torch.where(member[:, None] == 1, hit.T[:, :, None].double(), torch.nan)
        statistic = weighted_mean(values.flatten(1))
        interval, mean = bootstrap_interval_with_mean(statistic, patients, rows=len(hit), resamples=resamples)
        low, high = interval.low.view(low.shape), interval.high.view(low.shape)
        mean_interval = torch.stack([mean.low, mean.high])
    return AccuracyTable(
        criterion=criterion,
        gate=gate,
        hits=hit.long() @ member,
        accuracy=share(hit),
        low=low,
        high=high,
        mean_interval=mean_interval,
        oracle=None if best is None else share(hits_at(best, criterion)),
        false_positives=false,
        afp=None if false is None else false.double() / n_boxes,
    )
