"""The figure of the study: localisation accuracy and AUROC against the share of annotated images."""

from pathlib import Path
from typing import Any

from cxrfast._files import atomic_path
from cxrfast.experiments.study.results import MEASURES, StudyLine, StudyResult

_SHOWN = ("iou 0.1", "own iou 0.1", "iou 0.3", "auroc")
# Distinguishable with common forms of colour blindness (Okabe & Ito)
_STYLES: dict[str, tuple[str, str]] = {
    "rozenberg": ("#d55e00", "o"),
    "no-crf": ("#e69f00", "s"),
    "no-antialias": ("#cc79a7", "^"),
    "li-loss": ("#56b4e9", "v"),
    "gamma-per-class": ("#d55e00", "P"),
    "li-unary": ("#56b4e9", "P"),
    "first-pass": ("#555555", "X"),
    "learnt-thresholds": ("#cc79a7", "X"),
    "li": ("#0072b2", "D"),
    "sgl": ("#009e73", "-"),
    "zhang": ("#7f5539", "--"),
    "wang": ("#000000", ":"),
    "chexnet": ("#888888", "-."),
}


def plot_study(result: StudyResult, path: Path) -> None:
    """Draw one panel per measure.

    Methods that learn from boxes have a point, the mean over seeds, and a bar for the range. The others have a
    horizontal line, because the share of annotated images has no effect on them.
    """
    # Not pyplot, which may need a display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.3 * len(_SHOWN) + 0.6, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    shares = sorted(result.study.shares)
    panels = figure.subplots(1, len(_SHOWN), squeeze=False)[0]
    for axes, measure in zip(panels, _SHOWN, strict=True):
        for row in result.study.rows:
            lines = sorted((line for line in result.lines if line.row == row), key=lambda line: line.share)
            _draw(axes, lines, measure, shares)
        axes.set_xscale("log")
        axes.set_xticks(shares, [f"{100 * share:g} %" for share in shares])
        axes.minorticks_off()
        axes.set_xlim(shares[0] / 1.35, shares[-1] * 1.35)
        axes.set_title(MEASURES[measure], fontsize=11)
        axes.set_xlabel("training images with boxes")
        axes.grid(alpha=0.3)
        if measure != "auroc":
            axes.set_ylim(bottom=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _draw(axes: Any, lines: list[StudyLine], measure: str, shares: list[float]) -> None:
    if not lines:
        return
    row = lines[0].row
    colour, mark = _STYLES[row.name]
    title = row.title.replace("…", "  ")
    if not row.boxes:
        axes.axhline(lines[0].numbers[measure].mean, color=colour, linestyle=mark, linewidth=1.3, label=title)
        return
    # Shifted sideways, so that bars do not hide each other
    shift = 1.05 ** (list(_STYLES).index(row.name) - 2)
    x = [line.share * shift for line in lines]
    spreads = [line.numbers[measure] for line in lines]
    means = [spread.mean for spread in spreads]
    below = [spread.mean - min(spread.values) for spread in spreads]
    above = [max(spread.values) - spread.mean for spread in spreads]
    front = 4 if row.name == "rozenberg" else 3
    axes.errorbar(
        x,
        means,
        yerr=[below, above],
        color=colour,
        marker=mark,
        markersize=5,
        capsize=2,
        linewidth=1.5,
        elinewidth=1,
        label=title,
        zorder=front,
    )
