"""What the evaluations of a cross-validation's runs have left, read back, and which of them belong together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrfast.errors import CxrfastError
from cxrfast.predictions.table import Predictions, read_predictions


@dataclass(frozen=True, eq=False)
class RunNumbers:
    """What the evaluation of one run has left."""

    name: str  # "fold-0/seed-0"
    fold: int
    seed: int
    report: Mapping[str, Any]  # EvaluationResult.to_dict()
    predictions: Predictions  # of the classes of the report, in its order

    @classmethod
    def load(cls, name: str, fold: int, seed: int, report: Path, predictions: Path) -> "RunNumbers":
        """From `evaluation-test.json` and `predictions.csv`; CxrfastError, in one line, if they do not fit together."""
        try:
            numbers = json.loads(report.read_text(encoding="utf-8"))
            found = read_predictions(predictions).of_classes(list(numbers["classes"]))
        except (OSError, TypeError, ValueError, KeyError) as error:
            raise CxrfastError(f"{report} or {predictions} cannot be read ({error}); evaluate the run again") from error
        if len(found.images) != numbers["n_images"]:
            raise CxrfastError(f"{predictions} does not belong to {report}; evaluate the run again")
        return cls(name, fold, seed, numbers, found)

    def annotated(self, class_name: str) -> int:
        """Test annotations of the class: the denominator."""
        return self.report["classes"][class_name]["n_annotated"]

    @property
    def tables(self) -> list[dict[str, Any]]:
        """Of the localisation; none if no test image has a box of the classes."""
        return self.report["localization"]["tables"] if self.report["localization"] else []

    @property
    def detection(self) -> Mapping[str, Any] | None:
        """None without regions, without boxes to find, and in results of before there was one."""
        return self.report.get("detection")


def one_of_each_fold(runs: Sequence[RunNumbers]) -> list[RunNumbers]:
    """Every test image once: the seeds of a fold have the same."""
    return list({run.fold: run for run in reversed(runs)}.values())


def by_seed(runs: Sequence[RunNumbers]) -> list[list[RunNumbers]]:
    groups: dict[int, list[RunNumbers]] = {}
    for run in runs:
        groups.setdefault(run.seed, []).append(run)
    return list(groups.values())


def check_alike(runs: Sequence[RunNumbers]) -> None:
    def kind(run: RunNumbers) -> Any:
        return run.report["protocol"], run.report["label_version"], list(run.report["classes"])

    def tables(run: RunNumbers) -> Any:
        return [(t["measure"], t["relation"], t["gate"], [row["T"] for row in t["rows"]]) for t in run.tables]

    def detection(run: RunNumbers) -> Any:
        found = run.detection
        names = ("iou_threshold", "false_positives_per_image")
        return found and [found["iou_thresholds"], *(found["froc"][name] for name in names)]

    for what in (kind, tables, detection):
        having = [run for run in runs if what(run)]  # others have no boxes to find
        for run in having:
            if what(run) != what(having[0]):
                raise CxrfastError(
                    f"{run.name} was evaluated otherwise than {having[0].name} (protocol, T, labels or classes); "
                    "evaluate the folder of folds again"
                )
