"""`evaluate` for what `train` has left: a run's folder, one part of its split, its data or others."""

from pathlib import Path
from typing import NamedTuple

from cxrfast.data import Record, Splits, XrayDataset, read_chestxray14
from cxrfast.errors import UsageError
from cxrfast.evaluation import EvaluationResult, evaluate
from cxrfast.training.config import RunConfig, build_config, load_config
from cxrfast.training.predictor import TrainedModel, load_predictor
from cxrfast.training.run import RunDirectory


class Assessment(NamedTuple):
    """Numbers, and where they were written."""

    result: EvaluationResult
    report: Path
    predictions: Path


def evaluate_run(
    checkpoint: Path | None = None,
    *,
    data: Path | None = None,
    split: str = "test",
    labels: str | None = None,
    iou_threshold: float = 0.1,
    threshold_folds: int | None = None,
    batch_size: int = 16,
    workers: int = 0,
    device: str = "auto",
    out: Path | None = None,
    method: str | None = None,
) -> Assessment:
    """Evaluate weights (default: the latest run's best) on `split` of the run that they belong to.

    With `data`, another data set is evaluated as a whole: the run's split says nothing about its images. The report and
    `predictions.csv` go to the run's folder, or to `out`.

    Raises UsageError if the weights belong to no run and neither `data` nor `out` is given; CxrfastError for data,
    weights or a splits file that do not fit.
    """
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
    if run is not None and config is not None and _same_data(data, config):
        splits = Splits.load(run.splits)
        splits.check(source.records)
        records, name, split_hash = splits.part(split, source.records), split, splits.hash
    else:
        records, name, split_hash = list(source.records), "all", None
    result = evaluate(
        model,
        _dataset(records, model),
        split=name,
        label_version=source.label_version,
        split_hash=split_hash,
        iou_threshold=iou_threshold,
        threshold_folds=threshold_folds,
        batch_size=batch_size,
        workers=workers,
    )
    report = out / f"evaluation-{name}.json"
    predictions = out / ("predictions.csv" if name == "test" else f"predictions-{name}.csv")
    result.save(report)
    result.predictions.write_csv(predictions)
    return Assessment(result, report, predictions)


def _run_of(weights: Path) -> RunDirectory | None:
    run = RunDirectory(weights.parent.parent)
    return run if run.config.is_file() else None


def _same_data(data: Path | None, config: RunConfig) -> bool:
    return data is None or data.resolve() == config.data.resolve()


def _dataset(records: list[Record], model: TrainedModel) -> XrayDataset:
    return XrayDataset(records, model.class_names, model.image_size)
