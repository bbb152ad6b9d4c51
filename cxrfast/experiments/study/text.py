"""Renders a study as Markdown tables, and its runs as CSV."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from cxrfast._files import write_text
from cxrfast.experiments.study.results import MEASURES, Difference, SeedValues, StudyOutcome, StudyResult


def to_markdown(result: StudyResult) -> str:
    """Two tables: all rows, and the contributions."""
    seeds = ", ".join(str(seed) for seed in result.study.seeds)
    parts = [
        f"{result.study.images} phantoms per seed; seeds {seeds}. Values are means over classes on the test images, "
        "given as mean (minimum to maximum) over the seeds. The best mean of a column among equal shares is bold.",
        _table(result),
    ]
    if result.differences:
        parts += [
            "Effect of each contribution: the mean difference over the seeds, its 95 % interval and p-value by the "
            "paired test on the patients of all test images, and the difference for each seed.",
            _contributions(result.differences),
        ]
    return "\n\n".join(parts) + "\n"


def share_text(share: float) -> str:
    return f"{100 * share:g} %"


def _table(result: StudyResult) -> str:
    lines = [
        f"| annotated | images with boxes | method | {' | '.join(MEASURES.values())} |",
        "|---|---|---|" + "---|" * len(MEASURES),
    ]
    for line in result.lines:
        rivals = [other for other in result.lines if other.share == line.share]
        cells = [
            _cell(line.numbers[name], max((other.numbers[name].mean for other in rivals), default=math.nan))
            for name in MEASURES
        ]
        annotated = "–" if line.share == 0 else _range(line.annotated)
        seeds = "" if len(line.seeds) == len(result.study.seeds) else f" ({len(line.seeds)} seeds)"
        lines.append(f"| {share_text(line.share)} | {annotated} | {line.row.title}{seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _range(spread: SeedValues) -> str:
    low, high = (f"{value:.0f}" for value in (min(spread.values), max(spread.values)))
    return low if low == high else f"{low} to {high}"


def _cell(spread: SeedValues, best: float) -> str:
    if math.isnan(spread.mean):
        return "–"
    mean = f"{spread.mean:.3f}"
    text = f"**{mean}**" if spread.mean == best else mean
    return text if len(spread.values) == 1 else f"{text} ({min(spread.values):.3f} to {max(spread.values):.3f})"


def _contributions(differences: Sequence[Difference]) -> str:
    lines = [
        "| contribution | annotated | measure | difference | 95 % | p | by seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in differences:
        interval = "–" if math.isnan(one.low) else f"{one.low:+.3f} to {one.high:+.3f}"
        p = "–" if math.isnan(one.p_value) else "<0.001" if one.p_value < 0.001 else f"{one.p_value:.3f}"
        by_seed = ", ".join(f"{value:+.3f}" for value in one.per_seed)
        lines.append(
            f"| {one.contribution} | {share_text(one.share)} | {MEASURES[one.measure]} | {one.difference:+.3f} "
            f"| {interval} | {p} | {by_seed} |"
        )
    return "\n".join(lines)


def write_runs(path: Path, outcomes: Sequence[StudyOutcome]) -> None:
    """Write a CSV file with one row per run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "annotated", "seed", "images_with_boxes", *(name.replace(" ", "_") for name in MEASURES)])
    for outcome in outcomes:
        cell = outcome.cell
        numbers = ["" if math.isnan(outcome.numbers[name]) else f"{outcome.numbers[name]:.4f}" for name in MEASURES]
        writer.writerow([cell.row.name, f"{cell.share:g}", cell.seed, outcome.annotated, *numbers])
    write_text(path, text.getvalue())
