"""Draws a localisation: the original radiograph beside the radiograph with heat map and boxes."""

import os
import textwrap
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxrfast._files import atomic_path
from cxrfast.inference._label_layout import place_labels
from cxrfast.inference.findings import ClassFinding, FoundBox, Localization

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
FOOTER = "cxrfast — research use only, not for diagnosis"

# Of the figure, in inches
_HEIGHTS = (2.5, 6.0)  # minimum and maximum of a panel
_WIDTHS = (3.0, 9.0)  # minimum and maximum of a panel
_MARGIN, _GAP, _TITLE, _BAR, _LINE, _COLUMN = 0.3, 0.15, 1.15, 0.75, 0.26, 4.4
_WARNING_LINE = 0.19

_BACKGROUND, _INK, _DIM, _ALARM = "#16181c", "#f2f2f2", "#a8adb5", "#ffb347"
_HEAT = "YlOrRd"  # ends in a saturated colour: near-white would be invisible on bone, heart and fluid
_OPACITY = 0.5  # of the heat map where the map reaches the threshold
_MAX_LABELS = 20  # only the most confident boxes are labelled
# Distinguishable on grey. A class has the same colour in all pictures.
_COLOURS = (
    "#35d0ff", "#ff5fa2", "#5be35b", "#ffd23f", "#ff7a3d", "#b48cff", "#2fe0b5",
    "#ff4d4d", "#8fb3ff", "#d8f24b", "#ff9ee5", "#c9a06a", "#00b7c7", "#f4f4f4",
)  # fmt: skip


def save_overlay(localization: Localization, path: str | os.PathLike) -> None:
    """Write the picture as PNG, atomically."""
    with warnings.catch_warnings(), atomic_path(path) as temporary:
        # File names may have characters that the font lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        # Encoding takes most of the time. This level saves a third of it; files are a seventh larger
        draw(localization).savefig(temporary, format="png", facecolor=_BACKGROUND, pil_kwargs={"compress_level": 3})


def draw(localization: Localization) -> "Figure":
    """The picture as a figure, without a window or global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    aspect = localization.width / localization.height
    panel = float(np.clip(_HEIGHTS[1] * aspect, *_WIDTHS))
    panel_height = float(np.clip(panel / aspect, *_HEIGHTS))
    width = 2 * _MARGIN + 2 * panel + _GAP + _BAR
    per_row = max(1, int((width - 2 * _MARGIN) // _COLUMN))
    rows = max(1, -(-len(localization.findings) // per_row))
    bottom = _MARGIN + _LINE * (rows + 1) + 0.1
    warned = _warning_lines(localization, width)
    height = bottom + panel_height + _TITLE + _WARNING_LINE * len(warned)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)

    def axes(left: float, axes_width: float) -> "Axes":
        return figure.add_axes((left / width, bottom / height, axes_width / width, panel_height / height))

    _draw_heading(figure, localization, warned)
    _draw_legend(figure, localization, bottom, per_row)
    original, overlay = axes(_MARGIN, panel), axes(_MARGIN + panel + _GAP, panel)
    _draw_image(original, localization, "original")
    _draw_image(overlay, localization, "findings: class and highest patch value")
    if localization.findings:
        _draw_heat(overlay, axes(_MARGIN + 2 * panel + 2 * _GAP, 0.16), localization)
        _draw_boxes(overlay, localization)
    else:
        _draw_nothing_found(overlay)
    return figure


def _colour(localization: Localization, finding: ClassFinding) -> str:
    return _COLOURS[localization.classes.index(finding) % len(_COLOURS)]


def _warning_lines(localization: Localization, width: float) -> list[str]:
    """The warnings, each in as many lines as the width of the figure demands."""
    room = int((width - 2 * _MARGIN) * 12)  # characters
    return [line for text in localization.warnings for line in textwrap.wrap(f"WARNING: {text}", room)]


def _draw_heading(figure: "Figure", localization: Localization, warned: Sequence[str]) -> None:
    left, height = _MARGIN / figure.get_figwidth(), figure.get_figheight()
    name = Path(localization.source).name if localization.source else "image"
    model = localization.model
    facts = f"{localization.width} × {localization.height} pixels · {model['method']}, labels {model['label_version']}"
    room = figure.get_figwidth() * 8  # characters
    figure.text(
        left, 1 - 0.3 / height, _cut(name, room), color=_INK, size=14, weight="bold", va="center", parse_math=False
    )
    weights = f"weights {_cut(str(model['weights']), 1.4 * room)}"
    for place, text in ((0.55, facts), (0.74, weights)):
        figure.text(left, 1 - place / height, text, color=_DIM, size=9, va="center", parse_math=False)
    for row, text in enumerate(warned):
        y = 1 - (0.95 + _WARNING_LINE * row) / height
        figure.text(left, y, text, color=_ALARM, size=9, weight="bold", va="center", parse_math=False)
    figure.text(left, 0.2 / height, FOOTER, color=_DIM, size=9, va="center")


def _cut(text: str, room: float) -> str:
    """The text without its middle if it is longer than `room` characters."""
    room = int(room)
    return text if len(text) <= room else f"{text[: room // 2]}…{text[-room // 2 + 1 :]}"


def _draw_legend(figure: "Figure", localization: Localization, bottom: float, per_row: int) -> None:
    """One entry for every finding, below the panels."""
    width, height = figure.get_figwidth(), figure.get_figheight()
    if not localization.findings:
        best = sorted(localization.classes, key=lambda finding: -finding.score)[:3]
        scores = ", ".join("{} {} of {}".format(finding.name, *finding.numbers) for finding in best)
        figure.text(
            _MARGIN / width,
            (bottom - _LINE) / height,
            f"No class reaches its score threshold. Highest: {scores}",
            color=_INK,
            size=10,
            va="center",
            parse_math=False,
        )
    for place, finding in enumerate(localization.findings):
        row, column = divmod(place, per_row)
        x, y = (_MARGIN + column * _COLUMN) / width, (bottom - _LINE * (row + 1)) / height
        figure.text(x, y, "■", color=_colour(localization, finding), size=12, va="center")
        figure.text(
            x + 0.2 / width, y, _describe(localization, finding), color=_INK, size=10, va="center", parse_math=False
        )


def _describe(localization: Localization, finding: ClassFinding) -> str:
    score, threshold = finding.numbers
    relation = "threshold" if finding.detected else "below"
    regions = {0: "no region", 1: "1 region"}.get(len(finding.boxes), f"{len(finding.boxes)} regions")
    return f"{finding.name}  {score} ({relation} {threshold}) · {regions}"


def _draw_image(axes: "Axes", localization: Localization, title: str) -> None:
    image = _shrink(localization.image)
    # 16-bit files may use a small part of their range: display the range of values that occur
    darkest, brightest = np.percentile(image, [0.1, 99.9])
    axes.imshow(
        image,
        cmap="gray",
        vmin=darkest,
        vmax=max(brightest, darkest + 1e-6),
        extent=(0, localization.width, localization.height, 0),
        interpolation="antialiased",
    )
    axes.set(xlim=(0, localization.width), ylim=(localization.height, 0), xticks=[], yticks=[], facecolor="black")
    axes.set_title(title, color=_DIM, size=10, loc="left", pad=4)
    axes.spines[:].set_visible(False)


def _shrink(image: np.ndarray) -> np.ndarray:
    """Downscale an image to about the resolution of its panel."""
    import cv2

    factor = 2 * DPI * _HEIGHTS[1] / max(image.shape)
    if factor >= 1:
        return image
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def _draw_heat(axes: "Axes", bar: "Axes", localization: Localization) -> None:
    """The maximum of the reported classes' maps, transparent where all are below half of their threshold."""
    from matplotlib import colormaps

    shown = [localization.classes.index(finding) for finding in localization.findings]
    thresholds = np.array([localization.classes[k].map_threshold for k in shown])
    maps = localization.maps[shown].numpy()
    heat = maps.max(axis=0)
    warmth = (maps / np.maximum(thresholds, 1e-6)[:, None, None]).max(axis=0)
    picture = colormaps[_HEAT](heat)
    picture[..., 3] = _OPACITY * np.clip(2 * warmth - 1, 0, 1)
    axes.imshow(picture, extent=(0, localization.width, localization.height, 0), interpolation="nearest")

    bar.imshow(np.linspace(1, 0, 256)[:, None], cmap=_HEAT, aspect="auto", extent=(0, 1, 0, 1), vmin=0, vmax=1)
    bar.set(xticks=[], yticks=np.linspace(0, 1, 6))
    bar.yaxis.tick_right()
    bar.tick_params(colors=_DIM, labelsize=8, length=2)
    bar.hlines(np.unique(thresholds), 0, 1, colors=_INK, linewidths=1.5)
    bar.set_title("patch", color=_DIM, size=9, pad=4)


def _draw_boxes(axes: "Axes", localization: Localization) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import Normal, Stroke

    boxes = [(finding, box) for finding in localization.findings for box in finding.boxes]
    boxes.sort(key=lambda pair: -pair[1].confidence)
    drawn: Counter[tuple[float, ...]] = Counter()
    for finding, box in reversed(boxes):  # draw the most confident last, on top
        x1, y1, x2, y2 = box.xyxy
        # Of equal boxes, the first is solid and the others are dashed with increasing gaps, so that all are visible
        style = (0, (6, 6 * drawn[box.xyxy])) if drawn[box.xyxy] else "solid"
        drawn[box.xyxy] += 1
        frame = Rectangle(
            (x1, y1),
            x2 - x1,
            y2 - y1,
            fill=False,
            edgecolor=_colour(localization, finding),
            linewidth=2,
            linestyle=style,
        )
        frame.set_path_effects([Stroke(linewidth=4, foreground="black", alpha=0.7), Normal()])
        axes.add_patch(frame)
    _draw_labels(axes, localization, boxes[:_MAX_LABELS])


def _draw_labels(axes: "Axes", localization: Localization, boxes: list[tuple[ClassFinding, FoundBox]]) -> None:
    axes.apply_aspect()  # updates the position of the picture
    padding = 2.5  # points around the text
    room = (padding + 1) * DPI / 72
    artists, places, sizes = [], [], []
    for finding, box in boxes:
        artist = axes.text(
            0,
            0,
            f"{finding.name} {_short(box.confidence)}",
            transform=None,  # pixels of the figure
            va="bottom",
            color="white",
            size=9,
            weight="bold",
            parse_math=False,
            bbox={
                "facecolor": "black",
                "alpha": 0.78,
                "edgecolor": _colour(localization, finding),
                "linewidth": 1.2,
                "pad": padding,
            },
        )
        extent = artist.get_window_extent()
        artists.append(artist)
        sizes.append((extent.width + 2 * room, extent.height + 2 * room))
        (left, top), (right, bottom) = axes.transData.transform([box.xyxy[:2], box.xyxy[2:]])
        places.append((left, bottom, right, top))
    for artist, place in zip(artists, place_labels(places, sizes, axes.get_window_extent().extents), strict=True):
        artist.set_position((place[0] + room, place[1] + room))


def _short(value: float) -> str:
    """Two decimals, or two digits where these would be 0."""
    return f"{value:.2f}" if value >= 0.005 else f"{value:.2g}"


def _draw_nothing_found(axes: "Axes") -> None:
    axes.text(
        0.5,
        0.04,
        "nothing found: no score reaches its threshold",
        transform=axes.transAxes,
        ha="center",
        color=_INK,
        size=11,
        bbox={"facecolor": "black", "alpha": 0.75, "edgecolor": "none", "pad": 5},
    )
