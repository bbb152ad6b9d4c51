"""An evaluation's numbers as tables of words: what the template prints, without any layout."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from cxrfast.published.numbers import PublishedRow
from cxrfast.report import published
from cxrfast.report.facts import Evaluated, RunFacts
from cxrfast.report.html.charts import interval_bar

NONE = "–"


@dataclass(frozen=True)
class Cell:
    """A number, its interval or remark in small, and how it is set."""

    text: str
    small: str = ""
    kind: str = ""  # class names of the style sheet
    bar: Markup | None = None


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    name: str
    cells: Sequence[Cell]
    kind: str = ""
    link: str = ""  # of the name


@dataclass(frozen=True)
class Table:
    """With what has to be known to read it."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str] = field(default_factory=tuple)


def number(value: float | None, digits: int = 3) -> str:
    return NONE if value is None or math.isnan(value) else f"{value:.{digits}f}"


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"{low:.{digits}f}–{high:.{digits}f}"


def plain(*values: str) -> list[Cell]:
    return [Cell(value) for value in values]


# Which diseases: image scores


def score_table(evaluated: Evaluated) -> Table:
    """AUROC and AP with intervals, calibration and operating point of every class."""
    numbers = evaluated.numbers
    classes: Mapping[str, Any] = numbers["classes"]
    calibrated = any(row.get("ece_calibrated") is not None for row in classes.values())
    header = ["class", "AUROC", "0 … 1", "AP", "positive", "negative", "ECE"]
    header += ["ECE, calibrated", "temperature"] if calibrated else []
    rows = []
    for name, row in classes.items():
        cells = [_with_interval(row, "auroc"), _bar(row["auroc"], row.get("auroc_interval"))]
        cells.append(_with_interval(row, "average_precision"))
        cells += plain(f"{row['n_positive']:,}", f"{row['n_negative']:,}")
        cells.append(Cell(number(row.get("ece"))))
        if calibrated:
            cells += plain(number(row.get("ece_calibrated")), number(row.get("temperature"), 2))
        rows.append(Row(name, cells))
    auroc, precision = (numbers["mean"][name] for name in ("auroc", "average_precision"))
    errors = [row["ece"] for row in classes.values() if row.get("ece") is not None]
    last = [_mean_cell(auroc), _bar(auroc["value"], auroc.get("interval")), _mean_cell(precision)]
    last += plain("", "", number(_mean(errors)), "", "")
    rows.append(Row("mean", last[: len(header) - 1], "mean"))
    return Table("Is the disease on the image?", header, rows, _missing_scores(numbers))


def published_auroc_table(evaluated: Evaluated) -> Table | None:
    """AUROC beside the papers'."""
    numbers = evaluated.numbers
    lines = published.published_auroc(numbers)
    if not lines:
        return None
    names = list(numbers["classes"])
    own = [_with_interval(numbers["classes"][name], "auroc") for name in names]
    own.append(_mean_cell(numbers["mean"]["auroc"]))
    why = published.other_images(numbers)
    first = [f"The papers' numbers cannot be compared with this model's: {why}."] if why else []
    return beside_papers("this model", own, lines, numbers, first)


def beside_papers(
    name: str, own: Sequence[Cell], lines: Sequence[PublishedRow], numbers: Mapping[str, Any], notes: Sequence[str]
) -> Table:
    """A line for each class and the mean, a column for each of the papers': fourteen classes fit on a screen."""
    names = list(numbers["classes"])
    theirs = [published_row(line, names) for line in lines]
    rows = [
        Row(
            line,
            [replace(own[n], kind="own"), *(replace(row.cells[n], kind="published") for row in theirs)],
            "mean" if n == len(names) else "",
        )
        for n, line in enumerate([*names, "mean"])
    ]
    missing = [f"{line}." for line in published.unavailable_auroc(numbers)]
    header = ["class", name, *(row.name for row in theirs)]
    return Table("AUROC beside the papers", header, rows, [*notes, *published_notes(lines), *missing])


def published_row(line: PublishedRow, names: Sequence[str]) -> Row:
    """The mean, published or not, only where it is over the same classes."""
    values = line.values or {}
    mean = None
    if set(values) == set(names):
        mean = line.mean if line.mean is not None else _mean(list(values.values()))
    cells = [Cell(number(values.get(name))) for name in names]
    name = line.name + ("" if line.comparable else "\N{NO-BREAK SPACE}*")
    return Row(name, [*cells, Cell(number(mean))], "published")


def published_notes(lines: Sequence[PublishedRow]) -> list[str]:
    starred = any(not line.comparable for line in lines)
    first = ["* Not comparable with any run, for the reason that follows."] if starred else []
    return [*first, *published.remarks(lines)]


def _with_interval(row: Mapping[str, Any], name: str) -> Cell:
    low, high = row.get(f"{name}_interval") or (None, None)
    return Cell(number(row[name]), interval(low, high))


def _mean_cell(mean: Mapping[str, Any]) -> Cell:
    """A mean over classes; older results have no interval of it."""
    return Cell(number(mean["value"]), interval(*mean.get("interval") or (None, None)))


def _bar(auroc: float | None, ends: Sequence[float | None] | None) -> Cell:
    if auroc is None:
        return Cell("")
    low, high = (math.nan if end is None else end for end in ends or (None, None))
    return Cell("", bar=interval_bar(auroc, low, high, 0.5))


def _missing_scores(numbers: Mapping[str, Any]) -> list[str]:
    notes = []
    for what, key in (("positive", "n_positive"), ("negative", "n_negative")):
        without = [name for name, row in numbers["classes"].items() if not row[key]]
        if without:
            notes.append(f"{NONE} No {what} image, so no AUROC, and not in the mean: {', '.join(without)}.")
    wide = [
        name
        for name, row in numbers["classes"].items()
        if row["auroc"] is not None and (row.get("auroc_interval") or [None])[0] is None
    ]
    if wide:
        notes.append(f"Too few patients for an interval: {', '.join(wide)}.")
    return notes


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


# Where: localisation


def localization_tables(evaluated: Evaluated) -> list[Table]:
    """For each measure and gate of the protocol one table, laid out like the papers': lines by T, columns by class."""
    found = evaluated.numbers["localization"]
    if found is None:
        return []
    return [_accuracy_table(evaluated.numbers, found, table) for table in found["tables"]]


def _accuracy_table(numbers: Mapping[str, Any], found: Mapping[str, Any], table: Mapping[str, Any]) -> Table:
    classes: Mapping[str, Any] = numbers["classes"]
    boxed = [name for name, row in classes.items() if row["n_annotated"]]
    measure = "IoU" if table["measure"] == "iou" else "IoR"
    unit = "boxes" if found["unit"] == "box" else "annotations"
    rows = [Row(f"{unit} scored", plain(*(f"{classes[name]['n_annotated']:,}" for name in boxed), ""), "count")]
    lines: list[PublishedRow] = []
    for entry in table["rows"]:
        sign = f"{measure} {table['relation']} {entry['T']:g}"
        values = [entry["classes"][name] for name in boxed]
        cells = [Cell(number(v["accuracy"]), interval(v["low"], v["high"])) for v in values]
        rows.append(Row(f"{sign}: this model", [*cells, _mean_cell(entry["mean"])], "own"))
        if table["gate"] is None and all(v.get("ceiling") is not None for v in values):
            rows.append(_values_row("perfect region on this grid", [v["ceiling"] for v in values]))
        beside = published.published_accuracies(numbers, "accuracy", table["measure"], entry["T"])
        rows += [published_row(line, boxed) for line in beside]
        lines += beside
        if all(v.get("afp") is not None for v in values):
            rows.append(_values_row("AFP of this model", [v["afp"] for v in values]))
            beside = published.published_accuracies(numbers, "afp", table["measure"], entry["T"])
            rows += [replace(row, name=f"AFP, {row.name}") for row in (published_row(line, boxed) for line in beside)]
    why = published.other_places(numbers)
    notes = [f"The papers' lines cannot be compared with this model's: {why}."] if lines and why else []
    notes += published_notes(lines)
    without = [name for name, row in classes.items() if not row["n_annotated"]]
    if without:
        notes.append(f"{NONE} No annotated box, so nothing to localise, and not in the mean: {', '.join(without)}.")
    gate = f", only where the image's {table['gate']}" if table["gate"] else ""
    return Table(f"Share of {unit} found, {measure}{gate}", ["", *boxed, "mean"], rows, notes)


def _values_row(name: str, values: Sequence[float]) -> Row:
    return Row(name, plain(*map(number, values), number(_mean(values))), "ceiling")


def published_remark(evaluated: Evaluated) -> str:
    """What there is of papers' localisation for this protocol, where no table has a line."""
    numbers = evaluated.numbers
    if numbers["localization"] is None:
        return ""
    missing = published.unavailable_places(numbers)
    if missing:
        return " ".join(f"{line}." for line in missing)
    return "" if published.has_lines(numbers) else f"No paper publishes numbers by protocol {numbers['protocol']}."


def detection_table(evaluated: Evaluated) -> Table | None:
    """Boxes as detections: AP at each T, FROC, pointing game."""
    found = evaluated.numbers["detection"]
    if found is None:
        return None
    header = ["class", *(f"AP at IoU {t:g}" for t in found["iou_thresholds"]), "FROC, mean", "pointing game"]
    names = [name for name, row in evaluated.numbers["classes"].items() if row["n_annotated"]]
    columns = [
        [
            *found["average_precision"][name],
            _mean([v for v in found["froc"]["sensitivity"][name] if v is not None]),
            found["pointing_game"][name],
        ]
        for name in names
    ]
    rows = [Row(name, plain(*map(number, values))) for name, values in zip(names, columns, strict=True)]
    means = [_mean([value for value in column if value is not None]) for column in zip(*columns, strict=True)]
    rows.append(Row("mean", plain(*map(number, means)), "mean"))
    note = (
        f"Boxes of the method's own regions, with their highest map value as score, on {found['n_images']:,} images "
        f"with any annotation. FROC: sensitivity at IoU {found['froc']['iou_threshold']:g}, mean over ⅛ to 8 false "
        "positives per image."
    )
    return Table("Boxes as detections", header, rows, [note])


# What has been evaluated


def headline(evaluated: Evaluated) -> list[tuple[str, str, str]]:
    """(number, what it is, remark) of the few that stand on top."""
    numbers = evaluated.numbers
    tiles = [
        _tile(numbers["mean"][name], words, _over(numbers, name))
        for name, words in (("auroc", "mean AUROC"), ("average_precision", "mean AP"))
    ]
    if numbers["localization"] is not None:
        for table in numbers["localization"]["tables"][:2]:
            entry = next((row for row in table["rows"] if row["T"] == 0.5), table["rows"][0])
            measure = "IoU" if table["measure"] == "iou" else "IoR"
            words = f"found at {measure} {table['relation']} {entry['T']:g}"
            scored = sum(row["n_annotated"] for row in numbers["classes"].values())
            tiles.append(_tile(entry["mean"], words, f"mean of classes, {scored:,} {_unit(numbers)}"))
    return tiles


def _tile(mean: Mapping[str, Any], words: str, remark: str) -> tuple[str, str, str]:
    cell = _mean_cell(mean)
    return cell.text, words, f"{cell.small} (95 %); {remark}" if cell.small else remark


def _unit(numbers: Mapping[str, Any]) -> str:
    return "boxes" if numbers["localization"]["unit"] == "box" else "annotations"


def _over(numbers: Mapping[str, Any], name: str) -> str:
    left_out = len(numbers["mean"][name]["left_out"])
    total = len(numbers["classes"])
    return f"{total - left_out} of {total} classes" if left_out else f"{total} class{'es' if total > 1 else ''}"


def evaluation_facts(evaluated: Evaluated) -> list[tuple[str, str]]:
    """What a result says about itself."""
    numbers = evaluated.numbers
    shared = numbers["shared_patients"]
    facts = [
        ("evaluated", f"{numbers['n_images']:,} images of {numbers['n_patients']:,} patients ({numbers['split']})"),
        ("patients shared with training", "unknown" if shared is None else f"{shared:,}"),
        ("labels", f"version {numbers['label_version']}"),
        ("images (hash)", numbers["images_hash"]),
        ("splits (hash)", (numbers["split_hash"] or "none")[:12]),
        ("method", numbers["method"]),
        ("weights", numbers["weights"]),
    ]
    found = numbers["localization"]
    facts.insert(0, ("protocol", numbers["protocol"] + (f" ({found['paper']})" if found else "")))
    if found is not None:
        stretched = ", of the map stretched to 0…1" if found["stretched"] else ""
        facts += [
            ("region", found["region_rule"]),
            ("map threshold", f"{_threshold_words(found['threshold'])}{stretched}"),
            ("grid", "none" if found["grid"] is None else f"{found['grid'][0]} × {found['grid'][1]} patches"),
            ("training, by the protocol", found["published_on"]),
        ]
        if found["fallbacks"]:
            facts.append(
                ("at the method's threshold", f"{found['fallbacks']} annotations: no other fold has their class")
            )
    return facts


def _threshold_words(threshold: str) -> str:
    if "folds" in threshold:
        folds, _, pooled = threshold.partition(", ")
        return f"{pooled or 'per class'}, chosen by {folds} without the scored fold"
    return {"None": "fixed levels", "the method's": "the method's own"}.get(threshold, threshold)


def split_table(evaluated: Evaluated) -> Table | None:
    """Images, patients and annotations of the parts of the run's split."""
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
        rows.append(Row({"train": "training", "val": "validation"}.get(part, part), plain(*cells)))
    facts = evaluated.run.split
    note = f"Split by {facts.get('strategy', '?')}, seed {facts.get('seed', '?')}."
    return Table("The run's data", header, rows, [note, *map(str, facts.get("notes") or [])])


def _boxed(records: Sequence[Any]) -> int:
    return sum(any(record.boxes.values()) for record in records)


def configuration(run: RunFacts) -> list[tuple[str, str]]:
    """Every setting of the run, its method's options among them, then the machine."""
    flat: list[tuple[str, str]] = []
    for name, value in run.config.items():
        if isinstance(value, dict):
            flat += [(f"{name}.{key}", _words(entry)) for key, entry in value.items()]
        else:
            flat.append((name, _words(value)))
    return flat


def environment(run: RunFacts) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), _words(value)) for name, value in run.environment.items()]


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "default" if value is None else str(value)
