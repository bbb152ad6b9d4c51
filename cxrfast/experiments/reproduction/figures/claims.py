"""Claims of Seibold et al. 2020 about figures whose numbers are not printed, and how to measure them.

The claims are in the register of statements. This module measures each of them in the summaries of a grid of bags.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Literal, NamedTuple

from cxrfast.experiments.bags.methods import Spelling
from cxrfast.experiments.bags.results import Summary, positives_order

Measure = Literal["iou", "auc"]
TITLES: dict[Measure, str] = {"iou": "IoU", "auc": "AUC"}


class Place(NamedTuple):
    """The conditions under which methods are compared."""

    bag_size: int
    train_bags: int
    positives: str

    def __str__(self) -> str:
        positives = "" if self.positives == "natural" else f", {self.positives} positive"
        return f"bags of {self.bag_size}{positives}, {self.train_bags} for training"


class Results:
    """Summaries by conditions and method."""

    def __init__(self, summaries: Sequence[Summary]) -> None:
        self._of = {(Place(s.bag_size, s.train_bags, s.positives), s.method): s for s in summaries}
        self.places = sorted({place for place, _ in self._of}, key=lambda p: (p[0], positives_order(p[2]), p[1]))
        self.sizes = sorted({place.bag_size for place in self.places})

    def get(self, place: Place, method: str) -> Summary | None:
        return self._of.get((place, method))

    def rivals(self, place: Place, own: str) -> list[Summary]:
        return [s for (at, method), s in self._of.items() if at == place and method != own]

    def of_sizes(self, which: Literal["smallest", "larger", "largest", "all"]) -> list[Place]:
        """The conditions with these bag sizes. A single size counts as "smallest", "larger" and "largest"."""
        first, last = self.sizes[0], self.sizes[-1]
        wanted = {
            "smallest": [first],
            "larger": self.sizes[1:] or [first],
            "largest": [last],
            "all": self.sizes,
        }[which]
        return [place for place in self.places if place.bag_size in wanted]


@dataclass(frozen=True)
class Evidence:
    """Our numbers on a claim: a table, and its summary in one line."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    summary: str


Measured = Callable[[Results], Evidence]


def against(
    rival: str,
    measures: Sequence[Measure] = ("iou", "auc"),
    *,
    own: str = "sgl",
    among: Sequence[str] = (),
    sizes: Literal["smallest", "larger", "largest", "all"] = "all",
    ratio: bool = False,
) -> Measured:
    """Compare `own` with the method `rival`. "best" means the best of all others, or of those in `among`."""

    def measured(results: Results) -> Evidence:
        rows, parts = [], []
        found: dict[Measure, list[tuple[float, float]]] = {measure: [] for measure in measures}
        for place in results.of_sizes(sizes):
            ours = results.get(place, own)
            if ours is None:
                continue
            row = [str(place)]
            for measure in measures:
                other = _rival(results, place, own, rival, among, measure)
                mine = getattr(ours, measure).mean
                if other is None:
                    row += [f"{mine:.3f}", "-"]
                    continue
                its = getattr(other, measure).mean
                found[measure].append((mine, its))
                row += [f"{mine:.3f}", f"{its:.3f} {other.label}" if rival == "best" else f"{its:.3f}"]
            rows.append(tuple(row))
        for measure, pairs in found.items():
            if pairs:
                parts.append(_compared(measure, pairs, label(own), ratio))
        name = "the best other" if rival == "best" else label(rival)
        columns = [f"{title} {who}" for title in (TITLES[m] for m in measures) for who in (label(own), name)]
        return Evidence(("", *columns), tuple(rows), "; ".join(parts) or "no run to compare")

    return measured


def label(method: str) -> str:
    return Spelling.parse(method).label


def _rival(
    results: Results, place: Place, own: str, rival: str, among: Sequence[str], measure: Measure
) -> Summary | None:
    if rival != "best":
        return results.get(place, rival)
    known = [s for s in results.rivals(place, own) if not among or s.method in among]
    return max(known, key=lambda s: getattr(s, measure).mean, default=None)


def _compared(measure: Measure, pairs: Sequence[tuple[float, float]], own: str, ratio: bool) -> str:
    ahead = sum(mine > its for mine, its in pairs)
    text = f"{TITLES[measure]}: {own} is ahead in {ahead} of {len(pairs)}"
    text += f", by {mean(mine - its for mine, its in pairs):+.3f} on average".replace("-", "−")
    ratios = [mine / its for mine, its in pairs if its > 0]
    if ratio and ratios:
        large = sum(value >= 1.5 for value in ratios)
        text += f"; median ratio {median(ratios):.2f}, at least 1.5 in {large} of {len(ratios)}"
    return text


def grows(methods: Sequence[str]) -> Measured:
    """Compare the results with the smallest and with the largest number of training bags."""

    def measured(results: Results) -> Evidence:
        rows = []
        rising: dict[Measure, list[bool]] = {"iou": [], "auc": []}
        kinds = sorted({(p.bag_size, p.positives) for p in results.places}, key=lambda k: (k[0], positives_order(k[1])))
        for method in methods:
            for size, positives in kinds:
                found = [results.get(p, method) for p in results.places if (p[0], p[2]) == (size, positives)]
                known = [s for s in found if s is not None]
                if len(known) < 2:
                    continue
                first, last = known[0], known[-1]
                row = [f"{label(method)}, bags of {size}, {first.train_bags} → {last.train_bags}"]
                for measure, of_measure in rising.items():
                    before, after = getattr(first, measure).mean, getattr(last, measure).mean
                    of_measure.append(after > before)
                    row.append(f"{before:.3f} → {after:.3f}")
                rows.append(tuple(row))
        parts = [f"{TITLES[m]} rises in {sum(values)} of {len(values)}" for m, values in rising.items() if values]
        return Evidence(("", "IoU", "AUC"), tuple(rows), "; ".join(parts) or "one number of training bags only")

    return measured


def chance(method: str) -> Measured:
    """Whether a method learns anything: an AUC of 0.5 is chance."""

    def measured(results: Results) -> Evidence:
        found = [(place, s) for place in results.places if (s := results.get(place, method)) is not None]
        rows = tuple(
            (str(place), f"{s.iou.mean:.3f}", f"{s.auc.mean:.3f}", f"{s.auc.min:.3f}–{s.auc.max:.3f}")
            for place, s in found
        )
        columns = ("", f"IoU {label(method)}", "AUC", "of single runs")
        if not found:
            return Evidence(columns, rows, "no run")
        top = max(s.auc.max for _, s in found)
        return Evidence(columns, rows, f"{label(method)}: the greatest AUC of any run is {top:.3f}")

    return measured


def maxima(first: str, second: str) -> Measured:
    """Compare the best runs of two methods."""

    def value(s: Summary, measure: Measure) -> float:
        return getattr(s, measure).max

    return _two(first, second, value, "best run of", "is higher in")


def spreads(first: str, second: str) -> Measured:
    """Compare the ranges (best minus worst run) of two methods."""

    def value(s: Summary, measure: Measure) -> float:
        spread = getattr(s, measure)
        return spread.max - spread.min

    return _two(first, second, value, "range of", "is wider in")


def _two(first: str, second: str, value: Callable[[Summary, Measure], float], of: str, more: str) -> Measured:
    def measured(results: Results) -> Evidence:
        rows = []
        wins: dict[Measure, list[bool]] = {"iou": [], "auc": []}
        for place in results.places:
            one, other = results.get(place, first), results.get(place, second)
            if one is None or other is None:
                continue
            row = [str(place)]
            for measure, of_measure in wins.items():
                pair = value(one, measure), value(other, measure)
                of_measure.append(pair[0] > pair[1])
                row += [f"{number:.3f}" for number in pair]
            rows.append(tuple(row))
        names = label(first), label(second)
        columns = ("", *(f"{title} {name}" for title in TITLES.values() for name in names))
        parts = [f"{TITLES[m]}: {of} {names[0]} {more} {sum(values)} of {len(values)}" for m, values in wins.items()]
        return Evidence(columns, tuple(rows), "; ".join(parts) if rows else "no run to compare")

    return measured


CLAIMS: dict[str, tuple[tuple[str, Measured], ...]] = {
    # name of the figure in `cxrfast reproduce` -> its statements of the register, each with a measurement
    "seibold4": (
        ("fig4-small-bags", against("max", sizes="smallest")),
        ("fig4-larger-bags", against("best", sizes="larger")),
        ("fig4-nearly-double-iou", against("best", ("iou",), sizes="larger", ratio=True)),
        ("fig4-no-trade-off", against("max")),
        ("fig4-more-training-bags", grows(("sgl",))),
    ),
    "seibold5a": (
        ("fig5a-max-alone", grows(("max",))),
        ("fig5a-no-rescaling", chance("sgl-no-rescale-no-weight")),
        ("fig5a-rescaling", against("best", own="sgl-no-weight", among=("max", "sgl-no-rescale-no-weight"))),
        ("fig5a-higher-maxima-without-weight", maxima("sgl-no-weight", "sgl")),
        ("fig5a-weight-is-more-stable", spreads("sgl-no-weight", "sgl")),
    ),
    "seibold6": (
        ("fig6-mean-best-auc", against("best", ("auc",), own="mean", sizes="smallest")),
        ("fig6-better-than-max", against("max", ("auc",))),
        ("fig6-iou-above-others", against("best", ("iou",), sizes="all")),
        ("fig6-larger-bags-bil", against("bil", ("auc", "iou"), sizes="largest")),
    ),
}
