"""What in a data set may spoil training or make results wrong."""

from collections.abc import Iterator

from cxrfast.data.datasets.interface import UNITS
from cxrfast.data.summary.record import DataSummary, Duplicates, Names, SplitSummary


def find_warnings(summary: DataSummary) -> Iterator[str]:
    """One line each, the most serious first."""
    if summary.unreadable:
        names = tuple(entry.image for entry in summary.unreadable[:1])
        yield f"unreadable images: {_count(Names(count=len(summary.unreadable), first=names))}; replace or remove them"
    for split in (summary.official_split, summary.splits):
        if split is not None:
            yield from _leakage(split, summary)
    if summary.duplicates is not None:
        yield from _contradictions(summary.duplicates, summary)
    if summary.missing is not None and summary.missing.count:
        yield f"images without a file: {_count(summary.missing)}; they are in none of the other numbers"


def _leakage(split: SplitSummary, summary: DataSummary) -> Iterator[str]:
    name = "official split" if split.source == "official" else split.source
    if split.in_several_parts.count:
        yield f"{name}: leakage: images in several parts: {_count(split.in_several_parts)}"
    for pair in split.shared:
        shared = []
        if pair.patients and summary.grouping != "image":
            shared.append(f"{UNITS[summary.grouping]}: {pair.patients:,}")
        if pair.duplicates:
            shared.append(f"groups of identical images: {pair.duplicates:,}")
        if shared:
            yield f"{name}: leakage: {pair.first} and {pair.second} have in common: {'; '.join(shared)}"
    if split.not_in_data.count:
        yield f"{name}: images that this data set lacks: {_count(split.not_in_data)}"


def _contradictions(found: Duplicates, summary: DataSummary) -> Iterator[str]:
    labels = [group for group in found.groups if group.different_labels]
    if labels:
        a, b = _example(labels[0].images)
        classes = _some(labels[0].different_labels)
        yield f"groups of identical images with contradictory labels: {len(labels):,} (first: {a} and {b}: {classes})"
    apart = [group for group in found.groups if group.different_patients]
    if apart:
        a, b = _example(apart[0].images)
        whose = "" if summary.grouping == "image" else f" of different {UNITS[summary.grouping]}"
        yield (
            f"groups of identical images{whose}: {len(apart):,} (first: {a} and {b}); a split by {summary.grouping} "
            "may put the same image into two parts"
        )


def _some(names: tuple[str, ...], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _example(images: tuple[str, ...]) -> tuple[str, str]:
    return images[0], images[1]


def _count(names: Names) -> str:
    return f"{names.count:,}" + (f" (first: {names.first[0]})" if names.first else "")
