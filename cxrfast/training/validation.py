"""What is measured after every epoch, and what makes one epoch better than another."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from cxrfast.errors import CxrfastError
from cxrfast.evaluation import AnnotatedMaps, annotated_maps, auroc, localization_accuracy, operating_points
from cxrfast.methods import Method
from cxrfast.methods.base import Batch

IOU_THRESHOLD = 0.1


@dataclass(frozen=True)
class Validation:
    """Means over the classes that have the images to measure them on; NaN where none has."""

    auroc: float
    iou_accuracy: float
    operating_points: tuple[float, ...]  # per class; NaN where there are too few images to find one

    @property
    def score(self) -> float:
        """The mean of what could be measured; NaN if nothing could."""
        values = [value for value in (self.auroc, self.iou_accuracy) if not math.isnan(value)]
        return sum(values) / len(values) if values else math.nan

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
    """AUROC, and the share of boxes that the region of their class overlaps with IoU >= 0.1."""
    scores, labels, pairs = [], [], []
    for batch in loader:
        prediction = method.predict(batch["image"], stage)
        scores.append(prediction.scores.cpu())
        labels.append(batch["labels"].cpu())
        pairs.append(annotated_maps(prediction, batch["boxes"] / image_size, batch["has_box"]))
    if not scores:
        return Validation(math.nan, math.nan, (math.nan,) * len(method.class_names))
    if not torch.cat(scores).isfinite().all():
        raise CxrfastError(
            f"training diverged in stage {stage}: scores are not numbers; train again with a smaller learning rate"
        )
    annotated = AnnotatedMaps(*(torch.cat(column) for column in zip(*pairs, strict=True)))
    method.fit_map_thresholds(annotated)
    thresholds = method.map_thresholds.cpu()[annotated.class_index]
    iou = annotated.overlap(method.region_rule, thresholds, image_size).iou
    hits = localization_accuracy(iou, annotated.class_index, labels[0].shape[1], IOU_THRESHOLD)
    scored = torch.cat(scores), torch.cat(labels)
    return Validation(_mean(auroc(*scored)), _mean(hits.accuracy), tuple(operating_points(*scored).tolist()))


def _mean(values: torch.Tensor) -> float:
    return values[~values.isnan()].mean().item() if (~values.isnan()).any() else math.nan
