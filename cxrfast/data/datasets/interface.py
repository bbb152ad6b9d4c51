"""What every reader of a data set takes and returns.

A new layout is one file with a :class:`Layout`, and one line in ``registry.py``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from cxrfast.data.class_names import ClassMatcher, describe_matches
from cxrfast.data.records import Box, Record
from cxrfast.errors import CxrfastError

Grouping = Literal["patient", "study", "image"]
UNITS = {"patient": "patients", "study": "studies", "image": "images"}
"""What the records' ``patient`` counts, by the data's grouping."""

Uncertain = Literal["ignore", "zero", "one"]
ReaderMerge = Literal["union", "majority", "fusion"]
Views = Literal["frontal", "all"]


@dataclass(frozen=True)
class DataOptions:
    """How a data set is read. ``None`` leaves the choice to the layout.

    Example::

        read_data("chexpert", DataOptions(uncertain="one", class_map={"Lung Opacity": "Infiltration"}))
    """

    dataset: str | None = None  # name of the layout; None: recognise it
    labels: str = "auto"  # label version of ChestX-ray14: "2017", "2020" or "auto"
    uncertain: Uncertain | None = None  # uncertain labels (−1) are unknown ("ignore"), absent or present
    readers: ReaderMerge | None = None  # how the annotations of several readers become one
    views: Views = "frontal"  # "frontal" leaves out images that are known to be lateral
    class_map: Mapping[str, str] = field(default_factory=dict)  # class of the data set -> name to use
    boxes_imply_labels: bool = True  # a class with a box is present, even if the labels lack it
    images_required: bool = True  # leave out records without an image file


@dataclass(frozen=True)
class DataSource:
    """A local copy of a data set: its images with labels and boxes, and notes on what was found."""

    root: Path
    layout: str
    records: tuple[Record, ...]  # in the order of the data set's tables
    class_names: tuple[str, ...]  # that the data set labels, in its order
    label_version: str  # which labels these are: "2017", "majority of 3 readers", …
    notes: list[str] = field(default_factory=list)  # one line each, on the files
    class_notes: list[str] = field(default_factory=list)  # one line each, on classes that were matched or are unknown
    grouping: Grouping = "patient"  # what ``Record.patient`` identifies
    tables: tuple[Path, ...] = ()  # the files that labels, boxes and lists were read from, where the reader names them
    synthetic: bool = False  # drawn images (phantoms), not X-rays of people

    def renamed(self, names: Mapping[str, str]) -> "DataSource":
        """The same data with other class names. Several classes with one new name are merged.

        A merged class is present if one of its classes is present. It is absent if all of them are known to be absent.
        """
        if all(name == new for name, new in names.items()):
            return self
        of = {name: names.get(name, name) for name in self.class_names}
        parts: dict[str, list[str]] = {}
        for name, new in of.items():
            parts.setdefault(new, []).append(name)
        sets: dict[frozenset[str], frozenset[str]] = {}
        records = []
        for record in self.records:
            labels = frozenset(names.get(name, name) for name in record.labels)
            known = record.known
            if known is not None:
                if known not in sets:
                    sets[known] = frozenset(new for new, old in parts.items() if known.issuperset(old))
                known = sets[known] | labels if labels - sets[known] else sets[known]
            records.append(replace(record, labels=labels, known=known, boxes=_renamed_boxes(record.boxes, names)))
        return replace(self, records=tuple(records), class_names=tuple(parts))

    def for_classes(self, wanted: Sequence[str]) -> "DataSource":
        """The same data in the class names ``wanted``, for example those of a model, with a note on what was matched.

        Wanted classes that the data set does not label are unknown in all its images. Classes of the data set that are
        not wanted keep their names.
        """
        matcher = ClassMatcher(wanted)
        matches = matcher.matches(self.class_names)
        if len(set(matches.values())) < len(matches):
            twice = next(of for of in matches.values() if list(matches.values()).count(of) > 1)
            both = [name for name, of in matches.items() if of == twice]
            raise CxrfastError(
                f"classes: {both[0]} and {both[1]} both mean {twice}; merge them: --map '{both[1]}={twice}'"
            )
        source = self.renamed(matches)
        notes = [text for text in (describe_matches(matches),) if text]
        missing = [name for name in wanted if name not in source.class_names]
        if missing:
            labelled = frozenset(source.class_names)
            records = tuple(
                record if record.known is not None else replace(record, known=labelled) for record in source.records
            )
            source = replace(source, records=records)
            notes.append(f"not labelled in {self.root}, so unknown: {', '.join(missing)}")
        return replace(source, class_notes=[*source.class_notes, *notes])


def _renamed_boxes(boxes: Mapping[str, tuple[Box, ...]], names: Mapping[str, str]) -> Mapping[str, tuple[Box, ...]]:
    if not any(name in names for name in boxes):
        return boxes
    renamed: dict[str, tuple[Box, ...]] = {}
    for name, of_class in boxes.items():
        new = names.get(name, name)
        renamed[new] = tuple(dict.fromkeys((*renamed.get(new, ()), *of_class)))
    return renamed


@dataclass(frozen=True)
class Layout:
    """One layout of files that can be read.

    Attributes:
        name: for ``--dataset``.
        title: the data set or format in words.
        looks_for: what identifies the layout, for the error message of an unknown folder.
        recognise: returns what identifies ``path`` as this layout, for example the name of a table, or None. It reads
            file names, and headers where names are not enough, but no images.
        read: returns the data. Raises :class:`CxrfastError`, with file and line, for missing or inconsistent files.
        options: fields of :class:`DataOptions` that this layout understands beside those that all understand.
    """

    name: str
    title: str
    looks_for: str
    recognise: Callable[[Path], str | None]
    read: Callable[[Path, DataOptions], DataSource]
    options: frozenset[str] = frozenset()
