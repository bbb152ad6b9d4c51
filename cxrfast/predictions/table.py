"""The table of predictions and ground truth per image and class: `predictions.csv`."""

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from cxrfast._files import atomic_path
from cxrfast.errors import CxrfastError

COLUMNS = ("image", "patient", "class", "prob", "prob_calibrated", "label", "boxes", "iou", "ior")


@dataclass(frozen=True)
class Predictions:
    """Predictions and ground truth of N images and K classes. Pairs without a box have NaN as overlap."""

    class_names: tuple[str, ...]
    images: Sequence[str]  # [N] names
    patients: Sequence[str]  # [N]
    prob: Tensor  # [N, K] float32 in [0, 1]; NaN where there is none
    labels: Tensor  # [N, K] float32: 1, 0, NaN where unknown
    n_boxes: Tensor  # [N, K] int64: number of annotated boxes
    iou: Tensor  # [N, K] float64: of the regions that the protocol scores with the boxes, without a gate
    ior: Tensor  # [N, K] float64
    prob_calibrated: Tensor | None = None  # [N, K] float64, by temperatures fitted on validation images
    unreadable: dict[str, str] = field(default_factory=dict)  # image -> why it could not be read

    def of_classes(self, names: Sequence[str]) -> "Predictions":
        """Select classes, in this order; KeyError for an unknown one."""
        place = {name: k for k, name in enumerate(self.class_names)}
        columns = [place[name] for name in names]
        calibrated = None if self.prob_calibrated is None else self.prob_calibrated[:, columns]
        tables = {name: getattr(self, name)[:, columns] for name in ("prob", "labels", "n_boxes", "iou", "ior")}
        return replace(self, class_names=tuple(names), prob_calibrated=calibrated, **tables)

    def write_csv(self, path: str | os.PathLike) -> None:
        """Write one row per image and class, with :data:`COLUMNS`; NaN is an empty field."""
        with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for n, (image, patient) in enumerate(zip(self.images, self.patients, strict=True)):
                for k, name in enumerate(self.class_names):
                    writer.writerow([image, patient, name, *self._cells(n, k)])

    def _cells(self, n: int, k: int) -> list[str]:
        return [
            _number(self.prob[n, k], 9),  # nine digits restore a float32 exactly
            "" if self.prob_calibrated is None else _number(self.prob_calibrated[n, k], 9),
            _number(self.labels[n, k], 1),
            str(int(self.n_boxes[n, k])),
            _number(self.iou[n, k], 6),
            _number(self.ior[n, k], 6),
        ]


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Concatenate parts with the same classes. Parts without calibrated probabilities get NaN if others have them."""
    names = ("prob", "labels", "n_boxes", "iou", "ior")
    tables = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    calibrated = [part.prob_calibrated for part in parts]
    filled = [empty_overlaps(*p.prob.shape) if c is None else c for p, c in zip(parts, calibrated, strict=True)]
    return Predictions(
        class_names=parts[0].class_names,
        images=[image for part in parts for image in part.images],
        patients=[patient for part in parts for patient in part.patients],
        **tables,
        prob_calibrated=None if all(c is None for c in calibrated) else torch.cat(filled),
        unreadable={image: why for part in parts for image, why in part.unreadable.items()},
    )


def read_predictions(path: str | os.PathLike) -> Predictions:
    """Read a file of :meth:`Predictions.write_csv`; :class:`CxrfastError` for any other file."""
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise CxrfastError(f"{path} is not a predictions.csv of cxrfast evaluate; evaluate again")
            rows = list(reader)
        if any(None in row or None in row.values() for row in rows):
            raise CxrfastError(f"{path} has rows of more or fewer than {len(COLUMNS)} fields; evaluate again")
        images = {row["image"]: row["patient"] for row in rows}
        classes = tuple(dict.fromkeys(row["class"] for row in rows))
        if len(rows) != len(images) * len(classes):
            raise CxrfastError(f"{path} has not one row for each image and class; evaluate again")

        def column(name: str, dtype: torch.dtype = torch.float64) -> Tensor:  # [N, K]
            values = [float(row[name]) if row[name] else math.nan for row in rows]
            return torch.tensor(values, dtype=torch.float64).view(len(images), len(classes)).to(dtype)

        calibrated = column("prob_calibrated")
        return Predictions(
            class_names=classes,
            images=list(images),
            patients=list(images.values()),
            prob=column("prob", torch.float32),
            labels=column("label", torch.float32),
            n_boxes=column("boxes", torch.long),
            iou=column("iou"),
            ior=column("ior"),
            prob_calibrated=None if calibrated.isnan().all() else calibrated,
        )
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise CxrfastError(f"{path} cannot be read ({error}); evaluate again") from error


def _number(value: Tensor, digits: int) -> str:
    number = value.item()
    return "" if math.isnan(number) else f"{number:.{digits}g}"


def empty_overlaps(n: int, k: int) -> Tensor:
    """[N, K] float64 of NaN."""
    return torch.full((n, k), float("nan"), dtype=torch.float64)
