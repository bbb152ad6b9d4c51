"""Charts as inline SVG. Colours come from the page's style sheet, for light and dark screens and for print."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """A range with labelled ticks. Positions are linear; for a logarithmic axis, pass logarithms."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    title: str = ""


UNIT = Axis(0, 1, ((0, "0"), (0.5, ".5"), (1, "1")))


@dataclass
class Chart:
    """A frame with axes. Nothing is clipped: add only what lies within it."""

    title: str  # for screen readers
    x: Axis
    y: Axis
    width: float = 190
    height: float = 170
    left: float = 30
    bottom: float = 32
    top: float = 8
    right: float = 8
    _marks: list[Markup] = field(default_factory=list)

    def px(self, x: float) -> float:
        span = self.width - self.left - self.right
        return self.left + span * (x - self.x.low) / (self.x.high - self.x.low)

    def py(self, y: float) -> float:
        span = self.height - self.top - self.bottom
        return self.height - self.bottom - span * (y - self.y.low) / (self.y.high - self.y.low)

    def line(self, points: Points, kind: str) -> None:
        """A line through the points."""
        if points:
            self._marks.append(Markup('<path class="{}" d="{}"/>').format(kind, self._path(points)))

    def steps(self, points: Points, kind: str) -> None:
        """A step curve through the points: to the right, then up."""
        path = [points[0]] if points else []
        for (_, y), (next_x, next_y) in pairwise(points):
            path += [(next_x, y), (next_x, next_y)]
        self.line(path, kind)

    def dots(self, points: Points, kind: str, radius: float = 2.5, titles: Sequence[str] = ()) -> None:
        for index, (x, y) in enumerate(points):
            tip = Markup("<title>{}</title>").format(titles[index]) if titles else ""
            self._marks.append(
                Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}">{}</circle>').format(
                    kind, self.px(x), self.py(y), radius, tip
                )
            )

    def column(self, x: float, kind: str, label: str = "") -> None:
        """A vertical line through the frame, with a label at its top."""
        at, low, high = self.px(x), self.py(self.y.low), self.py(self.y.high)
        line = Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
        self._marks.append(line.format(kind, at, at, low, high))
        if label:
            self.text(at, high - 5, label, "label")

    def text(self, px: float, py: float, words: str, kind: str) -> None:
        self._marks.append(Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(kind, px, py, words))

    def svg(self) -> Markup:
        frame = [
            Markup('<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">').format(
                self.width, self.height, self.title
            ),
            *(self._gridline(value, label, vertical=True) for value, label in self.x.ticks),
            *(self._gridline(value, label, vertical=False) for value, label in self.y.ticks),
        ]
        if self.x.title:
            middle = (self.left + self.width - self.right) / 2
            frame.append(
                Markup('<text class="axis" text-anchor="middle" x="{:.1f}" y="{:.1f}">{}</text>').format(
                    middle, self.height - 4, self.x.title
                )
            )
        if self.y.title:
            middle = (self.top + self.height - self.bottom) / 2
            frame.append(
                Markup(
                    '<text class="axis" text-anchor="middle" transform="translate(9 {:.1f}) rotate(-90)">{}</text>'
                ).format(middle, self.y.title)
            )
        return Markup("").join([*frame, *self._marks, Markup("</svg>")])

    def _path(self, points: Points) -> str:
        return "M" + "L".join(f"{self.px(x):.1f} {self.py(y):.1f}" for x, y in points)

    def _gridline(self, value: float, label: str, *, vertical: bool) -> Markup:
        if vertical:
            at, low = self.px(value), self.height - self.bottom
            line = (at, at, low, self.top)
            words = (at, low + 12, "middle")
        else:
            at = self.py(value)
            line = (self.left, self.width - self.right, at, at)
            words = (self.left - 4, at + 3.5, "end")
        return Markup(
            '<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>'
            '<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>'
        ).format(*line, *words, label)


def interval_bar(value: float, low: float, high: float, reference: float | None = None) -> Markup:
    """A small inline chart of a value in [0, 1] with its interval; ``reference`` marks chance level."""
    parts = [
        Markup('<svg class="bar" viewBox="0 0 100 12" aria-hidden="true">'),
        Markup('<line class="grid" x1="0" x2="100" y1="6" y2="6"/>'),
    ]
    if reference is not None:
        at = 100 * reference
        parts.append(Markup('<line class="guess" x1="{:.1f}" x2="{:.1f}" y1="1" y2="11"/>').format(at, at))
    if low == low:
        parts.append(
            Markup('<line class="spread" x1="{:.1f}" x2="{:.1f}" y1="6" y2="6"/>').format(100 * low, 100 * high)
        )
    parts.append(Markup('<circle class="dot" cx="{:.1f}" cy="6" r="3.2"/></svg>').format(100 * value))
    return Markup("").join(parts)


def thin(points: Points, tolerance: float = 0.004) -> list[tuple[float, float]]:
    """The points of a monotone curve without those within ``tolerance`` of the last one kept; the ends are kept."""
    kept: list[tuple[float, float]] = []
    for index, point in enumerate(points):
        last = index == len(points) - 1
        if last or not kept or max(abs(point[0] - kept[-1][0]), abs(point[1] - kept[-1][1])) >= tolerance:
            kept.append(point)
    return kept


def nice_ticks(low: float, high: float, count: int = 4) -> list[tuple[float, str]]:
    """About ``count`` round numbers from ``low`` to ``high``."""
    span = max(high - low, 1e-9)
    power = 10 ** math.floor(math.log10(span / count))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda size: abs(span / size - count))
    first = math.ceil(low / step - 1e-9)
    return [(i * step, f"{i * step:.6g}") for i in range(first, math.floor(high / step + 1e-9) + 1)]
