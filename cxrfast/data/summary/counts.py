"""Counts over the records of a data set: labels and boxes per class, views, ages and sexes."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from cxrfast.data.records import Record
from cxrfast.data.summary.record import Ages, ClassCounts, ImageSizes, SizeCount, ViewCounts

_FRONTAL = frozenset({"pa", "ap", "frontal"})
_SHOWN_SIZES = 5


def count_classes(records: Sequence[Record], class_names: Sequence[str]) -> tuple[ClassCounts, ...]:
    """The counts of every class. Data sets of millions of images share few sets of known classes, which this uses."""
    everything = frozenset(class_names)
    with_known: Counter[frozenset[str]] = Counter()
    positive: Counter[str] = Counter()
    known_positive: Counter[str] = Counter()  # positives whose class is in the record's known set
    boxes: Counter[str] = Counter()
    boxed: Counter[str] = Counter()
    for record in records:
        known = everything if record.known is None else record.known
        with_known[known] += 1
        positive.update(record.labels)
        known_positive.update(record.labels & known)
        for name, of_class in record.boxes.items():
            boxed[name] += 1
            boxes[name] += len(of_class)
    counts = []
    for name in class_names:
        known_images = sum(images for known, images in with_known.items() if name in known)
        negative = known_images - known_positive[name]
        counts.append(
            ClassCounts(
                name=name,
                positive=positive[name],
                negative=negative,
                unknown=len(records) - positive[name] - negative,
                images_with_boxes=boxed[name],
                boxes=boxes[name],
            )
        )
    return tuple(counts)


def count_findings(records: Sequence[Record], class_names: Sequence[str]) -> tuple[int, int]:
    """Images of which all classes are known to be absent, and images with at least one unknown label."""
    everything = frozenset(class_names)
    incomplete = {known: not everything <= known for known in {r.known for r in records if r.known is not None}}
    without = unknown = 0
    for record in records:
        known = record.known
        if known is not None and incomplete[known] and not everything <= known | record.labels:
            unknown += 1
        elif not record.labels:
            without += 1
    return without, unknown


def count_views(records: Iterable[Record]) -> ViewCounts:
    names = Counter(record.view for record in records)
    groups: Counter[str] = Counter()
    for name, images in names.items():
        groups[_view_group(name)] += images
    return ViewCounts(
        frontal=groups["frontal"],
        lateral=groups["lateral"],
        other=groups["other"],
        unknown=groups["unknown"],
        by_name={name: images for name, images in names.most_common() if name},
    )


def _view_group(view: str | None) -> str:
    if not view:
        return "unknown"
    if view == "lateral":
        return "lateral"
    return "frontal" if re.split(r"[\s_-]", view.casefold())[0] in _FRONTAL else "other"


def count_ages(records: Sequence[Record]) -> Ages:
    ages = [record.age for record in records if record.age is not None]
    return Ages(
        known=len(ages),
        unknown=len(records) - len(ages),
        minimum=min(ages, default=None),
        median=float(median(ages)) if ages else None,
        maximum=max(ages, default=None),
    )


def count_sizes(sizes: Iterable[tuple[int, int]]) -> ImageSizes:
    """The sizes (width, height) of all images."""
    found = Counter(sizes)
    counts = [SizeCount(width=w, height=h, images=n) for (w, h), n in sorted(found.items(), key=lambda x: -x[1])]
    by_pixels = sorted(counts, key=lambda size: size.width * size.height)
    return ImageSizes(
        distinct=len(counts),
        most_frequent=tuple(counts[:_SHOWN_SIZES]),
        smallest=by_pixels[0] if counts else None,
        largest=by_pixels[-1] if counts else None,
    )
