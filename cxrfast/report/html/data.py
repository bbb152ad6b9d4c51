"""The page of a data set: what it contains, warnings, and a sample of its images."""

import os

from cxrfast._files import write_text
from cxrfast.data.datasets.interface import UNITS, DataSource
from cxrfast.data.summary.record import DataSummary, SplitSummary
from cxrfast.report.data_facts import count_images, data_facts, layout_words, unreadable_text
from cxrfast.report.html.page import render
from cxrfast.report.html.sample import draw_sample
from cxrfast.report.html.tables import NONE, ReportTable, TableCell, TableRow

_LISTED = 20  # unreadable images


def write_data_page(source: DataSource, summary: DataSummary, path: str | os.PathLike) -> None:
    """Write the page of a data set, atomically."""
    write_text(path, render_data_page(source, summary))


def render_data_page(source: DataSource, summary: DataSummary) -> str:
    """The page as HTML. ``source`` and ``summary`` are those of :func:`cxrfast.data.summary.summarize`."""
    splits = [split for split in (summary.official_split, summary.splits) if split is not None]
    return render(
        "data.html",
        summary=summary,
        title=os.path.basename(os.path.abspath(summary.path)),
        layout=layout_words(summary),
        headline=_headline(summary),
        facts_rows=data_facts(summary),
        class_table=_classes(summary),
        split_tables=[_split(split, summary) for split in splits],
        unreadable=unreadable_text(summary, _LISTED),
        sample=draw_sample(source.records, [entry.name for entry in summary.classes]),
        script=None,
    )


def _headline(summary: DataSummary) -> list[tuple[str, str, str]]:
    views = "" if summary.views.lateral == 0 else f"{summary.views.lateral:,} lateral"
    unit = UNITS[summary.grouping]
    tiles = [(f"{summary.images:,}", "images", views)]
    if summary.grouping != "image":
        tiles.append((f"{summary.patients:,}", unit, ""))
    labelled = sum(entry.positive > 0 for entry in summary.classes)
    tiles.append((f"{len(summary.classes)}", "classes", f"{labelled} of them with positive images"))
    tiles.append((f"{summary.boxes:,}", "boxes", f"on {count_images(summary.images_with_boxes)}"))
    return tiles


def _classes(summary: DataSummary) -> ReportTable:
    rows = []
    for entry in summary.classes:
        share = NONE if entry.positive_share is None else f"{100 * entry.positive_share:.1f} %"
        counts = [f"{n:,}" for n in (entry.positive, entry.negative, entry.unknown)]
        texts = [*counts, share, f"{entry.images_with_boxes:,}", f"{entry.boxes:,}"]
        rows.append(TableRow(entry.name, [TableCell(text) for text in texts]))
    return ReportTable(
        "Images by label, and boxes",
        ["class", "positive", "negative", "unknown", "positive share", "images with boxes", "boxes"],
        rows,
        ["Positive share: of the images whose label of the class is known."],
    )


def _split(split: SplitSummary, summary: DataSummary) -> ReportTable:
    rows = [
        TableRow(
            part.name,
            [TableCell(f"{n:,}") for n in (part.images, part.patients, part.images_with_boxes, part.boxes)],
        )
        for part in split.parts
    ]
    if split.without_part:
        rows.append(TableRow("in no part", [TableCell(f"{split.without_part:,}"), *[TableCell("")] * 3], "count"))
    caption = "Official split" if split.source == "official" else f"Splits of {split.source}"
    return ReportTable(caption, ["part", "images", UNITS[summary.grouping], "images with boxes", "boxes"], rows)
