"""Identical images with their contradictions, and what the parts of a split have in common."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from cxrfast.data.folds import FoldSplits
from cxrfast.data.image_names import ImageIndex
from cxrfast.data.records import Record
from cxrfast.data.splits import PARTS, Splits, read_splits_file
from cxrfast.data.summary.record import (
    Comparison,
    DuplicateGroup,
    Duplicates,
    Names,
    PartCounts,
    SharedBetween,
    SplitSummary,
)

FIRST = 10  # names that stand for a list of files
_OFFICIAL_ORDER = ("train", "train_val", "val", "test")


def first_names(names: Sequence[str]) -> Names:
    return Names(count=len(names), first=tuple(names[:FIRST]))


def describe_duplicates(records: Sequence[Record], groups: Sequence[Sequence[int]], compared: Comparison) -> Duplicates:
    """The groups of identical images (``groups`` holds places in ``records``)."""
    return Duplicates(
        compared=compared,
        images=sum(map(len, groups)),
        groups=tuple(_describe_group([records[place] for place in group]) for group in groups),
    )


def _describe_group(records: Sequence[Record]) -> DuplicateGroup:
    present = set().union(*(record.labels for record in records))
    return DuplicateGroup(
        images=tuple(record.image for record in records),
        different_labels=tuple(sorted(name for name in present if any(record.label(name) == 0 for record in records))),
        different_patients=len({record.patient for record in records}) > 1,
    )


def official_split(records: Sequence[Record], duplicates: Duplicates | None) -> SplitSummary | None:
    """The data set's own split, or None if it has none."""
    parts: dict[str, list[str]] = {}
    for record in records:
        if record.split is not None:
            parts.setdefault(record.split, []).append(record.image)
    if not parts:
        return None
    known = [name for name in _OFFICIAL_ORDER if name in parts]
    ordered = {name: parts[name] for name in (*known, *sorted(parts.keys() - set(known)))}
    return _describe_split("official", ordered, records, duplicates)


def split_of_file(path: Path, records: Sequence[Record], duplicates: Duplicates | None) -> SplitSummary:
    """The split of a ``splits.json``, or the test parts of the folds of a cross-validation."""
    if "folds" in read_splits_file(path, f"{', '.join(PARTS)}, or 'folds'"):
        folds = FoldSplits.load(path).folds
        parts: dict[str, Sequence[str]] = {f"test of fold {number}": fold.test for number, fold in enumerate(folds)}
    else:
        splits = Splits.load(path)
        parts = {name: getattr(splits, name) for name in PARTS}
    return _describe_split(str(path), parts, records, duplicates)


def _describe_split(
    source: str, parts: Mapping[str, Sequence[str]], records: Sequence[Record], duplicates: Duplicates | None
) -> SplitSummary:
    index = ImageIndex([record.image for record in records])
    members: dict[str, list[Record]] = {}
    parts_of: dict[str, set[str]] = {}  # image -> its parts
    unknown: list[str] = []
    for name, images in parts.items():
        places = {image: index.find(image) for image in images}
        unknown += [image for image, place in places.items() if place is None]
        members[name] = [records[place] for place in dict.fromkeys(places.values()) if place is not None]
        for record in members[name]:
            parts_of.setdefault(record.image, set()).add(name)
    return SplitSummary(
        source=source,
        parts=tuple(_count_part(name, of) for name, of in members.items()),
        without_part=len(records) - len(parts_of),
        not_in_data=first_names(unknown),
        in_several_parts=first_names([image for image, of in parts_of.items() if len(of) > 1]),
        shared=tuple(_shared(members, parts_of, duplicates)),
    )


def _count_part(name: str, records: Sequence[Record]) -> PartCounts:
    return PartCounts(
        name=name,
        images=len(records),
        patients=len({record.patient for record in records}),
        images_with_boxes=sum(bool(record.boxes) for record in records),
        boxes=sum(len(boxes) for record in records for boxes in record.boxes.values()),
    )


def _shared(
    members: Mapping[str, Sequence[Record]], parts_of: Mapping[str, set[str]], duplicates: Duplicates | None
) -> list[SharedBetween]:
    patients = {name: {record.patient for record in of} for name, of in members.items()}
    groups: list[tuple[set[str], ...]] | None = None
    if duplicates is not None:
        groups = [tuple(parts_of.get(image, set()) for image in group.images) for group in duplicates.groups]
    found = []
    for first, second in combinations(members, 2):
        identical = None if groups is None else sum(_spans(group, first, second) for group in groups)
        common = len(patients[first] & patients[second])
        if common or identical:
            found.append(SharedBetween(first=first, second=second, patients=common, duplicates=identical))
    return found


def _spans(group: Sequence[set[str]], first: str, second: str) -> bool:
    """Whether one image of a group is in the first part and another one in the second."""
    return any(first in a and second in b for a, b in combinations(group, 2)) or any(
        second in a and first in b for a, b in combinations(group, 2)
    )
