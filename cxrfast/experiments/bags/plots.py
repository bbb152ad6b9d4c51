"""Figures of the results: curves of the measures, and example bags with their scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from cxrfast._files import atomic_path
from cxrfast.experiments.bags.methods import METHODS, Spelling
from cxrfast.experiments.bags.results import Summary, positives_order

_MEASURES = {"iou": "IoU of positive instances", "auc": "AUC of bags"}
_AXES = {
    "train_bags": "number of training bags",
    "bag_size": "mean number of instances per bag",
    "positives": "positive instances per positive bag",
}
_OTHERS = {  # for each x axis: the axis of the columns, and the axis of the files
    "train_bags": ("bag_size", "positives"),
    "bag_size": ("train_bags", "positives"),
    "positives": ("bag_size", "train_bags"),
}
_FACETS = {"bag_size": "bags of {} instances", "train_bags": "{} training bags", "positives": "positives: {}"}
# Distinguishable with common forms of colour blindness (Okabe & Ito). A method has the same colour in all figures.
_STYLES: dict[str, tuple[str, str, str]] = {
    "sgl": ("#d55e00", "o", "-"),
    "max": ("#0072b2", "s", "-"),
    "mean": ("#009e73", "^", "-"),
    "bil": ("#cc79a7", "D", "-"),
    "mmm": ("#56b4e9", "v", "-"),
    "softmax": ("#e69f00", "P", "-"),
    "noisy-or": ("#000000", "X", "-"),
    "attention": ("#999999", "*", "-"),
    "gated-attention": ("#999999", "*", ":"),
    "lse": ("#7f5539", "h", "-"),
    "linear-softmax": ("#b5a300", "<", "-"),
    "sgl-no-weight": ("#d55e00", "o", "--"),
    "sgl-no-rescale": ("#d55e00", "o", ":"),
    "sgl-no-rescale-no-weight": ("#d55e00", "o", "-."),
    "bil-script": ("#cc79a7", "d", "--"),
}
_ORDER = {name: place for place, name in enumerate(METHODS)}
_FOUND, _MISSED, _FALSE = "#009e73", "#0072b2", "#d55e00"
_PER_ROW = 20  # instances of a bag in one line


class Example(NamedTuple):
    """Some test bags with the scores of one method."""

    label: str
    sizes: np.ndarray  # [B]
    instances: np.ndarray  # [N] indices of test images
    positive: np.ndarray  # [N] bool
    scores: np.ndarray  # [N]


def _figure(width: float, height: float, layout: Any = "constrained") -> Any:
    # Not pyplot, which may need a display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def plot_summaries(summaries: Sequence[Summary], folder: Path) -> list[Path]:
    """Write ``by_train_bags.png``, ``by_bag_size.png`` and ``by_positives.png``.

    A figure is written for every axis with more than one value; if there is none, for ``train_bags``. A second axis
    gives the columns of the figure. If a third axis has several values, each has its own file:
    ``by_positives-500.png`` is for 500 training bags.
    """
    many = [axis for axis in _AXES if len({getattr(s, axis) for s in summaries}) > 1]
    written = []
    for axis in many or ["train_bags"]:
        facet, third = _OTHERS[axis]
        values = _values(summaries, third)
        for value in values:
            name = f"by_{axis}.png" if len(values) == 1 else f"by_{axis}-{str(value).replace('%', 'percent')}.png"
            written.append(folder / name)
            chosen = [s for s in summaries if getattr(s, third) == value]
            plot_curves(chosen, axis, facet, written[-1])
    return written


def _values(summaries: Sequence[Summary], axis: str) -> list[Any]:
    return sorted({getattr(s, axis) for s in summaries}, key=positives_order if axis == "positives" else None)


def plot_curves(summaries: Sequence[Summary], axis: str, facet: str, path: Path) -> None:
    """Draw IoU (first row) and AUC (second row) against `axis`, with a column for each value of `facet`.

    `axis` and `facet` are axes of the grid. Lines are means over runs; bands show the range of the runs.
    """
    columns = _values(summaries, facet)
    ticks = sorted({_place(summary, axis) for summary in summaries})
    methods = sorted({s.method for s in summaries}, key=lambda name: (_ORDER[name.partition(":")[0]], name))
    width = 1.2 + 3.1 * max(len(columns), 2)
    figure = _figure(width, 6.4)
    grid = figure.subplots(2, len(columns), sharex=True, sharey="row", squeeze=False)
    for row, (measure, title) in enumerate(_MEASURES.items()):
        for column, value in enumerate(columns):
            axes = grid[row, column]
            for method in methods:
                chosen = [s for s in summaries if s.method == method and getattr(s, facet) == value]
                _draw_method(axes, method, sorted(chosen, key=lambda s: _place(s, axis)), axis, measure)
            axes.grid(alpha=0.3)
            if len(ticks) > 1:
                axes.set_xscale("log")
            axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
            axes.minorticks_off()
            if measure == "auc":
                axes.axhline(0.5, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
                axes.set_xlabel(_AXES[axis])
            else:
                axes.set_title(_FACETS[facet].format(value), fontsize=10)
        grid[row, 0].set_ylabel(title)
        low, high = grid[row, 0].get_ylim()
        grid[row, 0].set_ylim(max(low, 0 if measure == "iou" else low) - 0.01, min(high, 1) + 0.01)
    handles: dict[str, Any] = {}
    for axes in grid.flat:
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    labels = [Spelling.parse(method).label for method in methods]
    # As many legend columns as fit: a marker, and about 0.07 inches per letter
    abreast = max(1, int(width / (0.8 + 0.07 * max(map(len, labels)))))
    figure.legend(
        [handles[label] for label in labels], labels, loc="outside lower center", ncols=min(len(labels), abreast)
    )
    _save(figure, path)


def _place(summary: Summary, axis: str) -> float:
    """The x coordinate. For positives, it is the measured number per bag."""
    return summary.positives_per_bag if axis == "positives" else getattr(summary, axis)


def _draw_method(axes: Any, method: str, summaries: Sequence[Summary], axis: str, measure: str) -> None:
    if not summaries:
        return
    name, colon, _ = method.partition(":")
    colour, marker, line = _STYLES[name]
    x = [_place(summary, axis) for summary in summaries]
    spreads = [getattr(summary, measure) for summary in summaries]
    front = 4 if name == "sgl" else 3
    style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": line, "markersize": 5, "zorder": front}
    if colon:  # not its default pooling
        style |= {"markerfacecolor": "white", "linestyle": (0, (3, 1, 1, 1))}
    axes.plot(x, [s.mean for s in spreads], label=summaries[0].label, **style)
    low, high = [s.min for s in spreads], [s.max for s in spreads]
    axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
    if len(x) == 1:  # a band would have no width
        axes.vlines(x, low, high, color=colour, alpha=0.5)


def plot_examples(
    examples: Sequence[Example],
    images: Tensor,  # [N, C, H, W] uint8
    title: str,
    path: Path,
) -> None:
    """Draw the same bags for each method, one below the other, with the score of every instance.

    Frames mark true positives (green), false negatives (blue) and false positives (red). Positive instances come
    first. The IoU is that of the bag.
    """
    from matplotlib.patches import Patch

    first = examples[0]
    same = [
        e for e in examples if np.array_equal(e.instances, first.instances) and np.array_equal(e.sizes, first.sizes)
    ]
    columns = min(int(first.sizes.max()), _PER_ROW)
    bounds = np.concatenate([[0], first.sizes.cumsum()])
    # Units: the side of an instance. Its score is below it, the methods are on the left, a heading is above each bag
    left, line, heading = 2.9, 1.42, 0.75
    width, height = left + columns + 0.2, len(first.sizes) * (len(same) * line + heading) + 1.2
    figure = _figure(0.6 * width, 0.6 * height, layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    top = 1.2
    for bag in range(len(first.sizes)):
        span = np.arange(bounds[bag], bounds[bag + 1])
        axes.text(0.2, top + 0.4, _heading(first.positive[span], columns), va="center", fontsize=9, weight="bold")
        axes.plot([0.2, width - 0.2], [top, top], color="#bbbbbb", linewidth=0.8)
        top += heading
        shown = span[np.argsort(~first.positive[span], kind="stable")][:columns]
        for example in same:
            axes.text(0.2, top + 0.5, _row_label(example, span), va="center", fontsize=8)
            for column, i in enumerate(shown):
                image = images[int(example.instances[i])].numpy()
                _draw_instance(axes, image, left + column, top, example.scores[i], bool(example.positive[i]))
            top += line
    handles = [
        Patch(facecolor="none", edgecolor=colour, linewidth=2, label=label)
        for colour, label in ((_FOUND, "found"), (_MISSED, "missed"), (_FALSE, "false alarm"))
    ]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.1, 0.65), bbox_transform=axes.transData, **_LEGEND)
    axes.text(0.2, 0.4, title, fontsize=9, va="center")
    axes.set(xlim=(0, width), ylim=(height, 0))  # imshow has changed the limits
    _save(figure, path)


def _heading(
    positive: np.ndarray,  # [n] bool
    columns: int,
) -> str:
    count = f"{positive.sum()} of {len(positive)} instances"
    kind = f"Positive bag: {count}" if positive.any() else f"Negative bag: {len(positive)} instances"
    return kind + (f", {columns} of them shown" if len(positive) > columns else "")


def _row_label(
    example: Example,
    span: np.ndarray,  # [n] the bag's instances
) -> str:
    predicted, positive = example.scores[span] > 0.5, example.positive[span]
    if not positive.any():
        return example.label
    return f"{example.label}\nIoU {(predicted & positive).sum() / (predicted | positive).sum():.2f}"


_LEGEND: dict[str, Any] = {"ncols": 3, "fontsize": 8, "frameon": False, "borderpad": 0, "borderaxespad": 0}


def _draw_instance(
    axes: Any,
    image: np.ndarray,  # [C, H, W] uint8
    left: float,
    top: float,
    score: float,
    positive: bool,
) -> None:
    from matplotlib.patches import Rectangle

    place = (left + 0.07, left + 0.93, top + 0.93, top + 0.07)
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=place, aspect="auto")
    colour = {(True, True): _FOUND, (False, True): _MISSED, (True, False): _FALSE}.get((bool(score > 0.5), positive))
    frame: dict[str, Any] = {"edgecolor": colour or "#bbbbbb", "linewidth": 2.5 if colour else 0.8}
    axes.add_patch(Rectangle((left + 0.07, top + 0.07), 0.86, 0.86, facecolor="none", **frame))
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "color": colour or "#666666"}
    axes.text(left + 0.5, top + 1.15, f"{score:.2f}", **style)
