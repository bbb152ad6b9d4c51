"""Selects published numbers to show beside a run's, and says why they may not be comparable."""

from collections.abc import Iterator, Sequence

from cxrfast.evaluation import CrossValidationRecord, EvaluationRecord
from cxrfast.published.numbers import PublishedRow, rows

Record = EvaluationRecord | CrossValidationRecord

BOXES = {
    "Atelectasis": 180,
    "Effusion": 153,
    "Cardiomegaly": 146,
    "Infiltration": 123,
    "Pneumonia": 120,
    "Pneumothorax": 98,
    "Mass": 85,
    "Nodule": 79,
}
"""Annotated boxes of ChestX-ray14 per class, which the papers' localisation tables count."""
TEST_IMAGES = 25_596
"""Number of images of the official test list, on which AUROC is published."""


def published_accuracies(record: Record, metric: str, measure: str, t: float) -> list[PublishedRow]:
    """Published accuracies or AFP by the record's protocol, for one measure and T, except rows with only a mean."""
    found = rows(metric=metric, measure=measure, protocol=record.protocol, available=True)  # type: ignore[arg-type]
    return [row for row in found if row.values and row.T is not None and abs(row.T - t) < 1e-9]


def has_lines(record: Record) -> bool:
    """Whether any published numbers by this protocol are available."""
    return bool(rows(protocol=record.protocol, available=True))


def published_auroc(record: Record) -> list[PublishedRow]:
    """Published AUROCs of any class of this record; those of the same method first.

    For other methods, only the first line of a table is taken, since the following ones are ablations. Networks that
    are not methods of cxrfast are left out, unless they are in the paper of the record's method. Numbers that other
    papers quote are shown once, and only if those of the original paper are missing.
    """
    found, seen = [], set[tuple[str | None, ...]]()
    everything = rows(metric="auroc", available=True)
    papers_of_method = {row.paper for row in everything if row.method == record.method and not row.copied_from}
    own_papers = {row.paper for row in everything if row.copied_from is None}
    for row in everything:
        if row.copied_from in own_papers or not set(row.values or ()) & set(record.classes):
            continue
        if row.method is None and row.copied_from is None and row.paper not in papers_of_method:
            continue
        key = (row.copied_from,) if row.copied_from else (row.paper, row.table, row.method or row.row)
        if (row.copied_from is None and row.method == record.method) or key not in seen:
            found.append(row)
        seen.add(key)
    return sorted(found, key=lambda row: row.method != record.method)


def remarks(lines: Sequence[PublishedRow]) -> Iterator[str]:
    """Remarks on the lines, each once for all lines of a table that it applies to."""
    members: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        for words in dict.fromkeys((line.why, line.remark)):
            if words:
                names = members.setdefault((f"{line.citation.split(',')[0]}, Table {line.table}", words), [])
                names += [line.row] if line.row and line.row not in names else []
    for (table, words), names in members.items():
        which = f" ({', '.join(names)})" if names else ""
        yield f"{table}{which}: {words}."


def unavailable_places(record: Record) -> list[str]:
    """Tables by this protocol that are not available, with reasons."""
    return _unavailable(rows(protocol=record.protocol, available=False))


def unavailable_auroc(record: Record) -> list[str]:
    """AUROC tables of this method's paper that are not available, with reasons."""
    return _unavailable(rows(metric="auroc", method=record.method, available=False))


def _unavailable(lines: Sequence[PublishedRow]) -> list[str]:
    tables = dict.fromkeys((f"{row.citation.split(',')[0]}, Table {row.table}", row.unavailable) for row in lines)
    return [f"{name} is not available here: {why}" for name, why in tables]


def other_places(record: Record) -> str:
    """Why localisation is not comparable with the papers'; "" if both are measured on the same boxes."""
    annotated = record.annotated_classes
    if annotated == BOXES:
        return ""
    return (
        f"they are for all {sum(BOXES.values())} boxes of ChestX-ray14, these for {sum(annotated.values())} annotations"
    )


def other_images(record: Record) -> str:
    """Why AUROC is not comparable with the papers'; "" if both are measured on the same number of images."""
    if record.n_images == TEST_IMAGES:
        return ""
    return f"they are for the {TEST_IMAGES:,} images of the official test list, these for {record.n_images:,} images"
