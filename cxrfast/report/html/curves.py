"""ROC, FROC, reliability and learning curves of one evaluation, or of two overlaid."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from markupsafe import Markup
from torch import Tensor

from cxrfast.evaluation.record import ReliabilityBin
from cxrfast.predictions.table import Predictions
from cxrfast.report.facts import Evaluated
from cxrfast.report.html.charts import UNIT, Axis, Chart, nice_ticks, thin

SERIES = ("first", "second")  # names in the style sheet
_FEWEST, _MOST = -3.0, 3.0  # log2 of the false positives per image that FROC is drawn over: ⅛ to 8
_RATES = ((-3, "⅛"), (-1, "½"), (1, "2"), (3, "8"))


class Curves(NamedTuple):
    """One kind of curve, with a panel for every class."""

    key: str
    heading: str
    text: str
    panels: "list[Panel]"


class Panel(NamedTuple):
    """The chart of one class, with its title."""

    name: str
    figure: str  # the number that summarises the curve; "" without a curve
    chart: Markup | None
    reason: str = ""  # why there is no chart


def all_curves(runs: Sequence[Evaluated]) -> list[Curves]:
    """All curves of one run, or of two overlaid."""
    return [
        Curves(
            "roc",
            "ROC",
            "Sensitivity against 1 − specificity; the dot is the operating point (½ where validation chose none).",
            roc_panels(runs),
        ),
        Curves("froc", "FROC", "Sensitivity to annotated boxes against false positives per image.", froc_panels(runs)),
        Curves(
            "reliability",
            "Reliability",
            "Observed frequency against predicted probability; larger dots are bins with more images.",
            reliability_panels(runs),
        ),
    ]


def roc_panels(runs: Sequence[Evaluated]) -> list[Panel]:
    """A panel for every class of the first run. The dot is the operating point."""
    panels = []
    for name, row in runs[0].record.classes.items():
        if math.isnan(row.auroc):
            panels.append(Panel(name, "", None, "no negative image" if row.n_positive else "no positive image"))
            continue
        chart = roc_chart(name)
        figures = []
        for run, series in zip(runs, SERIES, strict=False):
            found = run.record.classes.get(name)
            if found is None or math.isnan(found.auroc):
                continue
            k = run.predictions.class_names.index(name)
            chart.line(thin(roc_points(run.predictions, k)), f"curve {series}")
            if not math.isnan(found.operating_point):
                point = rates_at(run.predictions, k, found.operating_point)
                chart.dots([point], f"dot {series}", 3.5, ["operating point"])
            figures.append(f"{found.auroc:.3f}")
        panels.append(Panel(name, f"AUROC {' | '.join(figures)}", chart.svg()))
    return panels


def froc_panels(runs: Sequence[Evaluated]) -> list[Panel]:
    """A panel for every class of the first run: sensitivity against ⅛ to 8 false positives per image."""
    panels = []
    for name in runs[0].record.classes:
        found = [run.record.detection.froc if run.record.detection else None for run in runs]
        if found[0] is None or not found[0].curves.get(name):
            panels.append(Panel(name, "", None, "no annotated box"))
            continue
        chart = froc_chart(name)
        figures = []
        for froc, series in zip(found, SERIES, strict=False):
            if froc is None or not froc.curves.get(name):
                continue
            chart.steps(in_octaves(froc.curves[name]), f"curve {series}")
            sensitivity = froc.sensitivity[name]
            rates = [math.log2(rate) for rate in froc.false_positives_per_image]
            chart.dots(list(zip(rates, sensitivity, strict=True)), f"dot {series}", 2)
            figures.append(f"{sum(sensitivity) / len(sensitivity):.3f}")
        panels.append(Panel(name, f"mean {' | '.join(figures)}", chart.svg()))
    return panels


def reliability_panels(runs: Sequence[Evaluated]) -> list[Panel]:
    """A panel for every class of the first run: observed frequency against predicted probability."""
    panels = []
    for name, row in runs[0].record.classes.items():
        if not row.reliability:
            why = "scores are no probabilities" if row.n_positive + row.n_negative else "no known label"
            panels.append(Panel(name, "", None, why))
            continue
        chart = reliability_chart(name)
        figures = []
        for run, series in zip(runs, SERIES, strict=False):
            found = run.record.classes.get(name)
            if found is None or not found.reliability:
                continue
            draw_reliability(chart, found.reliability, series)
            figures.append(f"{found.ece:.3f}")
        panels.append(Panel(name, f"ECE {' | '.join(figures)}", chart.svg()))
    return panels


def roc_chart(name: str) -> Chart:
    """An empty ROC chart with the chance diagonal."""
    chart = Chart(f"ROC curve of {name}", _titled("1 − specificity"), _titled("sensitivity"))
    chart.line([(0, 0), (1, 1)], "guess")
    return chart


def froc_chart(name: str) -> Chart:
    axis = Axis(_FEWEST, _MOST, _RATES, "false positives / image")
    return Chart(f"FROC curve of {name}", axis, _titled("sensitivity"))


def reliability_chart(name: str) -> Chart:
    """An empty reliability chart with the diagonal of perfect calibration."""
    chart = Chart(f"reliability curve of {name}", _titled("probability"), _titled("frequency"))
    chart.line([(0, 0), (1, 1)], "guess")
    return chart


def draw_reliability(chart: Chart, bins: Sequence[ReliabilityBin], series: str) -> None:
    """Draw non-empty bins as dots on a line. The size of a dot grows with its number of images."""
    points = [(entry.probability, entry.frequency) for entry in bins]
    chart.line(points, f"curve {series}")
    most = max((entry.images for entry in bins), default=0)
    for entry, point in zip(bins, points, strict=True):
        size = 1.5 + 2.5 * math.sqrt(entry.images / most)
        chart.dots([point], f"dot {series}", size, [f"{entry.images} images"])


def roc_points(predictions: Predictions, k: int) -> list[tuple[float, float]]:
    """Points (1 − specificity, sensitivity) of class k, from the highest score down; equal scores together."""
    score, positive = _known(predictions, k)
    values, place = score.unique(return_inverse=True)
    true = torch.bincount(place[positive], minlength=len(values)).flip(0).cumsum(0) / positive.sum()
    false = torch.bincount(place[~positive], minlength=len(values)).flip(0).cumsum(0) / (~positive).sum()
    return [(0.0, 0.0), *zip(false.tolist(), true.tolist(), strict=True)]


def rates_at(predictions: Predictions, k: int, threshold: float) -> tuple[float, float]:
    """(1 − specificity, sensitivity) of class k, called positive where score ≥ ``threshold``."""
    score, positive = _known(predictions, k)
    called = score.double() >= threshold
    return called[~positive].double().mean().item(), called[positive].double().mean().item()


def _known(predictions: Predictions, k: int) -> tuple[Tensor, Tensor]:  # [n], bool [n]
    score, label = predictions.prob[:, k], predictions.labels[:, k]
    known = ~(score.isnan() | label.isnan())
    return score[known], label[known] == 1


def _titled(title: str) -> Axis:
    return Axis(UNIT.low, UNIT.high, UNIT.ticks, title)


def in_octaves(curve: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """A FROC curve cut to the rates ⅛ to 8, with log2 rates."""
    before = [found for false, found in curve if false <= 2**_FEWEST]
    points = [(_FEWEST, before[-1] if before else 0.0)]
    points += [(math.log2(false), found) for false, found in curve if 2**_FEWEST < false <= 2**_MOST]
    return [*points, (_MOST, points[-1][1])]


def learning_charts(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    """(caption, chart) of the training loss and of the validation measures, with a line where a stage begins."""
    if not rows:
        return []
    epochs = list(range(1, len(rows) + 1))
    loss = [(epoch, row.get("train_loss")) for epoch, row in zip(epochs, rows, strict=True)]
    charts = [("Training loss", _learning("training loss by epoch", rows, [("first", _numbers(loss))], None))]
    series = [
        (kind, _numbers((epoch, row.get(name)) for epoch, row in zip(epochs, rows, strict=True)))
        for kind, name in (("first", "val_auroc"), ("second", "val_iou_accuracy"))
    ]
    if any(points for _, points in series):
        charts.append(("Validation", _learning("validation AUROC and IoU accuracy by epoch", rows, series, (0.0, 1.0))))
    return charts


def _numbers(points: Iterable[tuple[int, Any]]) -> list[tuple[float, float]]:
    return [(x, float(y)) for x, y in points if isinstance(y, int | float) and math.isfinite(y)]


def _learning(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    series: Sequence[tuple[str, list[tuple[float, float]]]],
    limits: tuple[float, float] | None,
) -> Markup:
    values = [y for _, points in series for _, y in points] or [0.0]
    low, high = limits or (min(0.0, min(values)), max(values) * 1.05 or 1.0)
    last = max(len(rows), 2)
    epochs = [(x, label) for x, label in nice_ticks(1, last, 6) if x == int(x)]
    chart = Chart(
        title, Axis(0.5, last + 0.5, epochs, "epoch"), Axis(low, high, nice_ticks(low, high)), 430, 230, left=40, top=18
    )
    stages = [row.get("stage", "") for row in rows]
    parts = [(stage, row.get("divided_after")) for stage, row in zip(stages, rows, strict=True)]
    for place, (stage, divided) in enumerate(parts):
        if place == 0 or parts[place] != parts[place - 1]:
            branch = "" if divided is None else f", rate divided after epoch {divided}"
            chart.column(place + 0.5, "stage", f"stage {stage}{branch}")
    for kind, points in series:
        chart.line(points, f"curve {kind}")
        chart.dots(points, f"dot {kind}", 2 if len(points) <= 40 else 1, [f"epoch {x:g}: {y:.4g}" for x, y in points])
    kept = _kept_epochs(stages, [bool(row.get("best")) for row in rows])
    for kind, points in series:
        chart.dots([point for point in points if point[0] in kept], f"kept {kind}", 5)
    return chart.svg()


def _kept_epochs(stages: Sequence[str], best: Sequence[bool]) -> set[int]:
    """For every stage, the epoch whose weights were kept: the last one that improved on all before."""
    kept = {stage: epoch for epoch, (stage, is_best) in enumerate(zip(stages, best, strict=True), start=1) if is_best}
    return set(kept.values())
