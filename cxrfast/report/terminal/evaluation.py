"""The result of an evaluation as text for a terminal."""

import math

from cxrfast.evaluation.localization import AccuracyTable, LocalizationResult
from cxrfast.evaluation.protocols import Folds
from cxrfast.evaluation.result import Detection, EvaluationResult
from cxrfast.metrics.classification import Mean, mean_without_nan
from cxrfast.metrics.operating import Rates
from cxrfast.report.terminal.layout import between, decimal, ruled, short, wrap


def evaluation_to_text(result: EvaluationResult) -> str:
    """The result as text: facts, classification, a table for each measure and gate, detection, and remarks."""
    warnings = [line for warning in result.warnings for line in wrap(f"WARNING: {warning}")]
    lines = [*warnings, *_facts(result), "", *_labels(result)]
    if result.rates is not None:
        lines += ["", *_operating(result, result.rates)]
    if result.localization is not None:
        for table in result.localization.tables:
            lines += ["", *_accuracy(result, result.localization, table)]
    if result.detection is not None:
        lines += ["", *_detection(result, result.detection)]
    return "\n".join([*lines, *_remarks(result)]) + "\n"


def _facts(result: EvaluationResult) -> list[str]:
    split = f", splits {result.split_hash[:12]}" if result.split_hash else ""
    shared = "unknown" if result.shared_patients is None else str(result.shared_patients)
    facts = [
        f"{result.method} on {result.split}: {result.n_images} images of {result.n_patients} patients, labels "
        f"{result.label_version}{split}; patients shared with training: {shared}",
        f"weights {result.weights}" + (f", learnt from: {result.learnt_from}" if result.learnt_from else ""),
        f"protocol {result.protocol.name} ({result.protocol.paper})",
    ]
    if result.localization is not None:
        facts.append(f"region: {result.localization.rule}{_threshold(result.localization)}")
    return [line for fact in facts for line in wrap(fact)]


def _threshold(found: LocalizationResult) -> str:
    if found.rule.levels:
        return " of the min-max normalised map" if found.protocol.minmax_normalised else ""
    of_map = " of the min-max normalised map" if found.protocol.minmax_normalised else ""
    folds = found.protocol.threshold
    if isinstance(folds, Folds):
        of = "all classes" if folds.pooled else "the class"
        return f"{of_map} of {of}, chosen by {folds.count} folds by {folds.by} without the scored fold"
    low, high = found.thresholds.min().item(), found.thresholds.max().item()
    return f" {low:.3g}{of_map}" if low == high else f"{of_map} of the class, {low:.3g} to {high:.3g}"


def _labels(result: EvaluationResult) -> list[str]:
    header = ["", "positive", "AUROC", "95 %", "AP", "95 %"]
    error = result.calibration
    columns = [] if error is None else [c for c in (error.ece, error.ece_calibrated) if c is not None]
    header += ["ECE", "calibrated"][: len(columns)]
    rows = []
    for k, name in enumerate(result.class_names):
        row = [name, str(result.n_positive[k])]
        for value, low, high in (result.auroc, result.average_precision):
            row += [decimal(value[k].item()), between(low[k].item(), high[k].item())]
        rows.append([*row, *(decimal(column[k].item()) for column in columns)])
    means = []
    for mean in (result.mean_auroc, result.mean_average_precision):
        means += [decimal(mean.value), _spread(mean)]
    means += [decimal(mean_without_nan(column, result.class_names).value) for column in columns]
    return ruled([header, *rows, ["mean", "", *means]])


def _operating(result: EvaluationResult, rates: Rates) -> list[str]:
    """What the operating points achieve, with intervals."""
    header = ["operating point", "score ≥", "called", "sensitivity", "specificity", "PPV", "NPV"]
    rows = []
    for k, name in enumerate(result.class_names):
        point = result.own.operating_points[k].item()
        row = [name, short(point), str(rates.called[k])]
        for value, low, high in rates[:4]:
            limits = f"{between(low[k].item(), high[k].item()):>9}"
            row.append("-" if math.isnan(value[k]) else f"{decimal(value[k].item(), 2)} {limits}")
        rows.append(row)
    return ruled([header, *rows], below=0)


def _spread(mean: Mean) -> str:
    return "" if mean.interval is None else between(*mean.interval)


def _accuracy(result: EvaluationResult, found: LocalizationResult, table: AccuracyTable) -> list[str]:
    """Accuracies, with their intervals if there is one T, else with those of the means; then AFP, if counted."""
    t = table.criterion.thresholds
    sign = str(table.criterion)
    means = table.means(result.class_names)
    what = "boxes" if found.protocol.unit == "box" else "with box"
    header = ["", what, *(f"{sign} {value:g}" if i == 0 else f"{value:g}" for i, value in enumerate(t))]
    rows = [
        [name, str(int(found.n_units[k])), *(decimal(row[k].item()) for row in table.accuracy)]
        for k, name in enumerate(result.class_names)
    ]
    last = [["mean", "", *(decimal(mean.value) for mean in means)]]
    if len(t) == 1:
        header.append("95 %")
        for k, row in enumerate(rows):
            row.append(between(table.low[0, k].item(), table.high[0, k].item()))
        last[0].append(_spread(means[0]))
    else:
        ends = ([mean.interval[i] if mean.interval else math.nan for mean in means] for i in (0, 1))
        last += [[name, "", *map(decimal, row)] for name, row in zip(("  95 % from", "  to"), ends, strict=True)]
    if table.oracle is not None:
        best = [decimal(mean_without_nan(row, result.class_names).value) for row in table.oracle]
        last.append(["oracle region", "", *best, *([""] if len(t) == 1 else [])])
    title = [f"regions only where the image's {table.gate}"] if str(table.gate) else []
    lines = [*title, *ruled([header, *rows, *last], below=len(last))]
    if table.afp is not None:
        header[2] = f"AFP {t[0]:g}"
        false = [
            [name, "", *(decimal(row[k].item()) for row in table.afp)] for k, name in enumerate(result.class_names)
        ]
        lines += ["", *ruled([["", "", *header[2:]], *false], below=0)]
    return lines


def _detection(result: EvaluationResult, found: Detection) -> list[str]:
    header = ["boxes as detections", *(f"AP {t:g}" for t in found.thresholds), "FROC", "pointing"]
    columns = [*found.average_precision, found.froc.mean, found.pointing]
    rows = [[name, *(decimal(column[k].item()) for column in columns)] for k, name in enumerate(result.class_names)]
    means = [decimal(mean_without_nan(column, result.class_names).value) for column in columns]
    return ruled([header, *rows, ["mean", *means]])


def _remarks(result: EvaluationResult) -> list[str]:
    """Classes that means leave out, notes, and images that could not be read."""
    lines = []
    left_out: list[tuple[str, Mean, str]] = [("AUROC", result.mean_auroc, "without positives or without negatives")]
    if result.localization is not None:
        left_out.append(("accuracy", result.localization.tables[0].means(result.class_names)[0], "without boxes"))
        if result.localization.fallbacks:
            lines += [
                "",
                *wrap(
                    f"{result.localization.fallbacks} annotations are scored at the method's own "
                    "threshold: no other fold has their class"
                ),
            ]
    for what, mean, why in left_out:
        if mean.left_out:
            lines += ["", *wrap(f"not in the mean of {what} ({why}): {', '.join(mean.left_out)}")]
    for note in result.notes:
        lines += ["", *wrap(note)]
    unreadable = result.predictions.unreadable
    if unreadable:
        lines += ["", f"{len(unreadable)} of the split's images could not be read and are not in these numbers:"]
        lines += [line for why in unreadable.values() for line in wrap(why, indent="  ")]
    return lines
