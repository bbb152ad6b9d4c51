"""The content of a report: one evaluation, and the files of the run that its model is from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cxrfast.data.datasets.interface import DataOptions, DataSource
from cxrfast.data.datasets.registry import read_data
from cxrfast.data.records import Record
from cxrfast.data.splits import PARTS
from cxrfast.errors import CxrfastError
from cxrfast.evaluation.ground_truth import GroundTruth
from cxrfast.evaluation.offline import read_maps
from cxrfast.evaluation.record import EvaluationRecord, Gate, NoGate, ScoreGate
from cxrfast.evaluation.result import EvaluationResult
from cxrfast.evaluation.scoring import images_hash
from cxrfast.evaluation.sources import Source
from cxrfast.predictions.table import Predictions, read_predictions
from cxrfast.regions.rule import MethodDefaults
from cxrfast.runs.directory import RunDirectory


@dataclass(frozen=True)
class RunFacts:
    """Content of a run's folder. All fields are empty for predictions from files."""

    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()  # one row for every epoch
    parts: dict[str, Sequence[str]] = field(default_factory=dict)  # "train", "val", "test" -> names of images
    split: dict[str, Any] = field(default_factory=dict)  # seed, strategy, notes


@dataclass(frozen=True)
class Evaluated:
    """One evaluation with everything that a report shows. Without the data set, cases are missing."""

    record: EvaluationRecord
    predictions: Predictions
    run: RunFacts
    ground_truth: GroundTruth | None = None
    source: Source | None = None
    own: MethodDefaults | None = None
    records: Mapping[str, Record] = field(default_factory=dict)  # of the whole data set, by image name
    notes: tuple[str, ...] = ()  # what is missing, and why

    @property
    def title(self) -> str:
        """Name of the run's folder, or of the first evaluated file."""
        return self.run.name or Path(next(iter(self.record.prediction_files), self.record.weights)).name


def from_result(result: EvaluationResult, records: Sequence[Record], folder: Path | None = None) -> Evaluated:
    """Build from a new evaluation. ``folder`` is the folder of its run; None for predictions from files."""
    return Evaluated(
        record=result.record,
        predictions=result.predictions,
        run=RunFacts() if folder is None else read_run(folder),
        ground_truth=result.ground_truth,
        source=result.source,
        own=result.own,
        records={record.image: record for record in records},
    )


def from_predictions(result: EvaluationResult, data: Path) -> Evaluated:
    """Build from a new evaluation of files against the data set in ``data``."""
    return from_result(result, _source(data, result.record).records)


def from_folder(folder: Path, *, split: str = "test", data: Path | None = None) -> Evaluated:
    """Build from the files that `cxrfast evaluate` wrote to a run's folder.

    ``data`` is the folder of the data set, if it has moved. If it cannot be read, the report has no cases, and
    ``notes`` says so. Raises :class:`CxrfastError` if the folder has no evaluation of ``split``.
    """
    if not folder.is_dir():
        raise CxrfastError(f"run: expected a folder, got {folder}, which does not exist")
    run = RunDirectory(folder)
    path, table = run.evaluation(split), run.predictions(split)
    if not path.is_file():
        again = f"cxrfast evaluate {folder}" + ("" if split == "test" else f" --split {split}")
        raise CxrfastError(f"{folder}: expected an evaluation of the {split} part, got no {path.name}; run: {again}")
    record = EvaluationRecord.load(path)
    predictions = read_predictions(table)
    if set(record.class_names) != set(predictions.class_names):
        raise CxrfastError(f"{path} and {table.name} have different classes; evaluate again")
    predictions = predictions.of_classes(record.class_names)
    annotations = record.localization.annotations if record.localization else ()
    same = record.images_hash == images_hash(predictions.images)
    if not same or not {annotation.image for annotation in annotations} <= set(predictions.images):
        raise CxrfastError(
            f"{path}: expected the {len(predictions.images)} images of {table.name}, got {record.n_images} others; "
            "evaluate again"
        )
    evaluated = Evaluated(record, predictions, read_run(folder))
    known = record.data.path if record.data is not None else evaluated.run.config.get("data")
    where = data or known
    if where is None:
        return replace(evaluated, notes=("No cases are shown: the data set is not known (--data).",))
    try:
        source = _source(Path(where), record)
    except CxrfastError as error:
        return replace(evaluated, notes=(f"No cases are shown: {error}",))
    return _with_data(evaluated, source.records, run.maps(split))


def _source(data: Path, record: EvaluationRecord) -> DataSource:
    """The data set as the evaluation read it, with the class names of the evaluation."""
    earlier = DataOptions(labels=record.label_version, images_required=False)  # versions that knew one layout
    options = earlier if record.data is None else record.data.options()
    return read_data(data, options).for_classes(record.class_names)


def _with_data(evaluated: Evaluated, records: Sequence[Record], maps: Path) -> Evaluated:
    by_name = {record.image: record for record in records}
    evaluated = replace(evaluated, records=by_name)
    missing = [image for image in evaluated.predictions.images if image not in by_name]
    if missing:
        note = f"No cases are shown: the data set lacks {len(missing)} of the evaluated images (first: {missing[0]})."
        return replace(evaluated, notes=(note,))
    ground_truth = GroundTruth.from_records(
        [by_name[image] for image in evaluated.predictions.images], evaluated.predictions.class_names
    )
    evaluated = replace(evaluated, ground_truth=ground_truth)
    if not maps.is_file():
        return replace(evaluated, notes=(f"No cases are shown: {maps.name} is missing.",))
    source, own = read_maps(maps, ground_truth)
    return replace(evaluated, source=source, own=own)


def passes_gate(gate: Gate, run: Evaluated, predictions: Predictions) -> Tensor:  # [N, K] bool
    """Which images and classes pass a gate. ``predictions`` are those of the run, or a subset of them."""
    scores = predictions.prob.nan_to_num(0.5)  # missing scores, as in the evaluation
    if isinstance(gate, NoGate):
        return torch.ones_like(scores, dtype=torch.bool)
    if isinstance(gate, ScoreGate):
        return scores > gate.score
    points = [run.record.classes[name].operating_point for name in predictions.class_names]
    return scores.double() >= torch.tensor(points, dtype=torch.float64)


def read_run(folder: Path) -> RunFacts:
    """Read the files that exist in a run's folder; none is required."""
    run = RunDirectory(folder)
    splits = run.read_splits()
    parts: dict[str, Sequence[str]] = {part: splits.pop(part) for part in PARTS if part in splits}
    return RunFacts(
        name=run.name,
        config=run.read_config() if run.exists else {},
        environment=run.read_environment(),
        metrics=run.read_metrics(),
        parts=parts,
        split=splits,
    )
