"""Compares two evaluations of the same images, with the paired test by patient."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cxrfast.errors import UsageError
from cxrfast.evaluation.localization import hits_at
from cxrfast.evaluation.protocols import PROTOCOLS, HitCriterion
from cxrfast.evaluation.record import Gate
from cxrfast.metrics.bootstrap import (
    Statistic,
    paired_bootstrap_with_mean,
    weighted_auroc,
    weighted_average_precision,
    weighted_mean,
)
from cxrfast.predictions.table import Predictions
from cxrfast.report.facts import Evaluated, passes_gate
from cxrfast.report.terminal.layout import wrap

RESAMPLES = 2000
SIGNIFICANT = 0.05
SCORES = ("AUROC", "average precision")


@dataclass(frozen=True)
class Line:
    """The comparison of one class, or of the mean."""

    name: str
    first: float
    second: float
    difference: float  # second - first
    low: float
    high: float
    p_value: float

    @property
    def known(self) -> bool:
        """Whether at least one run has the number."""
        return not (math.isnan(self.first) and math.isnan(self.second))

    @property
    def significant(self) -> bool:
        return self.p_value < SIGNIFICANT

    @property
    def better(self) -> str:
        """The run with the larger number, "first" or "second"; "" unless the difference is significant."""
        if not self.significant:
            return ""
        return "second" if self.difference > 0 else "first"


@dataclass(frozen=True)
class Measure:
    """One measure of both runs. Larger is better."""

    title: str
    lines: Sequence[Line]

    @property
    def known(self) -> list[Line]:
        """The lines that are shown."""
        return [line for line in self.lines if line.known]


@dataclass(frozen=True)
class RunComparison:
    """Two runs, compared on the images that both evaluated."""

    first: Evaluated
    second: Evaluated
    names: tuple[str, str]
    n_images: int
    n_patients: int
    measures: Sequence[Measure]
    settings: Sequence[tuple[str, str, str]]  # where the configurations differ: name, first, second
    notes: Sequence[str]

    @property
    def warnings(self) -> list[str]:
        """Those of both evaluations; one that only one has names it."""
        own, other = self.first.record.warnings, self.second.record.warnings
        both = [warning for warning in own if warning in other]
        runs = zip(self.names, (own, other), strict=True)
        return both + [f"{name}: {warning}" for name, of in runs for warning in of if warning not in both]

    @property
    def shown(self) -> list[Measure]:
        return [measure for measure in self.measures if measure.known]

    @property
    def not_shown(self) -> list[str]:
        """Sentences that name the classes without a number in both runs, grouped by measures."""
        groups: dict[str, dict[str, None]] = {}
        for measure in self.measures:
            missing = ", ".join(line.name for line in measure.lines if not line.known)
            groups.setdefault(missing, {})[measure.title if measure.title in SCORES else "places"] = None
        return [
            f"Not shown, as neither run has numbers: {', '.join(what)} of {missing}."
            for missing, what in groups.items()
            if missing
        ]

    def to_text(self) -> str:
        """Text for a terminal, at most 100 columns wide."""
        lines = [line for warning in self.warnings for line in wrap(f"WARNING: {warning}")]
        lines += [
            f"first: {self.names[0]}   second: {self.names[1]}   {self.n_images} images of {self.n_patients} patients"
        ]
        for measure in self.shown:
            lines += ["", measure.title]
            lines.append(f"{'class':<22}{'first':>8}{'second':>8}{'difference':>12}{'95 %':>18}{'p':>8}")
            for line in measure.known:
                spread = "-" if math.isnan(line.low) else f"{line.low:+.3f} to {line.high:+.3f}"
                lines.append(
                    f"{line.name[:22]:<22}{_decimal(line.first):>8}{_decimal(line.second):>8}"
                    f"{_decimal(line.difference, '+'):>12}{spread:>18}{_p(line.p_value):>8}"
                )
        notes = [line for note in (*self.notes, *self.not_shown) for line in wrap(note)]
        return "\n".join([*lines, "", *notes]) + "\n"


def compare(first: Evaluated, second: Evaluated) -> RunComparison:
    """Compare on the images and classes that both evaluated.

    Raises :class:`UsageError` if there are none, or if labels or protocols differ.
    """
    names = _names(first, second)
    protocols = [run.record.protocol for run in (first, second)]
    if protocols[0] != protocols[1]:
        raise UsageError(
            f"protocol: expected the same for both, got {protocols[0]} for {names[0]} and {protocols[1]} for "
            f"{names[1]}; evaluate both by one"
        )
    a, b = first.predictions, second.predictions
    classes = [name for name in a.class_names if name in b.class_names]
    theirs = set(b.images)
    images = [image for image in a.images if image in theirs]
    if not images or not classes:
        what = "image" if classes else "class"
        raise UsageError(f"{names[0]} and {names[1]} have no {what} in common; evaluate both on the same images")
    a, b = _part(a, images, classes), _part(b, images, classes)
    if not torch.equal(a.labels.nan_to_num(-1), b.labels.nan_to_num(-1)):
        raise UsageError(
            f"labels: expected the same for both, got {first.record.label_version} for {names[0]} and other labels "
            f"({second.record.label_version}) for {names[1]}; evaluate both with one --labels"
        )
    notes = _notes(first, second, names, images, classes)
    return RunComparison(
        first=first,
        second=second,
        names=names,
        n_images=len(images),
        n_patients=len(set(a.patients)),
        measures=[*_score_measures(a, b), *_place_measures(a, b, _common_tables(first, second, a, b, notes), notes)],
        settings=_different_settings(first, second),
        notes=notes,
    )


def compare_predictions(a: Predictions, b: Predictions, protocol: str, notes: list[str] | None = None) -> list[Measure]:
    """AUROC, AP and the protocol's accuracies of two runs that predict the same classes of the same images.

    Accuracies are at the protocol's own T and without its gates, which predictions do not contain. ``notes`` receives
    what cannot be compared.
    """
    entry = PROTOCOLS.get(protocol)
    everything = torch.ones_like(a.prob, dtype=torch.bool)
    tables = [_Table(hit, entry.unit, "", (everything, everything)) for hit in entry.criteria] if entry else []
    return [*_score_measures(a, b), *_place_measures(a, b, tables, [] if notes is None else notes)]


@dataclass(frozen=True)
class _Table:
    """Accuracies by one measure, behind one gate of each run."""

    hit: HitCriterion
    unit: str
    gate: str  # in words, "" for none
    passes: tuple[Tensor, Tensor]  # [N, K] bool for each run: where the gate is open


def _names(first: Evaluated, second: Evaluated) -> tuple[str, str]:
    """Titles of the two runs; numbered if they are the same."""
    if first.title != second.title:
        return first.title, second.title
    return f"{first.title} (1)", f"{second.title} (2)"


def _part(predictions: Predictions, images: Sequence[str], classes: Sequence[str]) -> Predictions:
    place = {image: n for n, image in enumerate(predictions.images)}
    rows = torch.tensor([place[image] for image in images])
    columns = torch.tensor([predictions.class_names.index(name) for name in classes])

    def cut(table: Tensor) -> Tensor:  # [N, K]
        return table[rows][:, columns]

    return Predictions(
        class_names=tuple(classes),
        images=list(images),
        patients=[predictions.patients[n] for n in rows.tolist()],
        prob=cut(predictions.prob),
        labels=cut(predictions.labels),
        n_boxes=cut(predictions.n_boxes),
        iou=cut(predictions.iou),
        ior=cut(predictions.ior),
    )


def _score_measures(a: Predictions, b: Predictions) -> list[Measure]:
    unknown = a.prob.isnan() | b.prob.isnan()
    labels = torch.where(unknown, torch.nan, a.labels)
    pairs = [(run.prob.nan_to_num(0.5), labels) for run in (a, b)]
    return [
        _measure(title, a, *(weighted(*pair) for pair in pairs))
        for title, weighted in zip(SCORES, (weighted_auroc, weighted_average_precision), strict=True)
    ]


def _place_measures(a: Predictions, b: Predictions, tables: Sequence[_Table], notes: list[str]) -> list[Measure]:
    if a.iou.isnan().all() or b.iou.isnan().all():
        return []
    before = ", before any gate" if any(table.gate for table in tables) else ""
    measures = [_measure(f"mean IoU{before}", a, weighted_mean(a.iou), weighted_mean(b.iou))]
    if any(table.unit == "box" for table in tables) and (a.n_boxes > 1).any():
        notes.append(
            "Shares of boxes found are not compared: the predictions contain one number for all boxes of an image."
        )
        return measures
    for table in tables:
        for t in table.hit.thresholds:
            pairs = zip((a, b), table.passes, strict=True)
            found = [_hits(getattr(run, table.hit.measure) * passes, table.hit, t) for run, passes in pairs]
            title = f"found at {table.hit} {t:g}{table.gate}"
            measures.append(_measure(title, a, *(weighted_mean(values) for values in found)))
    return measures


def _common_tables(
    first: Evaluated, second: Evaluated, a: Predictions, b: Predictions, notes: list[str]
) -> list[_Table]:
    """The tables of the evaluations with their gates, at the T that both have."""
    sides = [run.record.localization for run in (first, second)]
    if sides[0] is None or sides[1] is None:
        return []
    kinds = [[(table.measure, table.inclusive, side.unit) for table in side.tables] for side in sides if side]
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"protocol: expected one definition of {first.record.protocol}, got different ones; evaluate both again"
        )
    tables: list[_Table] = []
    only: dict[str, None] = {}
    for one, other in zip(sides[0].tables, sides[1].tables, strict=True):
        thresholds = [tuple(row.T for row in table.rows) for table in (one, other)]
        both = tuple(t for t in thresholds[0] if t in thresholds[1])
        hit = HitCriterion(one.measure, one.inclusive, both)
        only |= {f"{hit} {t:g}": None for t in sorted({*thresholds[0]} ^ {*thresholds[1]})}
        passes = passes_gate(one.gate, first, a), passes_gate(other.gate, second, b)
        tables.append(_Table(hit, sides[0].unit, _gate_words(one.gate, other.gate), passes))
    if only:
        notes.append(f"Only one of the two was evaluated at {', '.join(only)}; these T are left out.")
    return tables


def _gate_words(first: Gate, second: Gate) -> str:
    if first == second:
        return f", only where the image's {first}" if str(first) else ""
    return f", gate of the first: {str(first) or 'none'}, of the second: {str(second) or 'none'}"


def _hits(overlap: Tensor, hit: HitCriterion, t: float) -> Tensor:  # [N, K] -> [N, K] of 1, 0, NaN
    found = hits_at(overlap.flatten(), HitCriterion(hit.measure, hit.inclusive, (t,)))[0].view(overlap.shape)
    return torch.where(overlap.isnan(), torch.nan, found.double())


def _measure(title: str, a: Predictions, first: Statistic, second: Statistic) -> Measure:
    """One measure: per class, and the mean over the classes that both runs have."""
    everything = torch.ones(1, len(a.images), dtype=torch.float64)
    values = [statistic(everything)[0] for statistic in (first, second)]
    found, of_mean = paired_bootstrap_with_mean(second, first, a.patients, resamples=RESAMPLES)
    lines = [Line(name, *(column[k].item() for column in (*values, *found))) for k, name in enumerate(a.class_names)]
    both = ~(values[0].isnan() | values[1].isnan())
    if both.sum() > 1:
        lines.append(Line("mean", *(value[both].mean().item() for value in values), *(c[0].item() for c in of_mean)))
    return Measure(title, lines)


def _different_settings(first: Evaluated, second: Evaluated) -> list[tuple[str, str, str]]:
    from cxrfast.report.html.tables import NONE, configuration

    settings = [dict(configuration(run.run)) for run in (first, second)]
    names = dict.fromkeys([*settings[0], *settings[1]])
    rows = [(name, settings[0].get(name, NONE), settings[1].get(name, NONE)) for name in names]
    return [row for row in rows if row[1] != row[2]]


def _notes(
    first: Evaluated, second: Evaluated, names: tuple[str, str], images: Sequence[str], classes: Sequence[str]
) -> list[str]:
    notes = []
    for run, name in zip((first, second), names, strict=True):
        more = len(run.predictions.images) - len(images)
        if more:
            notes.append(f"{more} images that only {name} evaluated are left out.")
        others = [c for c in run.predictions.class_names if c not in classes]
        if others:
            notes.append(f"Classes that only {name} knows are left out: {', '.join(others)}.")
        if run.record.shared_patients:
            notes.append(f"{name} has seen {run.record.shared_patients} of the evaluated patients in training.")
    return notes


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else _decimal(value)


def _decimal(value: float, sign: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:{sign}.3f}"
