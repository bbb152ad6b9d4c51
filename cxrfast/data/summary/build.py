"""Makes the summary of a data set."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cxrfast.data.datasets.interface import DataOptions, DataSource, Layout
from cxrfast.data.datasets.registry import choose_layout, read_data
from cxrfast.data.images import IMAGE_SUFFIXES
from cxrfast.data.records import Record
from cxrfast.data.summary.counts import count_ages, count_classes, count_findings, count_sizes, count_views
from cxrfast.data.summary.files import FileFacts, group_equal, identical_files, look_at_files
from cxrfast.data.summary.overlap import describe_duplicates, first_names, official_split, split_of_file
from cxrfast.data.summary.problems import find_warnings
from cxrfast.data.summary.record import DataSummary, Duplicates, Names, UnreadableImage
from cxrfast.data.tables.image_files import ImageFiles
from cxrfast.errors import CxrfastError


def summarize(
    path: str | os.PathLike,
    options: DataOptions = DataOptions(views="all"),  # noqa: B008, frozen
    *,
    splits: str | os.PathLike | None = None,
    hashes: bool = True,
    verify: bool = False,
    progress: bool = True,
) -> tuple[DataSource, DataSummary]:
    """Read a data set and describe its content.

    Args:
        path: as for :func:`cxrfast.data.read_data`.
        options: how it is read; by default with the images of all views.
        splits: a ``splits.json`` to examine for leakage, beside the official split.
        hashes: look for files with the same bytes.
        verify: decode every image. Damaged files are then found, and images with the same pixels instead of the same
            bytes.
        progress: show progress bars where stderr is a terminal.

    Returns:
        The data and their summary.

    Raises:
        CxrfastError: data that cannot be read, as from ``read_data``; a splits file that cannot be read.

    Example::

        source, summary = summarize("chest-xrays")
        print(summary.images, summary.warnings)
    """
    path = Path(path)
    layout, evidence = choose_layout(path, options.dataset)
    source = read_data(path, options)
    records = source.records
    missing, listed = _missing(path, options, source)
    facts = look_at_files([record.path for record in records], verify=verify, progress=progress)
    duplicates = _duplicates(records, facts, hashes, verify, progress)
    class_names = _all_classes(source)
    without_finding, with_unknown = count_findings(records, class_names)
    sexes = Counter(record.sex for record in records)
    studies = {record.study for record in records if record.study is not None}
    summary = DataSummary(
        path=str(path),
        layout=layout.name,
        title=layout.title,
        recognised_by=evidence,
        label_version=source.label_version,
        grouping=source.grouping,
        images=len(records),
        views=count_views(records),
        patients=len({record.patient for record in records}),
        studies=len(studies) or None,
        images_without_finding=without_finding,
        images_with_unknown_labels=with_unknown,
        images_with_boxes=sum(bool(record.boxes) for record in records),
        boxes=sum(len(boxes) for record in records for boxes in record.boxes.values()),
        classes=count_classes(records, class_names),
        formats=dict(Counter(record.path.suffix.lower() or "no suffix" for record in records).most_common()),
        bytes=sum(fact.length for fact in facts),
        sizes=count_sizes(fact.size for fact in facts if fact.size is not None),
        ages=count_ages(records),
        sexes={name: images for name, images in sexes.most_common() if name},
        sex_unknown=sum(images for name, images in sexes.items() if not name),
        official_split=official_split(records, duplicates),
        splits=None if splits is None else split_of_file(Path(splits), records, duplicates),
        duplicates=duplicates,
        verified=verify,
        unreadable=tuple(
            UnreadableImage(image=record.image, reason=_without_path(fact.problem, record.path))
            for record, fact in zip(records, facts, strict=True)
            if fact.problem
        ),
        missing=missing,
        unlisted=_unlisted(source.root, path, listed),
        warnings=(),
        notes=_notes(source, layout),
    )
    return source, summary.model_copy(update={"warnings": tuple(find_warnings(summary))})


def _without_path(problem: str, path: Path) -> str:
    """The message without the path, which the image's name stands for."""
    return problem.removeprefix(f"{path}: ").replace(str(path), path.name)


def _notes(source: DataSource, layout: Layout) -> tuple[str, ...]:
    """All notes but the one that names the layout, for which the summary has fields."""
    known = f"data set of layout {layout.name} "
    return tuple(note for note in (*source.notes, *source.class_notes) if not note.startswith(known))


def _all_classes(source: DataSource) -> list[str]:
    """The data set's classes, and any other that a record has."""
    found = set().union(*(record.labels | record.boxes.keys() for record in source.records))
    return [*source.class_names, *sorted(found - set(source.class_names))]


def _missing(path: Path, options: DataOptions, source: DataSource) -> tuple[Names | None, Sequence[Record]]:
    """Images of the tables without a file, and the records of all views, whose files are not unlisted."""
    if not options.images_required:
        return first_names([r.image for r in source.records if not r.path.is_file()]), source.records
    try:
        everything = read_data(path, replace(options, images_required=False, views="all")).records
    except CxrfastError:  # some layouts need the image to place its boxes
        return None, source.records
    there = {record.image for record in source.records}
    absent = [r.image for r in everything if r.image not in there and not r.path.is_file()]
    return first_names(absent), everything


def _unlisted(root: Path, path: Path, records: Sequence[Record]) -> Names:
    """Image files of the data folder that belong to no record.

    If the images of a manifest are outside its own folder, the data folder is one that holds them all and perhaps much
    else (``/``, if there is no other). Then only the folders of the images are searched, without their sub-folders.
    """
    if not root.is_dir():
        return Names(count=0)
    listed = {os.path.normpath(record.path) for record in records}
    own = path if path.is_dir() else path.parent
    if root.resolve().is_relative_to(own.resolve()):
        files = ImageFiles(root).paths
    else:
        folders = sorted({record.path.parent for record in records if record.path.is_file()})
        paths = [path for folder in folders for path in sorted(folder.iterdir())]
        files = [os.path.relpath(path, root) for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    return first_names([name for name in files if os.path.normpath(root / name) not in listed])


def _duplicates(
    records: Sequence[Record], facts: Sequence[FileFacts], hashes: bool, verify: bool, progress: bool
) -> Duplicates | None:
    readable = [place for place, fact in enumerate(facts) if not fact.problem]
    if verify:
        return describe_duplicates(records, group_equal(readable, [facts[n].pixels for n in readable]), "pixels")
    if not hashes:
        return None
    paths, sizes = [records[n].path for n in readable], [facts[n].length for n in readable]
    groups = identical_files(paths, sizes, progress=progress)
    return describe_duplicates(records, [[readable[n] for n in group] for group in groups], "bytes")
