"""What a model said about every image of a split, beside what is known: the table that results are computed from."""

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cxrfast._files import atomic_path

COLUMNS = ("image", "patient", "class", "score", "label", "boxes", "iou", "ior")


@dataclass(frozen=True)
class Predictions:
    """N images × K classes. A pair without a box has NaN as overlap: it is not scored, whatever its label."""

    class_names: tuple[str, ...]
    images: Sequence[str]  # [N] names
    patients: Sequence[str]  # [N]
    scores: Tensor  # [N, K] float32, in (0, 1)
    labels: Tensor  # [N, K] float32: 1, 0, NaN where unknown
    n_boxes: Tensor  # [N, K] int64: how many boxes make up the annotation
    iou: Tensor  # [N, K] float64: of the region of positive patches and the annotation
    ior: Tensor  # [N, K] float64
    unreadable: dict[str, str] = field(default_factory=dict)  # image -> why it is not among the N

    def write_csv(self, path: str | os.PathLike) -> None:
        """One row for every image and class, :data:`COLUMNS`; what does not exist is an empty field."""
        with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for n, (image, patient) in enumerate(zip(self.images, self.patients, strict=True)):
                for k, name in enumerate(self.class_names):
                    writer.writerow([image, patient, name, *self._cells(n, k)])

    def _cells(self, n: int, k: int) -> list[str]:
        return [
            _number(self.scores[n, k], 9),  # nine digits give a float32 back exactly
            _number(self.labels[n, k], 1),
            str(int(self.n_boxes[n, k])),
            _number(self.iou[n, k], 6),
            _number(self.ior[n, k], 6),
        ]


def _number(value: Tensor, digits: int) -> str:
    number = value.item()
    return "" if math.isnan(number) else f"{number:.{digits}g}"


def empty_overlaps(n: int, k: int) -> Tensor:
    """[N, K] float64 of NaN."""
    return torch.full((n, k), float("nan"), dtype=torch.float64)
