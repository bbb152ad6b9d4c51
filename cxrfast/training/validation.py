"""Validation after every epoch, and the score by which the best epoch is chosen."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from cxrfast.errors import CxrfastError
from cxrfast.methods import Method
from cxrfast.methods.base import Batch
from cxrfast.metrics import OperatingPoints, auroc, choose_operating_points, localization_accuracy
from cxrfast.regions import AnnotatedMaps, annotated_maps
from cxrfast.runs.provenance import ClassProvenance, known, known_interval

IOU_THRESHOLD = 0.1


@dataclass(frozen=True)
class Validation:
    """Results per class; NaN where there are too few images."""

    class_auroc: tuple[float, ...]
    class_iou_accuracy: tuple[float, ...]
    scores: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 0))  # [N, K]
    labels: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 0))  # [N, K]

    @property
    def auroc(self) -> float:
        """Mean over the classes with a value; NaN if there is none."""
        return _mean(self.class_auroc)

    @property
    def iou_accuracy(self) -> float:
        """Mean over the classes with a value; NaN if there is none."""
        return _mean(self.class_iou_accuracy)

    @property
    def score(self) -> float:
        """The mean over all values of `class_auroc` and `class_iou_accuracy` that are not NaN; NaN if there are none.

        If every class has boxes, it is the mean of `auroc` and `iou_accuracy`. If few classes have boxes, their
        accuracy has little weight: a single box cannot outweigh the AUROC.
        """
        return _mean(self.class_auroc + self.class_iou_accuracy)

    def choose_operating_points(self, patients: Sequence[str], criterion: str) -> OperatingPoints | None:
        """The operating points of the classes; None without validation images. `patients` are those of the images."""
        if not len(self.scores):
            return None
        return choose_operating_points(self.scores, self.labels, patients, criterion=criterion)

    def class_facts(self, names: Sequence[str], points: OperatingPoints | None) -> dict[str, ClassProvenance]:
        """What validation found of every class, for the weights; empty without validation images."""
        if points is None:
            return {}
        return {
            name: ClassProvenance(
                validation_positives=int((self.labels[:, k] == 1).sum()),
                validation_negatives=int((self.labels[:, k] == 0).sum()),
                auroc=known(self.class_auroc[k]),
                auroc_interval=known_interval(points.auroc.low[k].item(), points.auroc.high[k].item()),
                localization=known(self.class_iou_accuracy[k]),
                operating_point_interval=known_interval(points.low[k].item(), points.high[k].item()),
                operating_point_note=points.reason[k],
            )
            for k, name in enumerate(names)
        }

    def row(self) -> dict[str, Any]:
        def number(value: float) -> float | None:  # JSON has no NaN
            return None if math.isnan(value) else round(value, 6)

        return {
            "val_auroc": number(self.auroc),
            "val_iou_accuracy": number(self.iou_accuracy),
            "val_score": number(self.score),
        }


@torch.inference_mode()
def validate(method: Method, stage: str, loader: Iterable[Batch], image_size: int) -> Validation:
    """AUROC, and the share of ground-truth boxes whose IoU with the region of their class is at least 0.1.

    First fits the method's map thresholds on the same boxes. Raises CxrfastError if a score is not finite.
    """
    scores, labels, pairs = [], [], []
    for batch in loader:
        prediction = method.predict(batch["image"], stage)
        scores.append(prediction.scores.cpu())
        labels.append(batch["labels"].cpu())
        pairs.append(annotated_maps(prediction, batch["boxes"] / image_size, batch["has_box"]))
    if not scores:
        nothing = (math.nan,) * len(method.class_names)
        return Validation(nothing, nothing)
    if not torch.cat(scores).isfinite().all():
        raise CxrfastError(
            f"training diverged in stage {stage}: scores are NaN or infinite; train again with a smaller learning rate"
        )
    annotated = AnnotatedMaps(*(torch.cat(column) for column in zip(*pairs, strict=True)))
    method.fit_map_thresholds(annotated)
    thresholds = method.map_thresholds.cpu()[annotated.class_index]
    iou = annotated.overlap(method.region_rule, thresholds, image_size).iou
    hits = localization_accuracy(iou, annotated.class_index, labels[0].shape[1], IOU_THRESHOLD)
    scored = torch.cat(scores), torch.cat(labels)
    return Validation(tuple(auroc(*scored).tolist()), tuple(hits.accuracy.tolist()), *scored)


def _mean(values: Sequence[float]) -> float:
    measured = [value for value in values if not math.isnan(value)]
    return math.fsum(measured) / len(measured) if measured else math.nan
