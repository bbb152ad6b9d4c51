"""Validation after every epoch, and the score by which the best epoch is chosen."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cxrfast.errors import CxrfastError
from cxrfast.methods import Method
from cxrfast.methods.base import Batch
from cxrfast.metrics import auroc, localization_accuracy, operating_points
from cxrfast.regions import AnnotatedMaps, annotated_maps

IOU_THRESHOLD = 0.1


@dataclass(frozen=True)
class Validation:
    """Results per class; NaN where there are too few images."""

    class_auroc: tuple[float, ...]
    class_iou_accuracy: tuple[float, ...]
    operating_points: tuple[float, ...]

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
        return Validation(nothing, nothing, nothing)
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
    columns = auroc(*scored), hits.accuracy, operating_points(*scored)
    return Validation(*(tuple(column.tolist()) for column in columns))


def _mean(values: Sequence[float]) -> float:
    measured = [value for value in values if not math.isnan(value)]
    return math.fsum(measured) / len(measured) if measured else math.nan
