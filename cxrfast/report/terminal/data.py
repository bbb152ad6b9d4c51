"""The summary of a data set as text for a terminal."""

from cxrfast.data.datasets.interface import UNITS
from cxrfast.data.summary.record import DataSummary
from cxrfast.report.data_facts import data_facts, unreadable_text
from cxrfast.report.terminal.layout import ruled, wrap

_LISTED = 10  # unreadable images
_NAMES = 18  # columns of the facts' names


def data_to_text(summary: DataSummary) -> str:
    """Facts, a table of the classes, a table for each split, warnings and notes."""
    lines: list[str] = []
    for name, value in data_facts(summary):
        first, *more = wrap(value, " " * _NAMES) or [""]
        lines += [name.ljust(_NAMES) + first[_NAMES:], *more]
    lines += ["", *_classes(summary)]
    for split in (summary.official_split, summary.splits):
        if split is not None:
            header = ["official split" if split.source == "official" else "splits file", "images"]
            header += [UNITS[summary.grouping], "with boxes", "boxes"]
            rows = [
                [p.name, f"{p.images:,}", f"{p.patients:,}", f"{p.images_with_boxes:,}", f"{p.boxes:,}"]
                for p in split.parts
            ]
            if split.without_part:
                rows.append(["in no part", f"{split.without_part:,}", "", "", ""])
            lines += ["", *ruled([header, *rows], below=0)]
    lines += _list("warnings", summary.warnings)
    lines += _list("unreadable images", unreadable_text(summary, _LISTED))
    lines += _list("notes", summary.notes)
    return "\n".join(lines) + "\n"


def _classes(summary: DataSummary) -> list[str]:
    header = ["class", "positive", "negative", "unknown", "% positive", "with boxes", "boxes"]
    rows = []
    for entry in summary.classes:
        share = "-" if entry.positive_share is None else f"{100 * entry.positive_share:.1f}"
        counts = (entry.positive, entry.negative, entry.unknown)
        rows.append(
            [entry.name, *(f"{n:,}" for n in counts), share, f"{entry.images_with_boxes:,}", f"{entry.boxes:,}"]
        )
    return [*ruled([header, *rows], below=0), *wrap("images; % positive: of those with a known label", "")]


def _list(title: str, entries: tuple[str, ...] | list[str]) -> list[str]:
    return ["", title, *(line for entry in entries for line in wrap(entry, "  "))] if entries else []
