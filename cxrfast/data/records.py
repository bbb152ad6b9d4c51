"""The metadata of one image of a data set."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cxrfast.data.image_names import require_inside

# xyxy as fractions of the image's width and height, half-open and continuous: (0, 0, 1, 1) is the whole image.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Record:
    """One image: its file, its patient, its labels and its boxes.

    ``labels`` are the classes that are present; it is empty for an image without a finding. ``known`` are the classes
    whose label is known. A class that is in neither is unknown: it may be present or absent. ``None`` means that all
    classes are known.

    A name that leads out of the data folder ("../a.png", "/a.png") is a :class:`CxrfastError`, so that no table can
    make a report show a file from elsewhere.

    A class in ``labels`` that has no boxes is an unannotated positive, not a negative.

    ``width`` and ``height`` are the size of the original radiograph in pixels, if known. The file at ``path`` is
    usually a resized copy, so do not use them to place boxes.

    Example::

        record = Record("a.png", Path("a.png"), "7", frozenset({"Mass"}), known=frozenset({"Mass", "Nodule"}))
        [record.label(name) for name in ("Mass", "Nodule", "Edema")]  # [1.0, 0.0, nan]
    """

    image: str  # identifies the image: its path relative to the data folder, or its name in the data set's tables
    path: Path
    patient: str
    labels: frozenset[str]
    boxes: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)  # class -> its boxes
    width: int | None = None
    height: int | None = None
    view: str | None = None  # "PA", "AP", "frontal" or "lateral"
    age: int | None = None  # years
    sex: str | None = None
    follow_up: int | None = None
    split: str | None = None  # official part: "train_val" or "test" (ChestX-ray14), "train", "val" or "test"
    study: str | None = None
    known: frozenset[str] | None = None

    def __post_init__(self) -> None:
        require_inside(self.image, str(self.path.parent))

    def label(self, class_name: str) -> float:
        """1 where the class is present, 0 where it is absent, NaN where that is unknown."""
        if class_name in self.labels:
            return 1.0
        return 0.0 if self.known is None or class_name in self.known else math.nan
