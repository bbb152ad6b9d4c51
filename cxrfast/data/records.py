"""The metadata of one image of a data set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# xyxy as fractions of the image's width and height, half-open and continuous: (0, 0, 1, 1) is the whole image.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Record:
    """One image: its file, its patient, its labels and its boxes.

    ``labels`` is empty for an image without a finding. A class in ``labels`` that has no boxes is an unannotated
    positive, not a negative.

    ``width`` and ``height`` are the size of the original radiograph in pixels, if known. The file at ``path`` is
    usually a resized copy, so do not use them to place boxes.
    """

    image: str  # file name in the data set's tables; identifies the image
    path: Path
    patient: str
    labels: frozenset[str]
    boxes: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)  # class -> its boxes
    width: int | None = None
    height: int | None = None
    view: str | None = None  # "PA" or "AP"
    age: int | None = None  # years
    sex: str | None = None
    follow_up: int | None = None
    split: str | None = None  # official list it is in: "train_val" or "test"
