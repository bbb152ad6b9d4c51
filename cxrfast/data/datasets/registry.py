"""The layouts that can be read, and the choice among them."""

from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

from cxrfast.data.class_names import ClassMatcher
from cxrfast.data.datasets import (
    chestxray14,
    chexpert,
    mimic_cxr_jpg,
    padchest,
    rsna_pneumonia,
    siim_acr,
    vindr_cxr,
)
from cxrfast.data.datasets.formats import coco, folders, manifest, voc, yolo
from cxrfast.data.datasets.interface import DataOptions, DataSource, Layout
from cxrfast.data.phantoms.marker import is_phantoms
from cxrfast.errors import CxrfastError, UsageError

# In the order in which they are tried. Layouts of one data set come before general formats.
LAYOUTS: tuple[Layout, ...] = (
    chestxray14.LAYOUT,
    vindr_cxr.LAYOUT,
    rsna_pneumonia.LAYOUT,
    chexpert.LAYOUT,
    mimic_cxr_jpg.LAYOUT,
    padchest.LAYOUT,
    siim_acr.LAYOUT,
    coco.LAYOUT,
    yolo.LAYOUT,
    voc.LAYOUT,
    manifest.LAYOUT,
    folders.LAYOUT,
)

# Projections that are known not to be frontal; others are kept.
_NOT_FRONTAL = frozenset({"lateral", "oblique", "lao", "rao", "lpo", "rpo", "swimmers", "costal"})

_SPECIFIC = ("labels", "uncertain", "readers")  # options that only some layouts understand


def read_data(path: str | Path, options: DataOptions = DataOptions()) -> DataSource:  # noqa: B008, frozen
    """Read a data set in any known layout.

    Args:
        path: the data set's folder, or the file of a format that is one file (a manifest, COCO).
        options: see :class:`DataOptions`.

    Raises:
        UsageError: an unknown layout name, or an option that the layout does not understand.
        CxrfastError: no known layout, or files that are missing or inconsistent.

    Example::

        source = read_data("chest-xrays")
        print(source.layout, len(source.records), source.class_names)
    """
    path = Path(path)
    layout, evidence = choose_layout(path, options.dataset)
    for name in _SPECIFIC:
        default = next(field.default for field in fields(options) if field.name == name)
        if getattr(options, name) != default and name not in layout.options:
            able = [other.name for other in LAYOUTS if name in other.options]
            raise UsageError(f"{name}: goes with {', '.join(able)}, got data of layout {layout.name}; leave it out")
    source = layout.read(path, options)
    # Phantoms that were brought into another layout keep their marker
    source = replace(source, synthetic=source.synthetic or is_phantoms(path if path.is_dir() else path.parent))
    source = replace(source, notes=[f"data set of layout {layout.name} ({layout.title}), by {evidence}", *source.notes])
    return _mapped(_of_views(source, options), options)


def choose_layout(path: Path, name: str | None = None) -> tuple[Layout, str]:
    """The layout of ``path``, and what identifies it."""
    if name is not None:
        chosen = next((layout for layout in LAYOUTS if layout.name == name), None)
        if chosen is None:
            raise UsageError(f"dataset: expected one of {', '.join(x.name for x in LAYOUTS)}, got {name!r}")
        return chosen, "--dataset"
    if not path.exists():
        raise CxrfastError(f"data: no folder or file {path}; check the path, or make phantoms: cxrfast synth DIR")
    for layout in LAYOUTS:
        evidence = layout.recognise(path)
        if evidence is not None:
            return layout, evidence
    if path.is_file():
        raise CxrfastError(
            f"data: {path} is neither a table ({', '.join(manifest.TABLE_ENDS)}) nor a COCO file (.json); pass the "
            "data set's folder, or save a spreadsheet as CSV with a column image and one for each class (1, 0, empty)"
        )
    tables = manifest.tables_of_images(path)
    if tables:
        raise CxrfastError(
            f"data: {path} has no layout that is known, but tables with a column of images: {', '.join(tables)}; pass "
            f"one as a manifest, as in --data {path / tables[0]}"
        )
    known = "; ".join(f"{layout.name}: {layout.looks_for}" for layout in LAYOUTS)
    raise CxrfastError(
        f"data: {path} has no layout that is known ({known}); choose one with --dataset, or write a manifest.csv with "
        "the columns image and one for each class (1, 0, empty)"
    )


def layout_options(name: str) -> frozenset[str]:
    """The special options that a layout understands."""
    return next((layout.options for layout in LAYOUTS if layout.name == name), frozenset())


def _of_views(source: DataSource, options: DataOptions) -> DataSource:
    if options.views == "all":
        return source
    kept = tuple(record for record in source.records if record.view not in _NOT_FRONTAL)
    left_out = Counter(record.view for record in source.records if record.view in _NOT_FRONTAL)
    if not left_out:
        return source
    listed = ", ".join(f"{view} {count}" for view, count in left_out.most_common())
    what = "lateral" if list(left_out) == ["lateral"] else f"lateral or oblique ({listed})"
    if not kept:
        raise CxrfastError(
            f"views: all {left_out.total()} images of {source.root} are {what}; keep them with --views all"
        )
    note = f"{what} images left out: {left_out.total()} (--views all keeps them)"
    return replace(source, records=kept, notes=[*source.notes, note])


def _mapped(source: DataSource, options: DataOptions) -> DataSource:
    """Apply ``class_map``, whose keys may be any name of a class."""
    if not options.class_map:
        return source
    matcher = ClassMatcher(source.class_names)
    names = {}
    for name, new in options.class_map.items():
        of = matcher.match(name)
        if of is None:
            raise UsageError(
                f"map: {source.root} has no class {name!r}; expected one of {', '.join(source.class_names)}"
            )
        names[of] = matcher.match(new) or new
    listed = ", ".join(f"{name} → {new}" for name, new in names.items())
    source = source.renamed(names)
    return replace(source, class_notes=[*source.class_notes, f"classes renamed by --map: {listed}"])
