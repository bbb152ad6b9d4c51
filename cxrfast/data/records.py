"""What is known about one image of a data set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# xyxy as fractions of the image's width and height, half-open and continuous: (0, 0, 1, 1) is the whole image.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Record:
    """One image: where it is, whose it is, what is on it.

    ``labels`` is empty for an image without a finding. A class with boxes here may also be in ``labels`` without boxes
    on other images: those are unannotated positives, not negatives.

    ``width`` and ``height`` are those of the radiograph as it was taken, in pixels, if the data set says so; the file
    at ``path`` usually holds a resized copy, so they must not be used to place boxes.
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
