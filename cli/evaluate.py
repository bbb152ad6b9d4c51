"""`cxrfast evaluate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cxrfast.cli.options import (
    BatchSize,
    Checkpoint,
    ClassMap,
    Data,
    Dataset,
    Device,
    ImageViews,
    Labels,
    Readers,
    UncertainLabels,
    Workers,
    build_data_options,
    data_settings,
)
from cxrfast.cli.output import echo
from cxrfast.errors import UsageError


def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Folder of a run or of a cross-validation; default: the latest run."),
    ] = None,
    checkpoint: Checkpoint = None,
    data: Data = None,
    split: Annotated[
        str,
        typer.Option("--split", help="Part to evaluate: train, val or test, of the run's splits.json or of --splits."),
    ] = "test",
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            help="strict, own, rozenberg2019, li2018, seibold2020, zhang2020, zhang2020-pooled or wang2017; default: "
            "the cross-validation's, else strict.",
        ),
    ] = None,
    iou_threshold: Annotated[
        list[float] | None,
        typer.Option(
            "--iou-threshold", "-T", help="Overlap threshold T of a hit. Repeatable; default: the protocol's."
        ),
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(
            "--predictions",
            help="Predictions to evaluate instead of a model: .csv, COCO .json or .npz maps. Repeatable; requires "
            "--data.",
        ),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option("--splits", help="With --predictions: splits.json file; only the part --split is evaluated."),
    ] = None,
    dataset: Dataset = None,
    labels: Labels = None,
    uncertain: UncertainLabels = None,
    readers: Readers = None,
    views: ImageViews = None,
    map_: ClassMap = None,
    method: Annotated[
        str | None,
        typer.Option("--method", help="Expected method; weights of other methods are rejected."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Output folder; default: the run's folder; with --predictions, a new folder beside the file.",
        ),
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html as well.")] = True,
    batch_size: BatchSize = None,
    workers: Workers = None,
    device: Device = None,
) -> None:
    """Measure AUROC and localisation accuracy by a named protocol.

    A run is evaluated on the test part of its own data; with --data, on all images of another data set. The runs of a
    cross-validation are evaluated one by one, and the results are pooled. With --predictions, files of predictions
    are evaluated instead of a model.
    """
    if run is not None and checkpoint is not None:
        raise UsageError(f"checkpoint: expected one model, got {checkpoint} and the run {run}; leave one out")
    given = data_settings(dataset, labels, uncertain, readers, views, map_)
    if predictions:
        rules, model = protocol or "strict", run or checkpoint
        _evaluate_files(
            predictions, data, splits, split, build_data_options(given), rules, iou_threshold or [], out, model, report
        )
        return
    if splits is not None:
        raise UsageError("splits: expected only with --predictions; a run has its own splits.json")
    from cxrfast.experiments.cross_validation import evaluate_folds
    from cxrfast.experiments.evaluate_run import evaluate_run
    from cxrfast.report.terminal import cross_validation_to_text, evaluation_to_text
    from cxrfast.runs import RunDirectory

    common: dict[str, Any] = {
        "thresholds": iou_threshold or (),
        "batch_size": batch_size or 16,
        "workers": workers or 0,
        "device": device or "auto",
        "out": out,
        "method": method,
    }
    folder = checkpoint or run
    if folder is not None and RunDirectory(folder).is_cross_validation:
        for name, value, default in (
            ("data", data, None),
            ("split", split, "test"),
            *((n, v, None) for n, v in given.items()),
        ):
            if value != default:
                raise UsageError(
                    f"{name}: not for a cross-validation, whose folds are evaluated on their own test images; leave "
                    f"out --{name}"
                )
        pooled = evaluate_folds(folder, protocol=protocol, page=report, **common)
        echo(cross_validation_to_text(pooled.result))
        echo(f"written: {pooled.report}, and results in the folders of its runs")
        unreadable = pooled.result.unreadable
    else:
        assessment = evaluate_run(
            folder,
            data=data,
            split=split,
            options=build_data_options(given) if given else None,
            protocol=protocol or "strict",
            page=report,
            **common,
        )
        echo(evaluation_to_text(assessment.result))
        written = [assessment.report, assessment.predictions, assessment.maps, assessment.page]
        echo(f"written: {', '.join(str(path) for path in written if path is not None)}")
        unreadable = assessment.result.predictions.unreadable
    if unreadable:
        raise typer.Exit(1)


def _evaluate_files(
    predictions: list[Path],
    data: Path | None,
    splits: Path | None,
    split: str,
    options: Any,
    protocol: str,
    thresholds: list[float],
    out: Path | None,
    model: Path | None,
    page: bool,
) -> None:
    if model is not None:
        raise UsageError(
            f"predictions: expected predictions or a model, got {predictions[0]} and the model {model}; leave one out"
        )
    if data is None:
        raise UsageError("data: expected the folder with labels and boxes for --predictions, got none; add --data DIR")
    if splits is None and split != "test":
        raise UsageError(f"split: expected a splits.json file for {split}, got none; add --splits FILE")
    first, part = predictions[0], "all" if splits is None else split
    folder = out or first.parent / f"{first.stem}-{first.suffix[1:].lower()}-{protocol}"
    from cxrfast.runs import RunDirectory

    place = RunDirectory(folder)
    written = [place.evaluation(part), place.predictions(part)]
    _refuse_other(written[0], predictions, protocol)
    from cxrfast.evaluation.offline import evaluate_data_set
    from cxrfast.report.terminal import evaluation_to_text

    result = evaluate_data_set(
        predictions, data, splits=splits, split=split, options=options, protocol=protocol, thresholds=thresholds
    )
    echo(evaluation_to_text(result))
    result.save(written[0])
    result.predictions.write_csv(written[1])
    if page:
        from cxrfast.report import from_predictions, write_report

        written.append(place.report(part))
        write_report(from_predictions(result, data), written[-1])
    echo(f"written: {', '.join(str(path) for path in written)}")


def _refuse_other(report: Path, predictions: list[Path], protocol: str) -> None:
    """Raise UsageError rather than overwrite an unreadable file or an evaluation of other files or protocols."""
    from cxrfast.errors import CxrfastError
    from cxrfast.evaluation import EvaluationRecord

    if not report.exists():
        return
    try:
        known = EvaluationRecord.load(report)
    except CxrfastError as error:
        raise UsageError(f"out: {error}, into another folder with --out, or delete it") from error
    there = f"{', '.join(known.prediction_files) or known.weights} by {known.protocol}"
    if there != f"{', '.join(map(str, predictions))} by {protocol}":
        raise UsageError(
            f"out: expected a new folder, got {report} with the evaluation of {there}; choose another folder with "
            "--out, or delete the file"
        )
