"""`evaluate` for what `train` has left: a run's folder, one part of its split, its data or others."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cxrfast.data import Record, Splits, XrayDataset, read_chestxray14
from cxrfast.errors import UsageError
from cxrfast.evaluation import (
    EvaluationResult,
    Facts,
    collect_answers,
    find_protocol,
    fit_temperature,
    score_answers,
    write_maps,
)
from cxrfast.report import from_result, report_path, write_report
from cxrfast.training.config import RunConfig, build_config, load_config
from cxrfast.training.predictor import TrainedModel, load_predictor
from cxrfast.training.run import RunDirectory


class Assessment(NamedTuple):
    """Numbers, and where they were written."""

    result: EvaluationResult
    report: Path
    predictions: Path
    maps: Path
    page: Path | None  # report.html


def evaluate_run(
    checkpoint: Path | None = None,
    *,
    data: Path | None = None,
    split: str = "test",
    labels: str | None = None,
    protocol: str = "strict",
    thresholds: Sequence[float] = (),
    batch_size: int = 16,
    workers: int = 0,
    device: str = "auto",
    out: Path | None = None,
    method: str | None = None,
    page: bool = True,
) -> Assessment:
    """Evaluate weights (default: the latest run's best) on `split` of the run that they belong to.

    With `data`, another data set is evaluated as a whole: the run's split says nothing about its images. `thresholds`
    replace the protocol's T. On the run's test part, a temperature is fitted on its validation part, for the output
    `prob_calibrated`. The report, `predictions.csv`, `maps.npz` and, with `page`, `report.html` go to the run's folder,
    or to `out`.

    Raises UsageError if the weights belong to no run and neither `data` nor `out` is given; CxrfastError for data,
    weights or a splits file that do not fit.
    """
    rules = find_protocol(protocol)
    if thresholds:
        rules = rules.with_thresholds(*thresholds)
    model = load_predictor(checkpoint, device=device, expected_method=method)
    run = _run_of(Path(model.weights))
    config = build_config(load_config(run.config)) if run is not None else None
    if data is None and config is None:
        raise UsageError(f"data: {model.weights} lies in no run's folder; name the data set with --data")
    if out is None:
        if run is None:
            raise UsageError(f"out: {model.weights} lies in no run's folder; say where to write with --out")
        out = run.path
    version = labels or (config.labels if config is not None else "auto")
    source = read_chestxray14(data or config.data, labels=version)  # type: ignore[union-attr]
    part, temperature = Part(list(source.records), "all"), None
    if run is not None and config is not None and _same_data(data, config):
        splits = Splits.load(run.splits)
        splits.check(source.records)
        part = _part(splits, split, source.records)
        validation = splits.part("val", source.records)
        if split == "test" and validation:
            scored = collect_answers(model, _dataset(validation, model), batch_size=batch_size, workers=workers)
            temperature = fit_temperature(scored.scores, scored.truth.labels)
    answers = collect_answers(model, _dataset(part.records, model), batch_size=batch_size, workers=workers)
    facts = Facts(
        split=part.name,
        label_version=source.label_version,
        method=model.method,
        weights=model.weights,
        split_hash=part.split_hash,
        training_patients=part.training_patients,
    )
    result = score_answers(rules, answers, facts, temperature=temperature)
    suffix = "" if part.name == "test" else f"-{part.name}"
    report = out / f"evaluation-{part.name}.json"
    predictions, maps = out / f"predictions{suffix}.csv", out / f"maps{suffix}.npz"
    result.save(report)
    result.predictions.write_csv(predictions)
    write_maps(maps, answers.maps, answers.truth.images, answers.truth.class_names, answers.own)
    html = report_path(out, part.name) if page else None
    if html is not None:
        write_report(from_result(result, source.records, None if run is None else run.path), html)
    return Assessment(result, report, predictions, maps, html)


class Part(NamedTuple):
    """Images to evaluate, and what training has seen."""

    records: list[Record]
    name: str
    split_hash: str | None = None
    training_patients: frozenset[str] | None = None


def _part(splits: Splits, name: str, records: Sequence[Record]) -> Part:
    """Training has seen the training part; for the test part, validation has chosen among its models, too."""
    seen = ("train", "val") if name == "test" else ("train",)
    patients = frozenset(record.patient for part in seen for record in splits.part(part, records))
    return Part(splits.part(name, records), name, splits.hash, patients)


def _run_of(weights: Path) -> RunDirectory | None:
    run = RunDirectory(weights.parent.parent)
    return run if run.config.is_file() else None


def _same_data(data: Path | None, config: RunConfig) -> bool:
    return data is None or data.resolve() == config.data.resolve()


def _dataset(records: list[Record], model: TrainedModel) -> XrayDataset:
    return XrayDataset(records, model.class_names, model.image_size)
