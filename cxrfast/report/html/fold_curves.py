"""ROC, FROC and reliability curves of a cross-validation: every run thin, all test images together thick."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cxrfast.evaluation.run_numbers import RunNumbers, by_seed
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


def fold_curves(numbers: Mapping[str, Any], runs: Sequence[RunNumbers]) -> list[Curves]:
    """Of the pooled result ``numbers`` and the ``runs`` that it is of; an older one has no more than ROC."""
    whole = [group for group in by_seed(runs) if len(group) == numbers["folds"]]
    together = [concatenate([run.predictions for run in group]) for group in whole]
    curves = [
        Curves(
            "roc",
            "ROC",
            "Sensitivity against 1 − specificity; thick: the test images of all folds together, for each seed.",
            _roc(numbers, runs, together),
        )
    ]
    if numbers.get("detection"):
        text = (
            "Sensitivity to annotated boxes against false positives per image; thick: the mean of the runs at ⅛ to 8, "
            "as boxes of different networks are not ranked together."
        )
        curves.append(Curves("froc", "FROC", text, _froc(numbers, runs)))
    if all("reliability" in row for row in numbers["classes"].values()):
        text = (
            "How often a class is there against how probable the models called it, over the test images of all folds "
            "and seeds together; larger dots hold more images. Dashed: calibrated, by each run's own temperatures."
        )
        curves.append(Curves("reliability", "Reliability", text, _reliability(numbers)))
    return curves


def _roc(numbers: Mapping[str, Any], runs: Sequence[RunNumbers], together: Sequence[Predictions]) -> list[Panel]:
    panels = []
    for k, (name, row) in enumerate(numbers["classes"].items()):
        areas = row["auroc"]
        lines = [(run.predictions, "run") for run in runs] + [(whole, "first") for whole in together]
        drawn = [(found, kind) for found, kind in lines if _has_both(found, k)]
        if not drawn:
            panels.append(Panel(name, "", None, "no positive image" if not row["n_positive"] else "no negative image"))
            continue
        chart = roc_chart(name)
        for found, kind in drawn:
            chart.line(thin(roc_points(found, k)), f"curve {kind}")
        panels.append(Panel(name, f"AUROC {_said(areas)}", chart.svg()))
    return panels


def _froc(numbers: Mapping[str, Any], runs: Sequence[RunNumbers]) -> list[Panel]:
    rates = numbers["detection"]["false_positives_per_image"]
    panels = []
    for name, row in numbers["detection"]["classes"].items():
        if row["froc"]["mean"] is None:
            panels.append(Panel(name, "", None, "no annotated box"))
            continue
        chart = froc_chart(name)
        for run in runs:
            curve = (run.detection or {}).get("froc", {}).get("curves", {}).get(name)
            if curve:
                chart.steps(in_octaves(curve), "curve run")
        points = [(math.log2(rate), entry["mean"]) for rate, entry in zip(rates, row["sensitivity"], strict=True)]
        chart.line(points, "curve first")
        chart.dots(points, "dot first", 2, [_said(entry) for entry in row["sensitivity"]])
        panels.append(Panel(name, f"mean {_said(row['froc'])}", chart.svg()))
    return panels


def _reliability(numbers: Mapping[str, Any]) -> list[Panel]:
    panels = []
    for name, row in numbers["classes"].items():
        if not row["reliability"]:
            panels.append(Panel(name, "", None, _why_no_bins(row)))
            continue
        chart = reliability_chart(name)
        errors = []
        for key, series, words in (("", "first", ""), ("_calibrated", "second", " calibrated")):
            draw_reliability(chart, row[f"reliability{key}"], series)
            error = row[f"ece{key}"]["pooled"]
            errors += [] if error is None else [f"{error:.3f}{words}"]
        panels.append(Panel(name, f"ECE {', '.join(errors)}", chart.svg()))
    return panels


def _why_no_bins(row: Mapping[str, Any]) -> str:
    if row["ece"]["n"]:
        return "a fold is missing"
    return "scores are no probabilities" if row["n_positive"] + row["n_negative"] else "no known label"


def _has_both(found: Predictions, k: int) -> bool:
    labels = found.labels[~found.prob[:, k].isnan(), k]
    return bool((labels == 1).any() and (labels == 0).any())


def _said(entry: Mapping[str, Any]) -> str:
    text = number(entry["mean"])
    if entry["sd"] is not None:
        text += f" ± {entry['sd']:.3f}"
    return text if entry["pooled"] is None else f"{text}, pooled {entry['pooled']:.3f}"
