"""The chart of a result: for every case, the speed-up of cxrfast over the fastest compared implementation."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxrfast._files import atomic_path
from cxrfast.benchmarks.results import OURS, BenchmarkRow, read
from cxrfast.benchmarks.table import times
from cxrfast.errors import CxrfastError

_COLOURS = {"forward": "#4c78a8", "forward+backward": "#f58518"}
_SLOWER = 0.6  # opacity of bars below 1


def fastest_peers(rows: Sequence[BenchmarkRow]) -> list[BenchmarkRow]:
    """For every case and pass, the fastest comparable implementation."""
    best: dict[tuple[str, str], BenchmarkRow] = {}
    for row in rows:
        comparable = row.implementation != OURS and row.ratio is not None and not row.note
        key = row.case, row.passes
        if comparable and (key not in best or (row.ratio or math.inf) < (best[key].ratio or math.inf)):
            best[key] = row
    return list(best.values())


def plot_results(path: Path) -> Path:
    """Plot the CSV file of one device to an image beside it."""
    rows = read(path)
    best = fastest_peers(rows)
    if not best:
        raise CxrfastError(f"{path} has no comparison to draw; run cxrfast bench with peers")
    # Without pyplot, which would look for a display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    names = list(dict.fromkeys(row.case for row in best))
    figure = Figure(figsize=(10, 1.6 + 0.36 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    height = 0.38
    for row in best:
        ratio = row.ratio or 0
        offset = height / 2 * (-1 if row.passes == "forward" else 1)
        y = names.index(row.case) + offset
        axes.barh(y, ratio - 1, height, left=1, color=_COLOURS[row.passes], alpha=1 if ratio >= 1 else _SLOWER)
        place: dict[str, Any] = {"xytext": (3, 0), "textcoords": "offset points", "va": "center", "fontsize": 7}
        axes.annotate(f"{times(ratio)} {row.implementation}", (max(ratio, 1), y), **place)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    ratios = [row.ratio or 1 for row in best]
    axes.set_xlim(min(0.8, *ratios) / 1.2, max(1.2, *ratios) * 4)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("speed-up over the fastest compared implementation, named at the bar (logarithmic)")
    axes.xaxis.set_major_formatter(lambda value, _: times(value))
    axes.grid(axis="x", alpha=0.3)
    handles = [Patch(color=colour, label=name) for name, colour in _COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    first = best[0]
    axes.set_title(f"{first.device}, {first.threads:.0f} threads, {first.dtype}, torch {first.torch}", fontsize=10)
    image = path.with_suffix(".png")
    with atomic_path(image) as temporary:
        FigureCanvasAgg(figure)
        figure.savefig(temporary, format="png", dpi=110)
    return image
