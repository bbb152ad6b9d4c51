"""The stored evaluations of the runs of a cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrfast.errors import CxrfastError
from cxrfast.evaluation.record import AccuracyTableRecord, EvaluationRecord
from cxrfast.evaluation.scoring import images_hash
from cxrfast.predictions.table import Predictions, read_predictions


@dataclass(frozen=True, eq=False)
class FoldEvaluation:
    """The stored evaluation of one run, with its predictions."""

    name: str  # "fold-0/seed-0"
    fold: int
    seed: int
    record: EvaluationRecord
    predictions: Predictions  # of the classes of the record, in its order

    @classmethod
    def load(cls, name: str, fold: int, seed: int, report: Path, predictions: Path) -> "FoldEvaluation":
        """Read `evaluation-test.json` and `predictions.csv`; CxrfastError if they do not belong together."""
        record = EvaluationRecord.load(report)
        try:
            found = read_predictions(predictions).of_classes(list(record.class_names))
        except (ValueError, KeyError) as error:
            raise CxrfastError(
                f"{predictions} does not belong to {report} ({error}); evaluate the run again"
            ) from error
        if len(found.images) != record.n_images or images_hash(found.images) != record.images_hash:
            raise CxrfastError(f"{predictions} does not belong to {report}; evaluate the run again")
        return cls(name, fold, seed, record, found)

    def annotated(self, class_name: str) -> int:
        """Number of test annotations of the class: the denominator of its accuracy."""
        return self.record.classes[class_name].n_annotated

    @property
    def tables(self) -> tuple[AccuracyTableRecord, ...]:
        """The localisation tables; empty if no test image has a box of the classes."""
        return self.record.localization.tables if self.record.localization else ()


def one_of_each_fold(runs: Sequence[FoldEvaluation]) -> list[FoldEvaluation]:
    """One run per fold, so that every test image occurs once: all seeds of a fold have the same test images."""
    return list({run.fold: run for run in reversed(runs)}.values())


def by_seed(runs: Sequence[FoldEvaluation]) -> list[list[FoldEvaluation]]:
    """The runs grouped by seed."""
    groups: dict[int, list[FoldEvaluation]] = {}
    for run in runs:
        groups.setdefault(run.seed, []).append(run)
    return list(groups.values())


def check_alike(runs: Sequence[FoldEvaluation]) -> None:
    """Raise CxrfastError unless all runs were evaluated by the same protocol, T, labels and classes."""

    def kind(run: FoldEvaluation) -> Any:
        return run.record.protocol, run.record.label_version, run.record.class_names

    def tables(run: FoldEvaluation) -> Any:
        return [(t.measure, t.inclusive, t.gate, [row.T for row in t.rows]) for t in run.tables]

    def detection(run: FoldEvaluation) -> Any:
        found = run.record.detection
        return found and (found.iou_thresholds, found.froc.iou_threshold, found.froc.false_positives_per_image)

    for what in (kind, tables, detection):
        having = [run for run in runs if what(run)]  # the others have no annotated boxes
        for run in having:
            if what(run) != what(having[0]):
                raise CxrfastError(
                    f"{run.name} was evaluated otherwise than {having[0].name} (protocol, T, labels or classes); "
                    "evaluate the folder of folds again"
                )
