"""Cross-validated methods beside a linear probe on the same folds: AUROC with intervals, differences, boxes, runs."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation import CrossValidationRecord
from cxrfast.evaluation.cross_validation.record import PooledLocalization
from cxrfast.evaluation.record import TableHead
from cxrfast.metrics.bootstrap import (
    Interval,
    PairedDifference,
    bootstrap_interval_with_mean,
    paired_bootstrap_with_mean,
    weighted_auroc,
)
from cxrfast.predictions.table import Predictions, concatenate, read_predictions
from cxrfast.runs import RunDirectory

PROBE = "linear probe"


@dataclass(frozen=True)
class TransferComparison:
    """Predictions of the same images by several models, compared for the classes with enough positives."""

    class_names: tuple[str, ...]  # [K] with at least `positives` images
    n_positive: tuple[int, ...]  # [K]
    n_images: int
    n_patients: int
    auroc: Mapping[str, tuple[Interval, Interval]]  # by name: classes [K], mean [1]
    difference: Mapping[str, PairedDifference]  # by name except the first: mean AUROC minus that of the first [1]
    boxes: Mapping[str, PooledLocalization]  # by name, without the probe


def compare(folders: Mapping[str, Path], probe: Path | None = None, *, positives: int = 10) -> TransferComparison:
    """Compare the finished cross-validations in `folders`, by name, with the `predictions.csv` of a probe.

    The probe comes first. Of several seeds, only the first is used, so that an image counts once. Raises UsageError for
    cross-validations that are not finished or have other test images.
    """
    found = {} if probe is None else {PROBE: read_predictions(probe)}
    pooled = {name: _pooled(folder) for name, folder in folders.items()}
    found |= {name: _predictions(folder, pooled[name]) for name, folder in folders.items()}
    first = next(iter(found.values()))
    names = [
        name
        for k, name in enumerate(first.class_names)
        if (first.labels[:, k] == 1).sum() >= positives and all(name in of.class_names for of in found.values())
    ]
    aligned = {name: _in_order(of.of_classes(names), first, name) for name, of in found.items()}
    statistics = {name: weighted_auroc(of.prob, of.labels) for name, of in aligned.items()}
    patients = list(first.patients)
    base, *others = statistics
    return TransferComparison(
        class_names=tuple(names),
        n_positive=tuple((next(iter(aligned.values())).labels == 1).sum(dim=0).tolist()),
        n_images=len(patients),
        n_patients=len(set(patients)),
        auroc={name: bootstrap_interval_with_mean(of, patients) for name, of in statistics.items()},
        difference={
            name: paired_bootstrap_with_mean(statistics[name], statistics[base], patients)[1] for name in others
        },
        boxes={name: of.localization for name, of in pooled.items() if of.localization is not None},
    )


def _pooled(folder: Path) -> CrossValidationRecord:
    path = RunDirectory(folder).pooled
    if not path.is_file():
        raise CxrfastError(
            f"{folder}: expected a cross-validation with finished runs; resume it with: cxrfast train --resume {folder}"
        )
    record = CrossValidationRecord.load(path)
    if not record.complete:
        raise UsageError(f"{folder}: expected all runs to be finished, got none of {', '.join(record.missing)}")
    return record


def _predictions(folder: Path, pooled: CrossValidationRecord) -> Predictions:
    seed = min(run.seed for run in pooled.runs)
    runs = [RunDirectory(folder).run(run.run) for run in pooled.runs if run.seed == seed]
    return concatenate([read_predictions(run.predictions()) for run in runs])


def _in_order(found: Predictions, first: Predictions, name: str) -> Predictions:
    """The predictions `found`, with the images in the order of `first`."""
    place = {image: n for n, image in enumerate(found.images)}
    if place.keys() != set(first.images):
        raise UsageError(
            f"{name}: expected the test images of the first, got others; compare cross-validations of the same splits"
        )
    order = [place[image] for image in first.images]
    tables = {key: getattr(found, key)[order] for key in ("prob", "labels", "n_boxes", "iou", "ior")}
    return Predictions(found.class_names, first.images, first.patients, **tables)


def to_markdown(found: TransferComparison) -> str:
    """Two Markdown tables: AUROC of every class with its interval, and the number of boxes found."""
    names = list(found.auroc)
    lines = [_row(["AUROC of pooled folds", "positive", *names]), _row(["---"] * (2 + len(names)))]
    for k, class_name in enumerate(found.class_names):
        cells = [_between(found.auroc[name][0], k) for name in names]
        lines.append(_row([class_name.replace("_", " "), str(found.n_positive[k]), *cells]))
    lines.append(_row(["**mean**", "", *(_between(found.auroc[name][1], 0) for name in names)]))
    differences = [_difference(found.difference.get(name)) for name in names]
    lines.append(_row([f"mean, less {names[0]}'s", "", *differences]))
    if found.boxes:
        lines += ["", *_boxes(found.boxes)]
    return "\n".join(lines) + "\n"


def _boxes(boxes: Mapping[str, PooledLocalization]) -> list[str]:
    first = next(iter(boxes.values()))
    rows = [(t, i, _title(table, row.T)) for t, table in enumerate(first.tables) for i, row in enumerate(table.rows)]
    lines = [_row(["boxes found, of all folds", *boxes]), _row(["---"] * (1 + len(boxes)))]
    for t, i, title in rows:
        cells = []
        for found in boxes.values():
            classes = found.tables[t].rows[i].classes.values()
            hits = sum(sum(row.hits) for row in classes)
            cells.append(f"{hits} of {sum(sum(row.n_annotated) for row in classes)}")
        lines.append(_row([title, *cells]))
    return lines


def _title(table: TableHead, t: float) -> str:
    gate = f", where the image's {table.gate}" if str(table.gate) else ""
    return f"{table.measure_name} {table.relation} {t:g}{gate}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _between(of: Interval, k: int) -> str:
    value, low, high = (ends[k].item() for ends in of)
    return f"{value:.3f}" + ("" if math.isnan(low) else f" ({low:.2f}–{high:.2f})")


def _difference(of: PairedDifference | None) -> str:
    if of is None:
        return ""
    difference, low, high, p = (value.item() for value in of)
    significance = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"{difference:+.3f} ({low:+.2f} to {high:+.2f}), {significance}"


def runs_csv(folders: Mapping[str, Path]) -> str:
    """CSV with one line per run: numbers of images, AUROCs, boxes found, training time."""
    text = io.StringIO()
    writer: Any = None
    for name, folder in folders.items():
        pooled = _pooled(folder)
        for n, run in enumerate(pooled.runs):
            rows = RunDirectory(folder).run(run.run).read_metrics()
            line = {
                "row": name,
                "method": pooled.method,
                **{key: getattr(run, key) for key in ("fold", "seed", "n_images", "n_patients")},
                "epochs": len(rows),
                "training_seconds": round(sum(row["seconds"] for row in rows)),
                "mean_auroc": _number(pooled.mean.auroc.values[n]),
                **{f"auroc {name}": _number(row.auroc.values[n]) for name, row in pooled.classes.items()},
                **_found(pooled.localization, n),
            }
            if writer is None:
                writer = csv.DictWriter(text, list(line), lineterminator="\n")
                writer.writeheader()
            writer.writerow(line)
    return text.getvalue()


def _found(localization: PooledLocalization | None, run: int) -> dict[str, Any]:
    """Number of boxes that a run found according to the first table of the protocol, for each T."""
    if localization is None:
        return {}
    rows = localization.tables[0].rows
    counts = {f"found at {row.T:g}": sum(of.hits[run] for of in row.classes.values()) for row in rows}
    return {"boxes": sum(of.n_annotated[run] for of in rows[0].classes.values()), **counts}


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
