"""The typed record of a data set's content, which the command line writes as JSON."""

import json
import os
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cxrfast._files import write_text
from cxrfast.data.datasets.interface import Grouping

SCHEMA_VERSION = 1
Comparison = Literal["bytes", "pixels"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Names(_Part):
    """A number of files, and the names of the first of them."""

    count: int
    first: tuple[str, ...] = ()


class ViewCounts(_Part):
    """Images by view. ``other`` are views that are neither frontal nor lateral, for example oblique."""

    frontal: int
    lateral: int
    other: int
    unknown: int
    by_name: dict[str, int]  # as the data set calls them


class ClassCounts(_Part):
    """Images by their label of one class, and the boxes of the class."""

    name: str
    positive: int
    negative: int
    unknown: int
    images_with_boxes: int
    boxes: int

    @property
    def positive_share(self) -> float | None:
        """Share of positive images among those with a known label; None without any."""
        known = self.positive + self.negative
        return self.positive / known if known else None


class SizeCount(_Part):
    """Number of images that are ``width`` × ``height`` pixels large."""

    width: int
    height: int
    images: int


class ImageSizes(_Part):
    """The sizes of the image files. Smallest and largest are by number of pixels; None if no header can be read."""

    distinct: int
    most_frequent: tuple[SizeCount, ...]
    smallest: SizeCount | None
    largest: SizeCount | None


class Ages(_Part):
    """Ages in years, one per image; None if no age is known."""

    known: int
    unknown: int
    minimum: int | None
    median: float | None
    maximum: int | None


class UnreadableImage(_Part):
    """An image file that cannot be read, and why."""

    image: str
    reason: str


class DuplicateGroup(_Part):
    """Images that are identical."""

    images: tuple[str, ...]
    different_labels: tuple[str, ...]  # classes that are present in one of the images and absent in another
    different_patients: bool  # or studies or images, as in `grouping`


class Duplicates(_Part):
    """Groups of identical images. ``compared`` is what is identical: the bytes of the files, or the decoded pixels."""

    compared: Comparison
    images: int  # in all groups together
    groups: tuple[DuplicateGroup, ...]


class PartCounts(_Part):
    """One part of a split."""

    name: str
    images: int
    patients: int
    images_with_boxes: int
    boxes: int


class SharedBetween(_Part):
    """What two parts of a split have in common."""

    first: str
    second: str
    patients: int
    duplicates: int | None  # groups of identical images that are in both; None if duplicates were not looked for


class SplitSummary(_Part):
    """The parts of a split, and leakage between them."""

    source: str  # "official", or the splits file
    parts: tuple[PartCounts, ...]
    without_part: int  # images of the data set that are in no part
    not_in_data: Names  # images that the splits file names and the data set lacks
    in_several_parts: Names
    shared: tuple[SharedBetween, ...]  # every pair of parts that has a patient or identical images in common


class DataSummary(_Part):
    """What a data set contains. Images whose file is missing are in none of the counts but ``missing``."""

    schema_version: Literal[1] = 1
    path: str
    layout: str
    title: str  # of the layout
    recognised_by: str
    label_version: str
    grouping: Grouping  # what "patients" counts: patients, or studies or images where the data set has no patients
    images: int
    views: ViewCounts
    patients: int
    studies: int | None  # None if the data set has no studies
    images_without_finding: int  # all classes are known to be absent
    images_with_unknown_labels: int
    images_with_boxes: int
    boxes: int
    classes: tuple[ClassCounts, ...]
    formats: dict[str, int]  # suffix -> images
    bytes: int  # of all image files
    sizes: ImageSizes
    ages: Ages
    sexes: dict[str, int]  # as the data set writes them
    sex_unknown: int
    official_split: SplitSummary | None
    splits: SplitSummary | None  # of a splits file
    duplicates: Duplicates | None  # None if they were not looked for
    verified: bool  # whether every image was decoded; otherwise its header was read
    unreadable: tuple[UnreadableImage, ...]
    missing: Names | None  # images of the tables without a file; None if that cannot be counted
    unlisted: Names  # image files below the folder that are not images of the data set
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """The content of the JSON file."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, path: str | os.PathLike) -> None:
        """Write the JSON to ``path``, atomically."""
        write_text(path, self.to_json())
