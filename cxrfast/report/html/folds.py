"""The page of a cross-validation: mean ± sd over its runs, beside the papers' numbers."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from cxrfast._files import write_text
from cxrfast.errors import CxrfastError
from cxrfast.evaluation.cross_validation.fold_evaluation import FoldEvaluation
from cxrfast.evaluation.cross_validation.record import (
    CrossValidationRecord,
    PooledClassDetection,
    PooledLocalization,
    PooledMeanDetection,
    PooledTableRecord,
    SpreadRecord,
)
from cxrfast.evaluation.record import NoGate
from cxrfast.published.numbers import PublishedRow
from cxrfast.report import published
from cxrfast.report.html.fold_curves import fold_curves
from cxrfast.report.html.page import render
from cxrfast.report.html.tables import (
    ORACLE,
    ReportTable,
    TableCell,
    TableRow,
    beside_papers,
    number,
    plain,
    published_notes,
    published_row,
    table_words,
)
from cxrfast.runs.directory import RunDirectory


def is_folds(folder: Path) -> bool:
    """Whether the folder contains the pooled result of a cross-validation."""
    return RunDirectory(folder).pooled.is_file()


def write_folds(folder: Path, path: Path | None = None) -> Path:
    """Write the page of the cross-validation in ``folder``, and return its path."""
    directory = RunDirectory(folder)
    path = directory.report() if path is None else path
    record = CrossValidationRecord.load(directory.pooled)
    write_text(path, render_folds(record, directory.name, folder, path.parent))
    return path


def render_folds(
    record: CrossValidationRecord, title: str, folder: Path | None = None, beside: Path | None = None
) -> str:
    """The page as HTML. ``folder`` contains the runs; ``beside`` is the folder of the page, for relative links."""
    runs, no_curves = _read_runs(record, folder)
    return render(
        "folds.html",
        record=record,
        title=title,
        headline=_headline(record),
        facts_rows=_facts(record),
        run_table=_runs(record, folder, beside),
        score_tables=[_scores(record), *_published_auroc(record)],
        localization_tables=[*_localization(record), *_detection(record)],
        curves=fold_curves(record, runs) if runs else [],
        no_curves=no_curves,
        script=None,
    )


def _read_runs(record: CrossValidationRecord, folder: Path | None) -> tuple[list[FoldEvaluation], str]:
    """The evaluations that the record pools; none, with the reason, if files are missing or of other evaluations."""
    if folder is None:
        return [], ""
    runs = []
    for entry in record.runs:
        place = RunDirectory(folder).run(entry.run)
        files = place.evaluation(), place.predictions()
        try:
            run = FoldEvaluation.load(entry.run, entry.fold, entry.seed, *files)
        except CxrfastError as error:
            return [], f"No curves are shown: {error}."
        found = run.record
        own = (found.n_images, found.split_hash, found.protocol, found.class_names)
        if own != (entry.n_images, entry.split_hash, record.protocol, record.class_names):
            why = f"{place.path} was evaluated with other settings since; evaluate the cross-validation again"
            return [], f"No curves are shown: {why}."
        runs.append(run)
    return runs, ""


def _spread(entry: SpreadRecord, digits: int = 3) -> TableCell:
    """Mean ± sd over the runs, and in small print the pooled number."""
    text = number(entry.mean, digits)
    if not math.isnan(entry.sd):
        text += f" ±\N{NO-BREAK SPACE}{entry.sd:.{digits}f}"  # narrow columns break the line before the sign
    pooled = "" if math.isnan(entry.pooled) else f"pooled {entry.pooled:.{digits}f}"
    if entry.interval:
        pooled += " [{:.{d}f}, {:.{d}f}]".format(*entry.interval, d=digits)
    return TableCell(text, pooled)


def _headline(record: CrossValidationRecord) -> list[tuple[str, str, str]]:
    tiles = [(record.mean.auroc, "mean AUROC"), (record.mean.average_precision, "mean AP")]
    for table in record.localization.tables[:2] if record.localization else ():
        row = next((row for row in table.rows if row.T == 0.5), table.rows[0])
        tiles.append((row.mean, f"found at {table.measure_name} {table.relation} {row.T:g}"))
    runs = len(record.runs)
    return [(number(entry.mean), what, f"± {number(entry.sd)} over {runs} runs") for entry, what in tiles]


def _facts(record: CrossValidationRecord) -> list[tuple[str, str]]:
    seeds = len(record.seeds)
    facts = [
        ("protocol", record.protocol),
        ("folds", f"{record.folds} by {record.by}, {seeds} seed{'s' if seeds > 1 else ''}"),
        ("tested", "all images")
        if record.of == "all"
        else ("images without boxes in training", f"{100 * record.unannotated:g} %"),
        ("labels", f"version {record.label_version}"),
        ("splits (hash)", record.splits_hash[:12]),
        ("patients shared with training", f"{record.shared_patients:,}"),
    ]
    found = record.localization
    if found is not None:
        facts += [("region", str(found.rule)), ("training, by the protocol", found.published_on)]
    validated = record.validation_images
    if validated:
        sizes = " to ".join(f"{n:,}" for n in sorted({min(validated), max(validated)}))
        facts.append(("validation images", sizes if any(validated) else "none: the last epoch is kept"))
    if record.classes_left_out:
        names = ", ".join(f"{name} ({n:,})" for name, n in record.classes_left_out.items())
        facts.append(("classes left out (boxes on test images)", names))
    if record.missing:
        facts.append(("not finished yet", ", ".join(record.missing)))
    return facts


def _runs(record: CrossValidationRecord, folder: Path | None, beside: Path | None) -> ReportTable:
    rows = []
    for run, area in zip(record.runs, record.mean.auroc.values, strict=True):
        shared = run.shared_patients
        cells = plain(
            f"{run.n_images:,}",
            f"{run.n_patients:,}",
            "unknown" if shared is None else f"{shared:,}",
            number(area),
        )
        page = None if folder is None else RunDirectory(folder).run(run.run).report()
        link = "" if page is None or not page.is_file() else quote(os.path.relpath(page, beside or folder))
        rows.append(TableRow(run.run, cells, link=link))
    without = [row.name for row in rows if not row.link]
    notes = [f"Without a page (cxrfast report makes it): {', '.join(without)}."] if without else []
    return ReportTable("Runs", ["run", "images", "patients", "shared with training", "mean AUROC"], rows, notes)


def _scores(record: CrossValidationRecord) -> ReportTable:
    titles = {"auroc": "AUROC", "average_precision": "AP", "ece": "ECE", "ece_calibrated": "ECE, calibrated"}
    names = [name for name in titles if getattr(record.mean, name).exists]
    rows = [
        TableRow(
            name,
            [
                *plain(f"{row.n_positive:,}", f"{row.n_negative:,}"),
                *(_spread(getattr(row, key)) for key in names),
            ],
        )
        for name, row in record.classes.items()
    ]
    means = [_spread(getattr(record.mean, key)) for key in names]
    rows.append(TableRow("mean", [*plain("", ""), *means], "mean"))
    header = ["class", "positive", "negative", *(titles[name] for name in names)]
    return ReportTable("Is the disease on the image?", header, rows, list(_score_notes(record, names)))


def _score_notes(record: CrossValidationRecord, names: Sequence[str]) -> Iterator[str]:
    auroc, calibrated = record.mean.auroc, record.mean.ece_calibrated
    if auroc.incomplete:
        without = ", ".join(auroc.incomplete)
        yield f"Missing from the means of some runs, which have no positive or no negative image: {without}."
    if "ece" in names:
        yield "ECE: expected calibration error; calibrated: with each run's own temperatures."
    if "ece_calibrated" in names:
        for classes, words in ((calibrated.incomplete, "some runs have"), (calibrated.left_out, "no run has")):
            if classes:
                listed = ", ".join(classes)
                yield f"Too few validation images for a temperature, so that {words} one: {listed}."
    if auroc.left_out:
        yield f"– No positive or no negative image, and not in the mean: {', '.join(auroc.left_out)}."


def _published_auroc(record: CrossValidationRecord) -> list[ReportTable]:
    lines = published.published_auroc(record)
    if not lines:
        return []
    own = [*(_spread(row.auroc) for row in record.classes.values()), _spread(record.mean.auroc)]
    first = (
        "The papers' numbers cannot be compared with these: they are from a single training run and other test images."
    )
    return [beside_papers("this cross-validation", own, lines, record, [first])]


def _localization(record: CrossValidationRecord) -> list[ReportTable]:
    found = record.localization
    return [] if found is None else [_accuracies(record, found, table) for table in found.tables]


def _accuracies(record: CrossValidationRecord, found: PooledLocalization, table: PooledTableRecord) -> ReportTable:
    boxed = list(record.annotated_classes)
    unit = "boxes" if found.unit == "box" else "annotations"
    rows = [TableRow(f"{unit} scored", plain(*(f"{n:,}" for n in record.annotated_classes.values()), ""), "count")]
    lines: list[PublishedRow] = []
    for entry in table.rows:
        cells = [_spread(entry.classes[name]) for name in boxed]
        title = f"{table.measure_name} {table.relation} {entry.T:g}: this cross-validation"
        rows.append(TableRow(title, [*cells, _spread(entry.mean)], "own"))
        best = [entry.classes[name].oracle for name in boxed]
        if isinstance(table.gate, NoGate) and best and not any(map(math.isnan, best)):
            cells = plain(*map(number, [*best, sum(best) / len(best)]))
            rows.append(TableRow(ORACLE, cells, "oracle"))
        beside = published.published_accuracies(record, "accuracy", table.measure, entry.T)
        rows += [published_row(line, boxed) for line in beside]
        lines += beside
    caption = f"Share of {unit} found, {table_words(table)}"
    return ReportTable(caption, ["", *boxed, "mean"], rows, _notes(record, lines))


def _notes(record: CrossValidationRecord, lines: Sequence[PublishedRow]) -> list[str]:
    why = published.other_places(record)
    notes = [f"The papers' lines cannot be compared with these: {why}."] if lines and why else []
    without = [name for name in record.classes if name not in record.annotated_classes]
    if without:
        notes.append(f"– No annotated box, so nothing to localise, and not in the mean: {', '.join(without)}.")
    return [*notes, *published_notes(lines)]


def _detection(record: CrossValidationRecord) -> list[ReportTable]:
    """Detection: AP at each T, FROC and pointing game, and a second table of the FROC at each rate."""
    found = record.detection
    if found is None:
        return []
    rows: list[tuple[str, PooledClassDetection | PooledMeanDetection, str]]
    rows = [(name, found.classes[name], "") for name in record.annotated_classes]
    rows.append(("mean", found.mean, "mean"))
    header = ["class", *(f"AP at IoU {t:g}" for t in found.iou_thresholds), "FROC, mean", "pointing game"]
    first = [
        TableRow(
            name,
            [*map(_spread, entry.average_precision), _spread(entry.froc), _spread(entry.pointing_game)],
            kind,
        )
        for name, entry, kind in rows
    ]
    rates = [f"{rate:g}" if rate >= 1 else f"1/{1 / rate:g}" for rate in found.false_positives_per_image]
    second = [TableRow(name, [*map(_spread, entry.sensitivity)], kind) for name, entry, kind in rows]
    note = (
        "Boxes of the method's own regions, with their highest map value as score, on images with any annotation. "
        "The maps of different networks have no common scale. Only the pointing game is pooled, because it compares "
        "values within one map."
    )
    caption = f"FROC: sensitivity at IoU {found.froc_iou_threshold:g}"
    below = ["false positives / image", *rates]
    return [ReportTable("Boxes as detections", header, first, [note]), ReportTable(caption, below, second)]
