"""The facts of a data set in words, for the terminal and the HTML page."""

from cxrfast.data.datasets.interface import UNITS
from cxrfast.data.summary.record import DataSummary, Duplicates, SizeCount

UNIT_NAMES = ("bytes", "kB", "MB", "GB", "TB")


def data_facts(summary: DataSummary) -> list[tuple[str, str]]:
    """(name, value) of everything but the tables of classes and splits."""
    facts = [
        ("data set", f"{layout_words(summary)}, recognised by {summary.recognised_by}"),
        ("path", summary.path),
        ("labels", summary.label_version),
        ("images", f"{summary.images:,}{_views(summary)}"),
        *_groups(summary),
        ("without finding", f"{count_images(summary.images_without_finding)} (all classes are known to be absent)"),
        ("unknown labels", f"on {count_images(summary.images_with_unknown_labels)}"),
        ("boxes", f"{summary.boxes:,} on {count_images(summary.images_with_boxes)}"),
        ("files", f"{', '.join(f'{n:,} {name}' for name, n in summary.formats.items())}; {_bytes(summary.bytes)}"),
        ("image size", _sizes(summary)),
        ("age", _ages(summary)),
        ("sex", _sexes(summary)),
        ("unreadable", _unreadable(summary)),
        ("duplicates", _duplicates(summary.duplicates)),
    ]
    if summary.missing is None:
        facts.append(("missing images", "not counted: without its image a row of this data set cannot be read"))
    else:
        facts.append(("missing images", f"{count_images(summary.missing.count)} of the tables without a file"))
    more = f" (first: {summary.unlisted.first[0]})" if summary.unlisted.first else ""
    facts.append(
        ("other images", f"{count_images(summary.unlisted.count)} in the folder, not part of the data set{more}")
    )
    if summary.official_split is None:
        facts.append(("official split", "none"))
    return facts


def layout_words(summary: DataSummary) -> str:
    """The layout, with its title if that says more."""
    same = summary.title.casefold() == summary.layout.casefold()
    return summary.layout if same else f"{summary.layout} ({summary.title})"


def unreadable_text(summary: DataSummary, most: int) -> list[str]:
    """A line for each of the first unreadable images, and one for the number of the others."""
    shown = [f"{entry.image}: {entry.reason}" for entry in summary.unreadable[:most]]
    rest = len(summary.unreadable) - len(shown)
    return [*shown, f"and {rest:,} more, which the JSON record names"] if rest else shown


def _views(summary: DataSummary) -> str:
    views = summary.views
    if views.unknown == summary.images:
        return "; views unknown"
    counts = [("frontal", views.frontal), ("lateral", views.lateral), ("of other views", views.other)]
    counts.append(("of unknown view", views.unknown))
    text = ", ".join(f"{images:,} {name}" for name, images in counts if images)
    names = ", ".join(f"{name} {images:,}" for name, images in views.by_name.items())
    hint = "; training leaves lateral images out unless --views all is given" if views.lateral else ""
    return f": {text} ({names}){hint}"


def _groups(summary: DataSummary) -> list[tuple[str, str]]:
    """Patients and studies, or what stands for them."""
    studies = [] if summary.studies is None else [("studies", f"{summary.studies:,}")]
    if summary.grouping == "patient":
        return [("patients", f"{summary.patients:,}"), *studies]
    unit = UNITS[summary.grouping]
    return [("patients", f"unknown; splits are made by {summary.grouping} ({summary.patients:,} {unit})"), *studies]


def _sizes(summary: DataSummary) -> str:
    sizes = summary.sizes
    if sizes.smallest is None or sizes.largest is None:
        return "unknown: no header can be read"
    if sizes.distinct == 1:
        return f"{_size(sizes.smallest)}, all images"
    frequent = ", ".join(f"{_size(size)} ({size.images:,})" for size in sizes.most_frequent)
    which = "all" if sizes.distinct == len(sizes.most_frequent) else "most frequent"
    ends = f"smallest {_size(sizes.smallest)}, largest {_size(sizes.largest)}"
    return f"{sizes.distinct:,} different; {which}: {frequent}; {ends}"


def _size(size: SizeCount) -> str:
    return f"{size.width}×{size.height}"


def _ages(summary: DataSummary) -> str:
    ages = summary.ages
    if ages.median is None:
        return "unknown"
    rest = f"; unknown on {count_images(ages.unknown)}" if ages.unknown else ""
    return f"{ages.minimum} to {ages.maximum} years, median {ages.median:g} (images){rest}"


def _sexes(summary: DataSummary) -> str:
    if not summary.sexes:
        return "unknown"
    counts = [f"{name} {images:,}" for name, images in summary.sexes.items()]
    if summary.sex_unknown:
        counts.append(f"unknown {summary.sex_unknown:,}")
    return f"{', '.join(counts)} (images)"


def _unreadable(summary: DataSummary) -> str:
    how = "every image was decoded" if summary.verified else "headers only; --verify decodes every image"
    return f"{count_images(len(summary.unreadable))} ({how})"


def _duplicates(found: Duplicates | None) -> str:
    if found is None:
        return "not looked for (--no-hash)"
    what = "the same bytes" if found.compared == "bytes" else "the same pixels"
    if not found.groups:
        return f"no two readable images have {what}"
    groups = len(found.groups)
    return f"{found.images:,} images in {groups:,} {'group' if groups == 1 else 'groups'} with {what}"


def count_images(count: int) -> str:
    """The number with its noun."""
    return f"{count:,} {'image' if count == 1 else 'images'}"


def _bytes(count: int) -> str:
    value, unit = float(count), 0
    while value >= 1000 and unit < len(UNIT_NAMES) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {UNIT_NAMES[unit]}"
