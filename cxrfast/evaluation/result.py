"""The numbers of one evaluation, with all that is needed to compare them: as JSON, and as a table for a terminal."""

import json
import math
import os
import textwrap
from dataclasses import dataclass
from typing import Any

from cxrfast._files import write_text
from cxrfast.evaluation.metrics import Mean, mean_without_nan
from cxrfast.evaluation.predictions import Predictions

WIDTH = 100  # columns of the table


@dataclass(frozen=True)
class EvaluationResult:
    """Per class (tuples of K) and on average. NaN: the class has nothing to compute the number from."""

    protocol: str  # for example "rozenberg2019"
    split: str  # name of the split
    split_hash: str | None  # of the file of splits that it is from, if it is from one
    images_hash: str  # of the names of the images that were evaluated
    label_version: str  # of the labels compared with
    method: str
    weights: str
    region_rule: str  # how positive patches become regions
    region_threshold: tuple[float, ...]  # per class: the value of the map from which a patch is positive
    iou_threshold: float  # T
    class_names: tuple[str, ...]
    n_images: int
    n_positive: tuple[int, ...]
    n_negative: tuple[int, ...]
    auroc: tuple[float, ...]
    n_boxed: tuple[int, ...]  # images on which the class has a box: the denominators of the next two
    iou_accuracy: tuple[float, ...]
    ior_accuracy: tuple[float, ...]
    predictions: Predictions

    @property
    def mean_auroc(self) -> Mean:
        return mean_without_nan(self.auroc, self.class_names)

    @property
    def mean_iou_accuracy(self) -> Mean:
        return mean_without_nan(self.iou_accuracy, self.class_names)

    @property
    def mean_ior_accuracy(self) -> Mean:
        return mean_without_nan(self.ior_accuracy, self.class_names)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the table of predictions; None for NaN, which JSON does not know."""
        per_class = ("region_threshold", "n_positive", "n_negative", "auroc", "n_boxed", "iou_accuracy", "ior_accuracy")
        means = {
            "auroc": self.mean_auroc,
            "iou_accuracy": self.mean_iou_accuracy,
            "ior_accuracy": self.mean_ior_accuracy,
        }
        facts = ("protocol", "split", "split_hash", "images_hash", "label_version", "method", "weights")
        return {
            **{name: getattr(self, name) for name in (*facts, "region_rule", "iou_threshold", "n_images")},
            "unreadable": dict(self.predictions.unreadable),
            "classes": {
                class_name: {name: _none(getattr(self, name)[k]) for name in per_class}
                for k, class_name in enumerate(self.class_names)
            },
            "mean": {name: {"value": _none(m.value), "left_out": list(m.left_out)} for name, m in means.items()},
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def save(self, path: str | os.PathLike) -> None:
        """Write the JSON to ``path``."""
        write_text(path, self.to_json())

    def to_text(self) -> str:
        """The table, 100 columns wide at most."""
        t = f"{self.iou_threshold:g}"
        header = ("", "positive", "AUROC", "with box", f"IoU ≥ {t}", f"IoR ≥ {t}")
        rows = [
            (name, str(n_positive), _decimal(auroc), str(n_boxed), _decimal(iou), _decimal(ior))
            for name, n_positive, auroc, n_boxed, iou, ior in zip(
                self.class_names,
                self.n_positive,
                self.auroc,
                self.n_boxed,
                self.iou_accuracy,
                self.ior_accuracy,
                strict=True,
            )
        ]
        means = [_decimal(m.value) for m in (self.mean_auroc, self.mean_iou_accuracy, self.mean_ior_accuracy)]
        table = _table([header, *rows, ("mean", "", means[0], "", *means[1:])])
        rule = "-" * len(table[0])
        lines = [*self._facts(), "", table[0], rule, *table[1:-1], rule, table[-1]]
        return "\n".join([*lines, *self._remarks()]) + "\n"

    def _facts(self) -> list[str]:
        split = f", splits {self.split_hash[:12]}" if self.split_hash else ""
        facts = (
            f"{self.method} on {self.split}: {self.n_images} images, labels {self.label_version}{split}",
            f"weights {self.weights}",
            f"protocol {self.protocol}: region = {self.region_rule}{self._thresholds()}",
        )
        return [line for fact in facts for line in _wrap(fact)]

    def _thresholds(self) -> str:
        if "the threshold" not in self.region_rule:  # it has levels of its own
            return ""
        low, high = min(self.region_threshold), max(self.region_threshold)
        return f" {low:.3g}" if low == high else f" of the class, {low:.3g} to {high:.3g}"

    def _remarks(self) -> list[str]:
        """Which classes are not in the means, and which images are in nothing."""
        lines = []
        for what, mean, why in (
            ("AUROC", self.mean_auroc, "without positives or without negatives"),
            ("IoU and IoR", self.mean_iou_accuracy, "without boxes"),
        ):
            if mean.left_out:
                lines += ["", *_wrap(f"not in the mean of {what} ({why}): {', '.join(mean.left_out)}")]
        unreadable = self.predictions.unreadable
        if unreadable:
            lines += ["", f"{len(unreadable)} of the split's images could not be read and are not in these numbers:"]
            lines += [line for why in unreadable.values() for line in _wrap(why, indent="  ")]
        return lines


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """First column to the left, numbers to the right; a very long class name is cut."""
    others = [max(len(row[c]) for row in rows) + 2 for c in range(1, len(rows[0]))]
    first = min(max(len(row[0]) for row in rows), WIDTH - sum(others))
    return [
        _cut(row[0], first).ljust(first)
        + "".join(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))
        for row in rows
    ]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False)


def _decimal(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _none(value: float) -> float | None:
    return None if math.isnan(value) else value
