"""The labels of images as bit masks, and which images match by their labels (Zhang et al. 2020, §3.2)."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from cxrfast.data.records import Record
from cxrfast.errors import UsageError
from cxrfast.ops.hamming import LabelRule

MAX_CLASSES = 63
ALL_CLASSES = (1 << MAX_CLASSES) - 1
_RULES: tuple[LabelRule, ...] = ("exact", "partial", "disjoint")


def label_bits(label_sets: Iterable[AbstractSet[str]], class_names: Sequence[str]) -> np.ndarray:  # [N] int64
    """The labels of every image as a bit mask, bit i for ``class_names[i]``; 0 for an image without a finding.

    Pass all classes of the data set, not only the trained ones. Otherwise an image with only an untrained class would
    be treated as one without a finding.
    """
    if len(class_names) > MAX_CLASSES:
        raise UsageError(
            f"classes: expected at most {MAX_CLASSES} for triplets, got {len(class_names)}; choose some (--classes)"
        )
    bit = {name: 1 << i for i, name in enumerate(class_names)}
    masks: dict[AbstractSet[str], int] = {}
    result = []
    for labels in label_sets:
        key = frozenset(labels)
        if key not in masks:
            unknown = sorted(key - bit.keys())
            if unknown:
                raise UsageError(f"label {unknown[0]!r} is not among the classes {', '.join(class_names)}")
            masks[key] = sum(bit[name] for name in key)
        result.append(masks[key])
    return np.array(result, dtype=np.int64)


def known_label_bits(records: Sequence[Record], class_names: Sequence[str]) -> np.ndarray | None:  # [N] int64
    """The classes whose label is known in every image, as bit masks like those of :func:`label_bits`; None: all."""
    sets = [record.known for record in records]
    if all(known is None or known.issuperset(class_names) for known in sets):
        return None
    everything = frozenset(class_names)
    labels = (record.labels for record in records)  # a present class is known
    shown = [everything if of is None else (of | own) & everything for of, own in zip(sets, labels, strict=True)]
    return label_bits(shown, class_names)


class LabelSets:
    """The images grouped by their labels and known labels; there are far fewer sets than images."""

    def __init__(self, labels: np.ndarray, known: np.ndarray):  # [N], [N]
        pairs = np.stack((labels, known), axis=1)
        sets, of_image, self.sizes = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
        self.labels, self.known = sets.T
        self.of_image = of_image.reshape(-1)
        self.images = np.argsort(self.of_image, kind="stable")  # those of the first set, those of the second, …
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.place = np.empty_like(self.images)  # of an image among those of its set
        self.place[self.images] = np.arange(len(labels)) - self.starts[self.of_image[self.images]]

    def counts(self) -> dict[str, np.ndarray]:  # rule -> [N]
        """For every image and rule, the number of other images that match."""
        rows = []
        for own in range(len(self.sizes)):
            matches = self._matches(own)
            rows.append({rule: match @ self.sizes for rule, match in matches.items()})
            rows[-1]["exact"] -= matches["exact"][own]  # itself
        return {rule: np.array([row[rule] for row in rows], dtype=np.int64)[self.of_image] for rule in _RULES}

    def draw(self, image: int, rule: LabelRule, limit: int, generator: np.random.Generator) -> np.ndarray:
        """Up to `limit` different random images that match this one by a rule."""
        own = self.of_image[image]
        allowed = np.flatnonzero(self._matches(own)[rule])
        ends = np.cumsum(self.sizes[allowed])  # the images of these sets, numbered through
        others = ends[-1] - (rule == "exact")
        numbers = generator.choice(others, min(limit, others), replace=False)
        if rule == "exact":  # leaves out the image itself, which matches
            at = np.searchsorted(allowed, own)
            numbers += numbers >= ends[at] - self.sizes[own] + self.place[image]
        at = np.searchsorted(ends, numbers, side="right")
        return self.images[self.starts[allowed[at]] + numbers - (ends[at] - self.sizes[allowed[at]])]

    def _matches(self, own: int) -> dict[str, np.ndarray]:  # rule -> [sets]
        labels, both_known = self.labels[own], self.known[own] & self.known
        same, meet = labels == self.labels, (labels & self.labels) != 0
        exact = same & (meet | (both_known != 0))
        differ = ((labels ^ self.labels) & both_known) != 0
        return dict(zip(_RULES, (exact, meet & ~same, ~meet & differ), strict=True))
