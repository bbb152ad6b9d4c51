"""What weights learnt from, as they carry it with them, and the warnings that follow from it."""

import math
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

import cxrfast
from cxrfast.data.records import Record
from cxrfast.errors import CxrfastError

KEY = "learnt_from"
"""The entry of the metadata that holds a :class:`Provenance` as JSON."""
CHANCE = 0.6
"""A class whose validation AUROC is below this, or whose 95 % interval reaches down to 0.5, counts as at chance."""

DRAWN_IMAGES = "the images are drawings (phantoms), not X-rays of people: the results say nothing about people"
OTHER_IMAGES = (
    "the weights learnt from phantoms only, and the images are not phantoms: scores and boxes on them mean nothing"
)


class ClassProvenance(BaseModel):
    """What the weights learnt from, and reached on validation images, for one class. None: unknown or not measured."""

    model_config = ConfigDict(frozen=True)

    positives: int | None = None  # training images with the class
    validation_positives: int | None = None
    validation_negatives: int | None = None
    auroc: float | None = None  # on validation images
    auroc_interval: tuple[float, float] | None = None  # 95 %, by patient
    localization: float | None = None  # share of validation boxes that were found at an IoU of 0.1
    operating_point_interval: tuple[float, float] | None = None  # 95 %, by patient
    operating_point_note: str = ""  # why the operating point is 0.5; "" if it was chosen

    @property
    def at_chance(self) -> bool:
        """Whether validation has measured no more than chance."""
        low = 1.0 if self.auroc_interval is None else self.auroc_interval[0]
        return self.auroc is not None and (self.auroc < CHANCE or low <= 0.5)


class Provenance(BaseModel):
    """What weights learnt from, and how well. None: unknown, as in weights of earlier versions."""

    model_config = ConfigDict(frozen=True)

    data: str | None = None  # last name of the path of the data set
    layout: str | None = None
    synthetic: bool | None = None  # phantoms instead of X-rays of people
    images: int | None = None  # training images
    boxed_images: int | None = None  # training images with a box of one of the classes
    label_version: str = "unknown"
    image_size: int | None = None
    operating_point: str | None = None  # criterion of the operating points
    cxrfast: str = "unknown"  # version
    date: str = "unknown"  # when the weights were written
    classes: dict[str, ClassProvenance] = {}

    @classmethod
    def of_training(
        cls,
        records: Sequence[Record],
        class_names: Sequence[str],
        *,
        data: Path,
        layout: str,
        synthetic: bool,
        label_version: str,
        image_size: int,
        operating_point: str,
        validation: Mapping[str, ClassProvenance],
    ) -> Self:
        """Of weights that learnt from `records`; `validation` has the classes without their training images."""
        return cls(
            data=data.resolve().name,
            layout=layout,
            synthetic=synthetic,
            images=len(records),
            boxed_images=sum(1 for record in records if any(record.boxes.get(name) for name in class_names)),
            label_version=label_version,
            image_size=image_size,
            operating_point=operating_point,
            cxrfast=cxrfast.__version__,
            date=date.today().isoformat(),
            classes={
                name: validation.get(name, ClassProvenance()).model_copy(
                    update={"positives": sum(name in record.labels for record in records)}
                )
                for name in class_names
            },
        )

    @classmethod
    def read(cls, metadata: Mapping[str, str], source: str) -> Self:
        """From the metadata of a weights file. Those of earlier versions say little; the rest is unknown.

        Raises CxrfastError for an entry that is damaged.
        """
        if KEY not in metadata:
            return cls(
                label_version=metadata.get("label_version", "unknown"), cxrfast=metadata.get("cxrfast", "unknown")
            )
        try:
            return cls.model_validate_json(metadata[KEY])
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "JSON"
            raise CxrfastError(
                f"checkpoint: {source} does not say correctly what it learnt from ({where}: {first['msg']}); it is "
                "damaged, or was edited; train again"
            ) from error

    def of_classes(self, names: Mapping[str, str]) -> Self:
        """With only the classes that are keys of `names`, under the names that are its values."""
        kept = {new: self.classes[name] for name, new in names.items() if name in self.classes}
        return self.model_copy(update={"classes": kept})

    @property
    def facts(self) -> dict[str, Any]:
        """Everything but the classes, for JSON."""
        return self.model_dump(mode="json", exclude={"classes"})

    def __str__(self) -> str:
        """In one line."""
        if self.synthetic is None:
            return f"unknown (weights of cxrfast {self.cxrfast})"
        kind = "phantoms (drawings)" if self.synthetic else "X-rays"
        if self.images is None:
            return f"{kind} of {self.data} (weights of cxrfast {self.cxrfast})"
        return (
            f"{self.images:,} {kind} of {self.data}, {self.boxed_images or 0:,} with boxes; {self.layout}, labels "
            f"{self.label_version}; {self.date}, cxrfast {self.cxrfast}"
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What everybody who uses the weights must know, one line each."""
        lines = []
        if self.synthetic:
            lines.append(
                f"weights learnt from drawings, not from people: phantoms of cxrfast synth (data folder {self.data}); "
                "what they find on an X-ray means nothing"
            )
        if self.synthetic is None:
            lines.append("what these weights learnt from is unknown: they do not say it")
        chance = [f"{name} ({_auroc(of_class)})" for name, of_class in self.classes.items() if of_class.at_chance]
        if chance:
            lines.append(f"no better than chance on validation images, or not clearly: {', '.join(chance)}")
        fallback = [name for name, of_class in self.classes.items() if of_class.operating_point_note]
        if fallback:
            lines.append(f"score threshold 0.5, because validation images could not choose one: {', '.join(fallback)}")
        return tuple(lines)

    def warnings_for(self, *, synthetic: bool) -> tuple[str, ...]:
        """:attr:`warnings`, with those for images that are, or are not, phantoms."""
        lines = [*self.warnings]
        if synthetic:
            lines.append(DRAWN_IMAGES)
        elif self.synthetic:
            lines.append(OTHER_IMAGES)
        return tuple(lines)


def _auroc(of_class: ClassProvenance) -> str:
    limits = of_class.auroc_interval
    interval = "" if limits is None else f", 95 % {limits[0]:.2f}–{limits[1]:.2f}"
    return f"AUROC {of_class.auroc:.2f}{interval}"


def known(value: float) -> float | None:
    """None for NaN, which JSON lacks."""
    return None if math.isnan(value) else value


def known_interval(low: float, high: float) -> tuple[float, float] | None:
    """None where there is no interval."""
    return None if math.isnan(low) or math.isnan(high) else (low, high)
