"""The pooled result of a cross-validation as a page: mean ± sd of its runs beside the papers' numbers."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cxrfast._files import write_text
from cxrfast.errors import CxrfastError
from cxrfast.evaluation.run_numbers import RunNumbers
from cxrfast.published.numbers import PublishedRow
from cxrfast.report import published
from cxrfast.report.facts import read_json
from cxrfast.report.html.fold_curves import fold_curves
from cxrfast.report.html.page import render, report_path
from cxrfast.report.html.tables import Cell, Row, Table, beside_papers, number, plain, published_notes, published_row

POOLED = "cross-validation.json"


def is_folds(folder: Path) -> bool:
    """Whether the pooled result of a cross-validation lies there."""
    return (folder / POOLED).is_file()


def write_folds(folder: Path, path: Path | None = None) -> Path:
    """Write the page of the cross-validation in ``folder``; returns where."""
    path = report_path(folder, "test") if path is None else path
    write_text(path, render_folds(read_json(folder / POOLED), folder.resolve().name, folder, path.parent))
    return path


def render_folds(numbers: Mapping[str, Any], title: str, folder: Path | None = None, beside: Path | None = None) -> str:
    """``folder`` has the results of the runs, for the curves, and their pages; links to these are from ``beside``."""
    try:
        runs, no_curves = _read_runs(numbers, folder)
        return render(
            "folds.html",
            numbers=numbers,
            title=title,
            headline=_headline(numbers),
            facts_rows=_facts(numbers),
            run_table=_runs(numbers, folder, beside),
            score_tables=[_scores(numbers), *_published_auroc(numbers)],
            localization_tables=[*_localization(numbers), *_detection(numbers)],
            curves=fold_curves(numbers, runs) if runs else [],
            no_curves=no_curves,
            script=None,
        )
    except KeyError as error:
        raise CxrfastError(f"{title}: {POOLED} lacks {error}; evaluate the cross-validation again") from error


def _read_runs(numbers: Mapping[str, Any], folder: Path | None) -> tuple[list[RunNumbers], str]:
    """The runs that the numbers are of; none, and why, where their files are gone or are those of other evaluations."""
    if folder is None:
        return [], ""
    runs = []
    for entry in numbers["runs"]:
        place = folder / entry["run"]
        files = place / "evaluation-test.json", place / "predictions.csv"
        try:
            run = RunNumbers.load(entry["run"], entry["fold"], entry["seed"], *files)
        except CxrfastError as error:
            return [], f"No curves are shown: {error}."
        facts = [(run.report[name], entry[name]) for name in ("n_images", "split_hash")]
        facts += [
            (run.report["protocol"], numbers["protocol"]),
            (list(run.report["classes"]), list(numbers["classes"])),
        ]
        if any(own != pooled for own, pooled in facts):
            return (
                [],
                f"No curves are shown: {place} was evaluated otherwise since; evaluate the cross-validation again.",
            )
        runs.append(run)
    return runs, ""


def _spread(entry: Mapping[str, Any], digits: int = 3) -> Cell:
    """Mean ± sd of the runs, and in small the number of all test images together."""
    text = number(entry["mean"], digits)
    if entry["sd"] is not None:
        text += f" ±\N{NO-BREAK SPACE}{entry['sd']:.{digits}f}"  # a narrow column breaks before the sign
    pooled = "" if entry["pooled"] is None else f"pooled {entry['pooled']:.{digits}f}"
    if entry.get("interval"):
        pooled += " [{:.{d}f}, {:.{d}f}]".format(*entry["interval"], d=digits)
    return Cell(text, pooled)


def _headline(numbers: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    runs = len(numbers["runs"])
    tiles = [
        (number(entry["mean"]), what, f"± {number(entry['sd'])} over {runs} runs")
        for what, entry in (
            ("mean AUROC", numbers["mean"]["auroc"]),
            ("mean AP", numbers["mean"]["average_precision"]),
        )
    ]
    for table in (numbers["localization"] or {"tables": []})["tables"][:2]:
        row = next((row for row in table["rows"] if row["T"] == 0.5), table["rows"][0])
        what = f"found at {_measure(table)} {table['relation']} {row['T']:g}"
        tiles.append((number(row["mean"]["mean"]), what, f"± {number(row['mean']['sd'])} over {runs} runs"))
    return tiles


def _measure(table: Mapping[str, Any]) -> str:
    return "IoU" if table["measure"] == "iou" else "IoR"


def _facts(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    seeds = numbers["seeds"]
    facts = [
        ("protocol", numbers["protocol"]),
        ("folds", f"{numbers['folds']} by {numbers['by']}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"),
        ("tested", "all images")
        if numbers.get("of") == "all"
        else ("images without boxes in training", f"{100 * numbers['unannotated']:g} %"),
        ("labels", f"version {numbers['label_version']}"),
        ("splits (hash)", str(numbers["splits_hash"])[:12]),
        ("patients shared with training", f"{numbers['shared_patients']:,}"),
    ]
    found = numbers["localization"]
    if found is not None:
        facts += [("region", found["region_rule"]), ("training, by the protocol", found["published_on"])]
    validated = numbers.get("validation_images")
    if validated is not None:
        sizes = " to ".join(f"{n:,}" for n in sorted({min(validated), max(validated)}))
        facts.append(("validation images", sizes if any(validated) else "none: the last epoch is kept"))
    left_out = numbers.get("classes_left_out")  # results of before do not say
    if left_out:
        names = ", ".join(f"{name} ({n:,})" for name, n in left_out.items())
        facts.append(("classes left out (boxes on test images)", names))
    if numbers["missing"]:
        facts.append(("not finished yet", ", ".join(numbers["missing"])))
    return facts


def _runs(numbers: Mapping[str, Any], folder: Path | None, beside: Path | None) -> Table:
    rows = []
    for run, area in zip(numbers["runs"], numbers["mean"]["auroc"]["values"], strict=True):
        shared = run["shared_patients"]
        cells = plain(
            f"{run['n_images']:,}",
            f"{run['n_patients']:,}",
            "unknown" if shared is None else f"{shared:,}",
            number(area),
        )
        page = None if folder is None else report_path(folder / run["run"], "test")
        link = "" if page is None or not page.is_file() else quote(os.path.relpath(page, beside or folder))
        rows.append(Row(run["run"], cells, link=link))
    without = [row.name for row in rows if not row.link]
    notes = [f"Without a page (cxrfast report makes it): {', '.join(without)}."] if without else []
    return Table("Runs", ["run", "images", "patients", "shared with training", "mean AUROC"], rows, notes)


def _scores(numbers: Mapping[str, Any]) -> Table:
    columns = {"auroc": "AUROC", "average_precision": "AP", "ece": "ECE", "ece_calibrated": "ECE, calibrated"}
    names = [name for name in columns if _exists(numbers["mean"].get(name))]
    rows = [
        Row(
            name,
            [
                *plain(f"{row['n_positive']:,}", f"{row['n_negative']:,}"),
                *(_spread(row[key]) for key in names),
            ],
        )
        for name, row in numbers["classes"].items()
    ]
    rows.append(Row("mean", [*plain("", ""), *(_spread(numbers["mean"][key]) for key in names)], "mean"))
    notes = [
        f"In the mean of some runs only, as the others have no positive or no negative image: {', '.join(incomplete)}."
        for incomplete in [numbers["mean"]["auroc"]["incomplete"]]
        if incomplete
    ]
    if "ece" in names:
        notes.append(
            "ECE: expected calibration error; calibrated by each run's own temperatures, of its validation images."
        )
    for key, words in (("incomplete", "some runs have"), ("left_out", "no run has")):
        if "ece_calibrated" in names and numbers["mean"]["ece_calibrated"][key]:
            without = ", ".join(numbers["mean"]["ece_calibrated"][key])
            notes.append(f"Too few validation images for a temperature, so that {words} one: {without}.")
    notes += [
        f"– No positive or no negative image, and not in the mean: {', '.join(left_out)}."
        for left_out in [numbers["mean"]["auroc"]["left_out"]]
        if left_out
    ]
    return Table(
        "Is the disease on the image?",
        ["class", "positive", "negative", *(columns[name] for name in names)],
        rows,
        notes,
    )


def _exists(entry: Mapping[str, Any] | None) -> bool:
    return entry is not None and (entry["n"] > 0 or entry["pooled"] is not None)


def _published_auroc(numbers: Mapping[str, Any]) -> list[Table]:
    lines = published.published_auroc(numbers)
    if not lines:
        return []
    own = [_spread(row["auroc"]) for row in [*numbers["classes"].values(), numbers["mean"]]]
    first = "The papers' numbers cannot be compared with these: they are of one training, and other test images."
    return [beside_papers("this cross-validation", own, lines, numbers, [first])]


def _localization(numbers: Mapping[str, Any]) -> list[Table]:
    found = numbers["localization"]
    return [] if found is None else [_accuracies(numbers, found, table) for table in found["tables"]]


def _accuracies(numbers: Mapping[str, Any], found: Mapping[str, Any], table: Mapping[str, Any]) -> Table:
    boxed = [name for name, row in numbers["classes"].items() if row["n_annotated"]]
    unit = "boxes" if found["unit"] == "box" else "annotations"
    rows = [
        Row(f"{unit} scored", plain(*(f"{numbers['classes'][name]['n_annotated']:,}" for name in boxed), ""), "count")
    ]
    lines: list[PublishedRow] = []
    for entry in table["rows"]:
        cells = [_spread(entry["classes"][name]) for name in boxed]
        title = f"{_measure(table)} {table['relation']} {entry['T']:g}: this cross-validation"
        rows.append(Row(title, [*cells, _spread(entry["mean"])], "own"))
        best = [entry["classes"][name].get("ceiling") for name in boxed]  # results of before have none
        if table["gate"] is None and best and None not in best:
            cells = plain(*map(number, [*best, sum(best) / len(best)]))
            rows.append(Row("perfect region on this grid", cells, "ceiling"))
        beside = published.published_accuracies(numbers, "accuracy", table["measure"], entry["T"])
        rows += [published_row(line, boxed) for line in beside]
        lines += beside
    gate = f", only where the image's {table['gate']}" if table["gate"] else ""
    return Table(f"Share of {unit} found, {_measure(table)}{gate}", ["", *boxed, "mean"], rows, _notes(numbers, lines))


def _notes(numbers: Mapping[str, Any], lines: Sequence[PublishedRow]) -> list[str]:
    why = published.other_places(numbers)
    notes = [f"The papers' lines cannot be compared with these: {why}."] if lines and why else []
    without = [name for name, row in numbers["classes"].items() if not row["n_annotated"]]
    if without:
        notes.append(f"– No annotated box, so nothing to localise, and not in the mean: {', '.join(without)}.")
    return [*notes, *published_notes(lines)]


def _detection(numbers: Mapping[str, Any]) -> list[Table]:
    """Boxes as detections: AP at each T, FROC and pointing game; then the FROC rate by rate."""
    found = numbers.get("detection")
    if not found:
        return []
    rows = [(name, found["classes"][name], "") for name, row in numbers["classes"].items() if row["n_annotated"]]
    rows.append(("mean", found["mean"], "mean"))
    header = ["class", *(f"AP at IoU {t:g}" for t in found["iou_thresholds"]), "FROC, mean", "pointing game"]
    first = [
        Row(
            name,
            [*map(_spread, entry["average_precision"]), _spread(entry["froc"]), _spread(entry["pointing_game"])],
            kind,
        )
        for name, entry, kind in rows
    ]
    rates = [f"{rate:g}" if rate >= 1 else f"1/{1 / rate:g}" for rate in found["false_positives_per_image"]]
    second = [Row(name, [*map(_spread, entry["sensitivity"])], kind) for name, entry, kind in rows]
    note = (
        "Boxes of the method's own regions, with their highest map value as score, on images with any annotation. "
        "Nothing puts the maps of different networks on one scale, so only the pointing game, which compares within "
        "one map, is pooled."
    )
    caption = f"FROC: sensitivity at IoU {found['froc_iou_threshold']:g}"
    below = ["false positives / image", *rates]
    return [Table("Boxes as detections", header, first, [note]), Table(caption, below, second)]
