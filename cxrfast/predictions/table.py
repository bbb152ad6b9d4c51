"""The table of predictions and ground truth per image and class: `predictions.csv`."""

import csv
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from cxrfast._files import atomic_path, open_regular
from cxrfast.data.image_names import require_inside
from cxrfast.data.labels import CLASSES
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
    """Concatenate parts with the same classes, in the order of the first part; ValueError for other classes.

    Parts without calibrated probabilities get NaN if others have them.
    """
    for part in parts:
        if set(part.class_names) != set(parts[0].class_names):
            raise ValueError(
                f"parts: expected the classes {', '.join(parts[0].class_names)}, got {', '.join(part.class_names)}"
            )
    parts = [part.of_classes(parts[0].class_names) for part in parts]
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
    """Read a file of :meth:`Predictions.write_csv`; :class:`CxrfastError` for any other file.

    A row belongs to the image and class that it names, wherever it stands. The result is the same for every order of
    the rows: images are sorted by name; classes are in the order of ChestX-ray14, others follow by name. A pair of
    image and class without a row, or with two, is an error that names the pair.
    """
    path = Path(path)
    try:
        with open_regular(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise CxrfastError(f"{path} is not a predictions.csv of cxrfast evaluate; evaluate again")
            rows = list(reader)
        if any(None in row or None in row.values() for row in rows):
            raise CxrfastError(f"{path} has rows of more or fewer than {len(COLUMNS)} fields; evaluate again")
        patients = _patients(rows, path)
        images = sorted(patients)
        classes = _class_order({row["class"] for row in rows})
        order = _row_of_each_pair(rows, images, classes, path)

        def column(name: str, dtype: torch.dtype = torch.float64) -> Tensor:  # [N, K]
            values = [float(rows[n][name]) if rows[n][name] else math.nan for n in order]
            return torch.tensor(values, dtype=torch.float64).view(len(images), len(classes)).to(dtype)

        calibrated = column("prob_calibrated")
        return Predictions(
            class_names=classes,
            images=images,
            patients=[patients[image] for image in images],
            prob=_in_range(column("prob", torch.float32), "prob", 1, path),
            labels=_in_range(column("label", torch.float32), "label", 1, path),
            n_boxes=_counts(column("boxes"), path),
            iou=_in_range(column("iou"), "iou", 1, path),
            ior=_in_range(column("ior"), "ior", 1, path),
            prob_calibrated=None if calibrated.isnan().all() else _in_range(calibrated, "prob_calibrated", 1, path),
        )
    except (OSError, ValueError, csv.Error) as error:
        raise CxrfastError(f"{path} cannot be read ({error}); evaluate again") from error


def _patients(rows: Sequence[Mapping[str, str]], path: Path) -> dict[str, str]:
    """Image -> patient."""
    patients: dict[str, str] = {}
    for row in rows:
        require_inside(row["image"], str(path))
        first = patients.setdefault(row["image"], row["patient"])
        if first != row["patient"]:
            raise CxrfastError(
                f"{path}: image {row['image']} belongs to patient {first} and to {row['patient']}; evaluate again"
            )
    return patients


def _class_order(names: Collection[str]) -> tuple[str, ...]:
    return (*(name for name in CLASSES if name in names), *sorted(set(names) - set(CLASSES)))


def _row_of_each_pair(
    rows: Sequence[Mapping[str, str]], images: Sequence[str], classes: Sequence[str], path: Path
) -> list[int]:
    """The row of every pair, image by image and class by class: [N K] places in ``rows``."""
    places: dict[tuple[str, str], int] = {}
    for n, row in enumerate(rows):
        pair = row["image"], row["class"]
        if places.setdefault(pair, n) != n:
            raise CxrfastError(f"{path} has two rows of image {pair[0]} and class {pair[1]}; evaluate again")
    pairs = [(image, name) for image in images for name in classes]
    missing = next((pair for pair in pairs if pair not in places), None)
    if missing is not None:
        raise CxrfastError(f"{path} has no row of image {missing[0]} and class {missing[1]}; evaluate again")
    return [places[pair] for pair in pairs]


def _in_range(values: Tensor, name: str, most: float, path: Path) -> Tensor:
    """The values, all of them NaN or from 0 to ``most``."""
    outside = values[~(values.isnan() | ((values >= 0) & (values <= most)))]
    if len(outside):
        raise CxrfastError(f"{path}: expected {name} from 0 to {most:g}, got {outside[0].item():g}; evaluate again")
    return values


def _counts(values: Tensor, path: Path) -> Tensor:
    """Numbers of boxes as int64."""
    wrong = values[~((values >= 0) & (values < 2**31) & (values == values.floor()))]
    if len(wrong):
        raise CxrfastError(f"{path}: expected whole numbers of boxes, got {wrong[0].item():g}; evaluate again")
    return values.long()


def _number(value: Tensor, digits: int) -> str:
    number = value.item()
    return "" if math.isnan(number) else f"{number:.{digits}g}"


def empty_overlaps(n: int, k: int) -> Tensor:
    """[N, K] float64 of NaN."""
    return torch.full((n, k), float("nan"), dtype=torch.float64)
