"""The tables of a report as text cells, which the templates lay out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from cxrfast.evaluation.record import (
    AccuracyTableRecord,
    ClassRecord,
    EvaluationRecord,
    Limits,
    LocalizationRecord,
    MeanRecord,
    NoGate,
    TableHead,
)
from cxrfast.published.numbers import PublishedRow
from cxrfast.report import published
from cxrfast.report.facts import Evaluated, RunFacts
from cxrfast.report.html.charts import interval_bar

NONE = "–"
ORACLE = "oracle region on this grid"
_NO_LIMITS = (math.nan, math.nan)


@dataclass(frozen=True)
class TableCell:
    """A cell: its text, small print below it, and style classes."""

    text: str
    small: str = ""
    kind: str = ""  # class names of the style sheet
    bar: Markup | None = None


@dataclass(frozen=True)
class TableRow:
    """A row of a table."""

    name: str
    cells: Sequence[TableCell]
    kind: str = ""
    link: str = ""  # target of a link on the name


@dataclass(frozen=True)
class ReportTable:
    """A table with caption and notes."""

    caption: str
    header: Sequence[str]
    rows: Sequence[TableRow]
    notes: Sequence[str] = field(default_factory=tuple)


def number(value: float | None, digits: int = 3) -> str:
    return NONE if value is None or math.isnan(value) else f"{value:.{digits}f}"


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"{low:.{digits}f}–{high:.{digits}f}"


def plain(*values: str) -> list[TableCell]:
    return [TableCell(value) for value in values]


# Classification


def score_table(evaluated: Evaluated) -> ReportTable:
    """AUROC and AP with intervals, calibration and operating point of every class."""
    record = evaluated.record
    calibrated = any(not math.isnan(row.ece_calibrated) for row in record.classes.values())
    header = ["class", "AUROC", "0 … 1", "AP", "positive", "negative", "ECE"]
    header += ["ECE, calibrated", "temperature"] if calibrated else []
    rows = []
    for name, row in record.classes.items():
        cells = [_auroc(row), _bar(row.auroc, row.auroc_interval)]
        cells.append(TableCell(number(row.average_precision), interval(*row.average_precision_interval)))
        cells += plain(f"{row.n_positive:,}", f"{row.n_negative:,}")
        cells.append(TableCell(number(row.ece)))
        if calibrated:
            cells += plain(number(row.ece_calibrated), number(row.temperature, 2))
        rows.append(TableRow(name, cells))
    auroc = record.mean.auroc
    errors = [row.ece for row in record.classes.values() if not math.isnan(row.ece)]
    last = [
        _mean_cell(auroc),
        _bar(auroc.value, auroc.interval or _NO_LIMITS),
        _mean_cell(record.mean.average_precision),
    ]
    last += plain("", "", number(_mean(errors)), "", "")
    rows.append(TableRow("mean", last[: len(header) - 1], "mean"))
    return ReportTable("Is the disease on the image?", header, rows, _missing_scores(record))


def published_auroc_table(evaluated: Evaluated) -> ReportTable | None:
    """AUROC beside the papers' numbers; None if there are none."""
    record = evaluated.record
    lines = published.published_auroc(record)
    if not lines:
        return None
    own = [*(_auroc(row) for row in record.classes.values()), _mean_cell(record.mean.auroc)]
    why = published.other_images(record)
    first = [f"The papers' numbers cannot be compared with this model's: {why}."] if why else []
    return beside_papers("this model", own, lines, record, first)


def beside_papers(
    name: str,
    own: Sequence[TableCell],
    lines: Sequence[PublishedRow],
    record: published.Record,
    notes: Sequence[str],
) -> ReportTable:
    """AUROC: a row for each class and the mean, a column for our numbers and for each published line."""
    names = list(record.classes)
    theirs = [published_row(line, names) for line in lines]
    rows = [
        TableRow(
            line,
            [replace(own[n], kind="own"), *(replace(row.cells[n], kind="published") for row in theirs)],
            "mean" if n == len(names) else "",
        )
        for n, line in enumerate([*names, "mean"])
    ]
    missing = [f"{line}." for line in published.unavailable_auroc(record)]
    header = ["class", name, *(row.name for row in theirs)]
    return ReportTable("AUROC beside the papers", header, rows, [*notes, *published_notes(lines), *missing])


def published_row(line: PublishedRow, names: Sequence[str]) -> TableRow:
    """A published line as a row. It has a mean only if it is over the same classes."""
    values = line.values or {}
    mean = None
    if set(values) == set(names):
        mean = line.mean if line.mean is not None else _mean(list(values.values()))
    cells = [TableCell(number(values.get(name))) for name in names]
    name = line.name + ("" if line.comparable else "\N{NO-BREAK SPACE}*")
    return TableRow(name, [*cells, TableCell(number(mean))], "published")


def published_notes(lines: Sequence[PublishedRow]) -> list[str]:
    starred = any(not line.comparable for line in lines)
    first = ["* Not comparable with any run, for the reason that follows."] if starred else []
    return [*first, *published.remarks(lines)]


def _auroc(row: ClassRecord) -> TableCell:
    return TableCell(number(row.auroc), interval(*row.auroc_interval))


def _mean_cell(mean: MeanRecord) -> TableCell:
    return TableCell(number(mean.value), interval(*mean.interval or _NO_LIMITS))


def _bar(auroc: float, limits: Limits) -> TableCell:
    return TableCell("") if math.isnan(auroc) else TableCell("", bar=interval_bar(auroc, *limits, 0.5))


def _missing_scores(record: EvaluationRecord) -> list[str]:
    notes = []
    for what, key in (("positive", "n_positive"), ("negative", "n_negative")):
        without = [name for name, row in record.classes.items() if not getattr(row, key)]
        if without:
            notes.append(f"{NONE} No {what} image, so no AUROC, and not in the mean: {', '.join(without)}.")
    wide = [
        name for name, row in record.classes.items() if not math.isnan(row.auroc) and math.isnan(row.auroc_interval[0])
    ]
    if wide:
        notes.append(f"Too few patients for an interval: {', '.join(wide)}.")
    return notes


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


# Localisation


def localization_tables(evaluated: Evaluated) -> list[ReportTable]:
    """A table for each measure and gate of the protocol, as in the papers: a row per T, a column per class."""
    found = evaluated.record.localization
    return [] if found is None else [_accuracy_table(evaluated.record, found, table) for table in found.tables]


def _accuracy_table(record: EvaluationRecord, found: LocalizationRecord, table: AccuracyTableRecord) -> ReportTable:
    boxed = list(record.annotated_classes)
    unit = "boxes" if found.unit == "box" else "annotations"
    rows = [TableRow(f"{unit} scored", plain(*(f"{n:,}" for n in record.annotated_classes.values()), ""), "count")]
    lines: list[PublishedRow] = []
    for entry in table.rows:
        sign = f"{table.measure_name} {table.relation} {entry.T:g}"
        values = [entry.classes[name] for name in boxed]
        cells = [TableCell(number(value.accuracy), interval(value.low, value.high)) for value in values]
        rows.append(TableRow(f"{sign}: this model", [*cells, _mean_cell(entry.mean)], "own"))
        if isinstance(table.gate, NoGate) and not any(math.isnan(value.oracle) for value in values):
            rows.append(_values_row(ORACLE, [value.oracle for value in values]))
        beside = published.published_accuracies(record, "accuracy", table.measure, entry.T)
        rows += [published_row(line, boxed) for line in beside]
        lines += beside
        if not any(math.isnan(value.afp) for value in values):
            rows.append(_values_row("AFP of this model", [value.afp for value in values]))
            beside = published.published_accuracies(record, "afp", table.measure, entry.T)
            rows += [replace(row, name=f"AFP, {row.name}") for row in (published_row(line, boxed) for line in beside)]
    why = published.other_places(record)
    notes = [f"The papers' lines cannot be compared with this model's: {why}."] if lines and why else []
    notes += published_notes(lines)
    without = [name for name in record.classes if name not in boxed]
    if without:
        notes.append(f"{NONE} No annotated box, so nothing to localise, and not in the mean: {', '.join(without)}.")
    return ReportTable(f"Share of {unit} found, {table_words(table)}", ["", *boxed, "mean"], rows, notes)


def table_words(table: TableHead) -> str:
    """The measure of a table, and its gate if it has one."""
    gate = f", only where the image's {table.gate}" if str(table.gate) else ""
    return f"{table.measure_name}{gate}"


def _values_row(name: str, values: Sequence[float]) -> TableRow:
    return TableRow(name, plain(*map(number, values), number(_mean(values))), "oracle")


def published_remark(evaluated: Evaluated) -> str:
    """Why no published localisation is shown for this protocol; "" if there is any."""
    record = evaluated.record
    if record.localization is None:
        return ""
    missing = published.unavailable_places(record)
    if missing:
        return " ".join(f"{line}." for line in missing)
    return "" if published.has_lines(record) else f"No paper publishes numbers by protocol {record.protocol}."


def detection_table(evaluated: Evaluated) -> ReportTable | None:
    """Detection: AP at each T, FROC, pointing game; None without detections."""
    found = evaluated.record.detection
    if found is None:
        return None
    header = ["class", *(f"AP at IoU {t:g}" for t in found.iou_thresholds), "FROC, mean", "pointing game"]
    names = list(evaluated.record.annotated_classes)
    columns = [
        [*found.average_precision[name], _known_mean(found.froc.sensitivity[name]), found.pointing_game[name]]
        for name in names
    ]
    rows = [TableRow(name, plain(*map(number, values))) for name, values in zip(names, columns, strict=True)]
    means = [_known_mean(column) for column in zip(*columns, strict=True)]
    rows.append(TableRow("mean", plain(*map(number, means)), "mean"))
    note = (
        f"Boxes of the method's own regions, with their highest map value as score, on {found.n_images:,} images "
        f"with any annotation. FROC: sensitivity at IoU {found.froc.iou_threshold:g}, mean over ⅛ to 8 false "
        "positives per image."
    )
    return ReportTable("Boxes as detections", header, rows, [note])


def _known_mean(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN."""
    mean = _mean([value for value in values if not math.isnan(value)])
    return math.nan if mean is None else mean


# The evaluation and the run


def headline(evaluated: Evaluated) -> list[tuple[str, str, str]]:
    """(number, name, remark) of the main numbers, shown at the top."""
    record = evaluated.record
    tiles = [
        _tile(mean, words, _over(record, mean))
        for mean, words in ((record.mean.auroc, "mean AUROC"), (record.mean.average_precision, "mean AP"))
    ]
    found = record.localization
    if found is not None:
        scored = f"{sum(record.annotated_classes.values()):,} {'boxes' if found.unit == 'box' else 'annotations'}"
        for table in found.tables[:2]:
            entry = next((row for row in table.rows if row.T == 0.5), table.rows[0])
            words = f"found at {table.measure_name} {table.relation} {entry.T:g}"
            tiles.append(_tile(entry.mean, words, f"mean of classes, {scored}"))
    return tiles


def _tile(mean: MeanRecord, words: str, remark: str) -> tuple[str, str, str]:
    cell = _mean_cell(mean)
    return cell.text, words, f"{cell.small} (95 %); {remark}" if cell.small else remark


def _over(record: EvaluationRecord, mean: MeanRecord) -> str:
    left_out, total = len(mean.left_out), len(record.classes)
    return f"{total - left_out} of {total} classes" if left_out else f"{total} class{'es' if total > 1 else ''}"


def evaluation_facts(evaluated: Evaluated) -> list[tuple[str, str]]:
    """Name and value of the facts about an evaluation."""
    record = evaluated.record
    shared = record.shared_patients
    facts = [
        ("evaluated", f"{record.n_images:,} images of {record.n_patients:,} patients ({record.split})"),
        ("patients shared with training", "unknown" if shared is None else f"{shared:,}"),
        ("labels", f"version {record.label_version}"),
        ("images (hash)", record.images_hash),
        ("splits (hash)", (record.split_hash or "none")[:12]),
        ("method", record.method),
        ("weights", record.weights),
    ]
    if record.learnt_from is not None:
        facts.append(("learnt from", str(record.learnt_from)))
    found = record.localization
    facts.insert(0, ("protocol", record.protocol + (f" ({found.paper})" if found else "")))
    if found is not None:
        of_map = ", of the min-max normalised map" if found.minmax_normalised else ""
        facts += [
            ("region", str(found.rule)),
            ("map threshold", f"{found.threshold}{of_map}"),
            ("grid", "none" if found.grid is None else f"{found.grid[0]} × {found.grid[1]} patches"),
            ("training, by the protocol", found.published_on),
        ]
        if found.fallbacks:
            facts.append(("at the method's threshold", f"{found.fallbacks} annotations: no other fold has their class"))
    return facts


def split_table(evaluated: Evaluated) -> ReportTable | None:
    """Images, patients and annotations of the parts of the run's split; None if unknown."""
    parts, records = evaluated.run.parts, evaluated.records
    if not parts:
        return None
    header = ["part", "images", "patients", "with a finding", "with a box"]
    rows = []
    for part, images in parts.items():
        known = [records[image] for image in images if image in records]
        counts = [len(images)]
        cells = [f"{len(images):,}"]
        if len(known) == counts[0]:
            patients = len({record.patient for record in known})
            cells += [f"{n:,}" for n in (patients, sum(map(bool, (r.labels for r in known))), _boxed(known))]
        else:
            cells += [NONE] * 3
        rows.append(TableRow({"train": "training", "val": "validation"}.get(part, part), plain(*cells)))
    facts = evaluated.run.split
    note = f"Split by {facts.get('strategy', '?')}, seed {facts.get('seed', '?')}."
    return ReportTable("The run's data", header, rows, [note, *map(str, facts.get("notes") or [])])


def _boxed(records: Sequence[Any]) -> int:
    return sum(any(record.boxes.values()) for record in records)


def configuration(run: RunFacts) -> list[tuple[str, str]]:
    """Every setting of the run, with the options of its method."""
    flat: list[tuple[str, str]] = []
    for name, value in run.config.items():
        if isinstance(value, dict):
            flat += [(f"{name}.{key}", _words(entry)) for key, entry in value.items()]
        else:
            flat.append((name, _words(value)))
    return flat


def environment(run: RunFacts) -> list[tuple[str, str]]:
    """Software and machine of the run."""
    return [(name.replace("_", " "), _words(value)) for name, value in run.environment.items()]


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "default" if value is None else str(value)
