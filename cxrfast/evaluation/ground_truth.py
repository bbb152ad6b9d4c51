"""Ground truth of the evaluated images: labels, annotated boxes, patients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cxrfast.data.records import Record
from cxrfast.metrics.detection import Boxes

Unit = Literal["annotation", "box"]


@dataclass(frozen=True)
class GroundTruth:
    """Ground truth of N images and K classes."""

    class_names: tuple[str, ...]
    images: Sequence[str]  # [N] names
    patients: Sequence[str]  # [N]
    labels: Tensor  # [N, K] float32: 1, 0, NaN where unknown
    boxes: Boxes  # annotated, as fractions of the image

    @classmethod
    def from_records(cls, records: Sequence[Record], class_names: Sequence[str]) -> "GroundTruth":
        """Build from records. Labels and boxes are taken as they are: neither implies the other."""
        rows = [
            (n, k, box)
            for n, record in enumerate(records)
            for k, name in enumerate(class_names)
            for box in record.boxes.get(name, ())
        ]
        labels = [[record.label(name) for name in class_names] for record in records]
        return cls(
            tuple(class_names),
            [record.image for record in records],
            [record.patient for record in records],
            torch.tensor(labels).view(len(records), len(class_names)),
            Boxes(
                torch.tensor([n for n, _, _ in rows], dtype=torch.long),
                torch.tensor([k for _, k, _ in rows], dtype=torch.long),
                torch.tensor([box for _, _, box in rows], dtype=torch.float64).view(-1, 4),
            ),
        )

    @property
    def n_boxes(self) -> Tensor:  # [N, K] int64
        return count_pairs(self.boxes.image, self.boxes.class_index, len(self.images), len(self.class_names))

    def units(self, unit: Unit) -> "Units":
        """The units that a protocol counts: boxes, or annotations (all boxes of one class on one image)."""
        if unit == "box":
            return Units(
                *self.boxes[:2], self.boxes.xyxy[:, None], torch.ones(len(self.boxes.xyxy), 1, dtype=torch.bool)
            )
        count = self.n_boxes
        image, class_index = (count > 0).nonzero(as_tuple=True)
        size = count[image, class_index]
        most = int(size.max()) if len(size) else 1
        has_box = torch.arange(most) < size[:, None]
        key = self.boxes.image * len(self.class_names) + self.boxes.class_index
        boxes = torch.zeros(len(image), most, 4, dtype=torch.float64)
        boxes[has_box] = self.boxes.xyxy.double()[key.argsort(stable=True)]
        return Units(image, class_index, boxes, has_box)


class Units(NamedTuple):
    """U units (annotations or boxes) that are found or missed, each of up to M boxes."""

    image: Tensor  # [U] int64
    class_index: Tensor  # [U] int64
    boxes: Tensor  # [U, M, 4] float64 xyxy as fractions of the image
    has_box: Tensor  # [U, M] bool


def count_pairs(image: Tensor, class_index: Tensor, n: int, k: int) -> Tensor:  # [D], [D] -> [n, k] int64
    """Number of occurrences of each pair of image and class."""
    return torch.bincount(image * k + class_index, minlength=n * k).view(n, k)
