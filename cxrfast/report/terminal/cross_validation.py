"""The pooled result of a cross-validation as text for a terminal."""

import math

from cxrfast.evaluation.cross_validation.numbers import Column, Spread
from cxrfast.evaluation.cross_validation.pooling import PooledResult, PooledTable
from cxrfast.metrics.classification import mean_without_nan
from cxrfast.report.terminal.layout import between, decimal, ruled, wrap

_COLUMNS = 4  # number of T side by side


def cross_validation_to_text(result: PooledResult) -> str:
    """The result as text: facts, classification, a table for each measure and gate of the protocol, and remarks."""
    warnings = [line for warning in result.record.warnings for line in wrap(f"WARNING: {warning}")]
    lines = [*warnings, *_facts(result), "", *_labels(result)]
    for table in result.tables:
        lines += _accuracy(result, table)
    lines += ["", *_means(result)]
    return "\n".join([*lines, *_remarks(result)]) + "\n"


def _facts(result: PooledResult) -> list[str]:
    known = result.head
    folds = f"{known.folds} folds by {known.by} × {_count(len(known.seeds), 'seed')}"
    others = "all images" if known.of == "all" else f"{known.unannotated:g} of the unannotated images"
    runs = _count(len(result.runs), "run")
    facts = [
        f"{known.method}, {folds}, {others}: {runs}, "
        f"{result.n_images} test images, labels {known.label_version}, splits {known.splits_hash[:12]}; patients "
        f"shared with training: {known.shared_patients} of {known.n_patients}",
        f"protocol {known.protocol}",
    ]
    if known.classes_left_out:
        left_out = ", ".join(f"{name} ({_count(n, 'box', 'boxes')})" for name, n in known.classes_left_out.items())
        facts.append(f"classes left out, with their boxes on test images: {left_out}")
    if known.validation_images and not any(known.validation_images):
        facts.append("no validation images: every run kept its last epoch, and operating points are 0.5")
    if known.missing:
        facts.append(f"missing: {', '.join(known.missing)}")
    return [line for fact in facts for line in wrap(fact)]


def _labels(result: PooledResult) -> list[str]:
    header = ["mean ± sd of the runs", "positive", "AUROC", "pooled", "95 %", "AP", "pooled"]
    names = [*zip(result.class_names, map(str, result.n_positive), strict=True), ("mean", "")]
    areas = (*result.auroc.classes, result.auroc.mean)
    precisions = (*result.average_precision.classes, result.average_precision.mean)
    rows = [
        [*name, *_both(area), between(*area.interval), *_both(precision)]
        for name, area, precision in zip(names, areas, precisions, strict=True)
    ]
    return ruled([header, *rows])


def _accuracy(result: PooledResult, table: PooledTable) -> list[str]:
    title = [f"regions only where the image's {table.head.gate}"] if str(table.head.gate) else []
    what = f"{table.head.measure_name} {table.head.relation}"
    lines = ["", *title, *_by_threshold(result, table.thresholds, table.accuracy, what, oracle=table.oracle)]
    if table.afp is not None:
        lines += ["", *_by_threshold(result, table.thresholds, table.afp, f"AFP at {what}", mean=False)]
    return lines


def _by_threshold(
    result: PooledResult,
    thresholds: tuple[float, ...],
    columns: tuple[Column, ...],
    what: str,
    *,
    mean: bool = True,
    oracle: tuple[tuple[float, ...], ...] | None = None,
) -> list[str]:
    """Mean ± sd per class; pooled numbers in an extra column if there is one T, else in an extra row."""
    lines: list[str] = []
    perfect = [decimal(mean_without_nan(row, result.class_names).value) for row in oracle or ()]
    for start in range(0, len(thresholds), _COLUMNS):
        t, some = thresholds[start : start + _COLUMNS], columns[start : start + _COLUMNS]
        header = ["", "annotated", *(f"{what} {value:g}" if i == 0 else f"{value:g}" for i, value in enumerate(t))]
        rows = [
            [name, str(result.n_annotated[k]), *(_spread(column.classes[k]) for column in some)]
            for k, name in enumerate(result.class_names)
        ]
        last = [["mean", "", *(_spread(column.mean) for column in some)]] if mean else []
        if len(thresholds) == 1:
            header.append("pooled")
            for k, row in enumerate(rows):
                row.append(decimal(some[0].classes[k].pooled))
            for row in last:
                row.append(decimal(some[0].mean.pooled))
        elif mean:
            last.append(["pooled", "", *(decimal(column.mean.pooled) for column in some)])
        if perfect:  # over all test images, like pooled numbers
            best = perfect[start : start + _COLUMNS]
            last.append(["oracle region", "", *([""] if len(thresholds) == 1 else []), *best])
        lines += [*([""] if start else []), *ruled([header, *rows, *last], below=len(last))]
    return lines


def _means(result: PooledResult) -> list[str]:
    """Numbers of which only the mean over classes is shown, to save space."""
    columns: list[tuple[str, Column]] = []
    found = result.detection
    if found is not None:
        columns += [
            (f"mAP of boxes, IoU {t:g}", column)
            for t, column in zip(found.thresholds, found.average_precision, strict=True)
        ]
        rates = f"{_rate(found.rates[0])} to {_rate(found.rates[-1])} false positives per image"
        columns += [(f"FROC, IoU {found.froc_threshold:g}, {rates}", found.froc), ("pointing game", found.pointing)]
    columns += [("ECE", result.ece), ("ECE, calibrated", result.ece_calibrated)]
    rows = [[what, *_both(column.mean)] for what, column in columns if column.mean.exists]
    return ruled([["mean of the classes", "mean ± sd", "pooled"], *rows], below=0) if rows else []


def _rate(value: float) -> str:
    return f"1/{1 / value:g}" if value < 1 else f"{value:g}"


def _remarks(result: PooledResult) -> list[str]:
    lines: list[str] = []
    means = [("AUROC", result.auroc)]
    if result.tables:
        means.append(("accuracy", result.tables[0].accuracy[0]))
    if result.ece_calibrated.mean.exists:
        means.append(("calibrated ECE", result.ece_calibrated))
    for what, column in means:
        record = column.mean_record
        for key, words in (("left_out", "no run has it"), ("incomplete", "some runs have it, and their means with it")):
            if names := getattr(record, key):
                lines += ["", *wrap(f"not in every mean of {what} ({words}): {', '.join(names)}")]
    if result.unreadable:
        lines += ["", f"{len(result.unreadable)} images could not be read and are not in these numbers:"]
        lines += [line for why in result.unreadable.values() for line in wrap(why, indent="  ")]
    return lines


def _count(n: int, what: str, plural: str | None = None) -> str:
    return f"{n} {what if n == 1 else plural or what + 's'}"


def _both(number: Spread) -> list[str]:
    return [_spread(number), decimal(number.pooled)]


def _spread(number: Spread) -> str:
    if math.isnan(number.sd):
        return decimal(number.mean)
    return f"{number.mean:.3f} ± {number.sd:.3f}"
