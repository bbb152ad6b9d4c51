"""ROC, FROC and reliability curves of a cross-validation: thin for each run, thick for all test images together."""

import math
from collections.abc import Sequence

from cxrfast.evaluation.cross_validation.fold_evaluation import FoldEvaluation, by_seed
from cxrfast.evaluation.cross_validation.record import CrossValidationRecord, PooledScores, SpreadRecord
from cxrfast.predictions.table import Predictions, concatenate
from cxrfast.report.html.charts import thin
from cxrfast.report.html.curves import (
    Curves,
    Panel,
    draw_reliability,
    froc_chart,
    in_octaves,
    reliability_chart,
    roc_chart,
    roc_points,
)
from cxrfast.report.html.tables import number


def fold_curves(record: CrossValidationRecord, runs: Sequence[FoldEvaluation]) -> list[Curves]:
    """Curves of a cross-validation and of its ``runs``."""
    whole = [group for group in by_seed(runs) if len(group) == record.folds]
    together = [concatenate([run.predictions for run in group]) for group in whole]
    curves = [
        Curves(
            "roc",
            "ROC",
            "Sensitivity against 1 − specificity; thick: the test images of all folds together, for each seed.",
            _roc(record, runs, together),
        )
    ]
    if record.detection:
        text = (
            "Sensitivity to annotated boxes against false positives per image; thick: the mean of the runs at ⅛ to 8, "
            "as boxes of different networks are not ranked together."
        )
        curves.append(Curves("froc", "FROC", text, _froc(record, runs)))
    text = (
        "Observed frequency against predicted probability, over the test images of all folds and seeds together; "
        "larger dots are bins with more images. Dashed: calibrated with each run's own temperatures."
    )
    curves.append(Curves("reliability", "Reliability", text, _reliability(record)))
    return curves


def _roc(record: CrossValidationRecord, runs: Sequence[FoldEvaluation], together: Sequence[Predictions]) -> list[Panel]:
    panels = []
    for k, (name, row) in enumerate(record.classes.items()):
        areas = row.auroc
        lines = [(run.predictions, "run") for run in runs] + [(whole, "first") for whole in together]
        drawn = [(found, kind) for found, kind in lines if _has_both(found, k)]
        if not drawn:
            panels.append(Panel(name, "", None, "no positive image" if not row.n_positive else "no negative image"))
            continue
        chart = roc_chart(name)
        for found, kind in drawn:
            chart.line(thin(roc_points(found, k)), f"curve {kind}")
        panels.append(Panel(name, f"AUROC {_said(areas)}", chart.svg()))
    return panels


def _froc(record: CrossValidationRecord, runs: Sequence[FoldEvaluation]) -> list[Panel]:
    found = record.detection
    panels: list[Panel] = []
    if found is None:
        return panels
    for name, row in found.classes.items():
        if math.isnan(row.froc.mean):
            panels.append(Panel(name, "", None, "no annotated box"))
            continue
        chart = froc_chart(name)
        for run in runs:
            curve = run.record.detection.froc.curves[name] if run.record.detection else ()
            if curve:
                chart.steps(in_octaves(curve), "curve run")
        rates = found.false_positives_per_image
        points = [(math.log2(rate), entry.mean) for rate, entry in zip(rates, row.sensitivity, strict=True)]
        chart.line(points, "curve first")
        chart.dots(points, "dot first", 2, [_said(entry) for entry in row.sensitivity])
        panels.append(Panel(name, f"mean {_said(row.froc)}", chart.svg()))
    return panels


def _reliability(record: CrossValidationRecord) -> list[Panel]:
    panels = []
    for name, row in record.classes.items():
        if not row.reliability:
            panels.append(Panel(name, "", None, _why_no_bins(row)))
            continue
        chart = reliability_chart(name)
        errors = []
        for bins, ece, series, words in (
            (row.reliability, row.ece, "first", ""),
            (row.reliability_calibrated, row.ece_calibrated, "second", " calibrated"),
        ):
            draw_reliability(chart, bins, series)
            errors += [] if math.isnan(ece.pooled) else [f"{ece.pooled:.3f}{words}"]
        panels.append(Panel(name, f"ECE {', '.join(errors)}", chart.svg()))
    return panels


def _why_no_bins(row: PooledScores) -> str:
    if row.ece.n:
        return "a fold is missing"
    return "scores are no probabilities" if row.n_positive + row.n_negative else "no known label"


def _has_both(found: Predictions, k: int) -> bool:
    labels = found.labels[~found.prob[:, k].isnan(), k]
    return bool((labels == 1).any() and (labels == 0).any())


def _said(entry: SpreadRecord) -> str:
    text = number(entry.mean)
    if not math.isnan(entry.sd):
        text += f" ± {entry.sd:.3f}"
    return text if math.isnan(entry.pooled) else f"{text}, pooled {entry.pooled:.3f}"
