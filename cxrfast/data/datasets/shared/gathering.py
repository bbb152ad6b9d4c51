"""What the readers of general formats share: the images that exist, whom they belong to, and notes on both."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cxrfast.data.datasets.interface import Grouping
from cxrfast.data.records import Box, Record
from cxrfast.data.tables.image_files import ImageFiles
from cxrfast.data.tables.values import MAX_AGE
from cxrfast.errors import CxrfastError


@dataclass
class Places:
    """Finds the image files that a table names, and counts what is missing.

    Attributes:
        source: the table's name, for messages.
        required: leave out images without a file.
    """

    files: ImageFiles
    source: str
    required: bool = True
    missing: list[str] = field(default_factory=list)
    used: dict[str, str] = field(default_factory=dict)  # path of a file -> name in the table

    def find(self, name: str, near: Sequence[str] = ()) -> tuple[str, Path] | None:
        """Identity and path of an image; None if its file is missing and required.

        ``near`` are folders, relative to the data folder, where the name is looked for first.
        """
        clean = name.strip().replace("\\", "/").removeprefix("./")
        place = next((f"{folder}/{clean}" for folder in near if f"{folder}/{clean}" in self.files), None)
        place = place or self.files.find(clean)
        if place is None:
            self.missing.append(clean)
            return None if self.required else (clean, self.files.root / clean)
        other = self.used.setdefault(place, clean)
        if other != clean:
            raise CxrfastError(f"{self.source}: {other!r} and {clean!r} are the same file {place}; keep one of them")
        return place, self.files.root / place

    def check(self, total: int) -> None:
        """Raise if none of the ``total`` images was found, although files are required."""
        if self.required and self.missing and not self.used:
            raise CxrfastError(
                f"{self.source}: none of its {total} images was found in {self.files.root} "
                f"(first: {self.missing[0]}); copy the images there"
            )

    def notes(self) -> list[str]:
        return file_notes(self.files, self.used, self.missing, self.source, required=self.required)


def file_notes(
    files: ImageFiles, used: Container[str | None], missing: Sequence[str], source: str, *, required: bool
) -> list[str]:
    """Notes on images of a table without a file, and on image files that it does not name.

    Args:
        files: the image files of the data set.
        used: paths of the files that the table names.
        missing: names of images without a file.
        source: the table's name.
        required: images without a file are left out.
    """
    effect = "left out" if required else "kept without pixels"
    extra = [path for path in files.paths if path not in used]
    return counted(
        (len(missing), f"images of {source} without a file, {effect}", missing),
        (len(extra), f"image files that are not in {source}, left out", extra),
    )


REPEATED_ROWS = "rows listed twice, taken once"
REPEATED_BOXES = "repeated boxes, used once"
CLIPPED = "boxes that extend a little beyond their image, clipped"
IMPLIED = "boxes of a class that their image's labels lack, taken as positive"


def counted(*lines: tuple[int, str] | tuple[int, str, Sequence[str]]) -> list[str]:
    """Notes "what: count" of the counts that are not 0, with the first of the things where they are given."""
    notes = []
    for count, what, *names in lines:
        first = f" (first: {names[0][0]})" if names and names[0] else ""
        notes += [f"{what}: {count}{first}"] if count else []
    return notes


def odd_ages(count: int) -> tuple[int, str]:
    """For :func:`counted`."""
    return count, f"ages over {MAX_AGE} years, taken as unknown"


class KnownSets:
    """One object for equal sets of classes, so that a million records share a few."""

    def __init__(self) -> None:
        self._sets: dict[frozenset[str], frozenset[str]] = {}

    def share(self, names: Iterable[str]) -> frozenset[str]:
        names = frozenset(names)
        return self._sets.setdefault(names, names)


def group(records: Sequence[Record], notes: list[str]) -> tuple[tuple[Record, ...], Grouping]:
    """Fill the empty ``patient`` of records with the study, else the image, and say what identifies a group."""
    lacking = [record for record in records if not record.patient]
    if not lacking:
        return tuple(records), "patient"
    with_study = sum(record.study is not None for record in lacking)
    filled = tuple(
        record if record.patient else replace(record, patient=_stand_in(record, bool(len(records) - len(lacking))))
        for record in records
    )
    if len(lacking) < len(records):
        notes.append(f"images without a patient, whose study, else the image, is taken as the patient: {len(lacking)}")
        return filled, "patient"
    if with_study == len(lacking):
        notes.append("no patients are given: studies are kept together in splits instead")
        return filled, "study"
    notes.append("no patients are given: splits are by image, so images of one patient may be in several parts")
    return filled, "image"


def _stand_in(record: Record, marked: bool) -> str:
    """Marked where other records have patients, so that no study is taken for a patient of that name."""
    if record.study is not None:
        return f"study {record.study}" if marked else record.study
    return f"image {record.image}" if marked else record.image


def with_boxes(
    labels: frozenset[str],
    known: frozenset[str],
    boxes: Mapping[str, tuple[Box, ...]],
    shared: KnownSets,
    *,
    imply_labels: bool = True,
) -> tuple[frozenset[str], frozenset[str], int]:
    """Labels and known classes after the boxes' classes became present, and for how many boxes that was new."""
    extra = boxes.keys() - labels
    if not extra or not imply_labels:
        return labels, known, 0
    return shared.share(labels | extra), shared.share(known | extra), sum(len(boxes[name]) for name in extra)
