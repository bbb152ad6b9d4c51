"""`evaluate` for what `train` has left: a run's folder, one part of its split, its data or others."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from cxrfast.data import DataOptions, DataSource, Record, Splits, XrayDataset, read_data
from cxrfast.data.class_names import ClassMatcher, class_key, describe_matches
from cxrfast.devices import Device
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation import (
    EvaluationMetadata,
    EvaluationResult,
    Protocol,
    collect_outputs,
    find_protocol,
    score_outputs,
)
from cxrfast.evaluation.evaluated_data import EvaluatedData
from cxrfast.evaluation.map_file import write_maps
from cxrfast.inference.model import TrainedModel, load_predictor
from cxrfast.metrics import fit_temperature
from cxrfast.report import from_result, write_report
from cxrfast.runs.directory import RunDirectory, run_of
from cxrfast.training.config import RunConfig, build_config

_NO_FINDING = class_key("No Finding")


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
    options: DataOptions | None = None,
    protocol: str = "strict",
    thresholds: Sequence[float] = (),
    batch_size: int = 16,
    workers: int = 0,
    device: Device = "auto",
    out: Path | None = None,
    method: str | None = None,
    page: bool = True,
) -> Assessment:
    """Evaluate weights (default: the latest run's best) on `split` of the run that they belong to.

    With `data`, another data set is evaluated as a whole. Images and patients of it that training has seen count as
    shared (see :func:`_elsewhere`). `thresholds` replace the protocol's T. On the run's test part, a temperature is
    fitted on its validation part, for the output `prob_calibrated`. The report, `predictions.csv`, `maps.npz` and, with
    `page`, `report.html` go to the run's folder, or to `out`.

    `options` say how the data are read; default: as the run's. Classes are matched by their synonyms and have the names
    of the data set. Classes of the model that the data set does not label are unknown, and have no numbers.

    Raises UsageError if the weights belong to no run and neither `data` nor `out` is given, or if training has seen
    patients that the protocol wants apart; CxrfastError for data, weights or a splits file that do not fit.
    """
    rules = find_protocol(protocol)
    if thresholds:
        rules = rules.with_thresholds(*thresholds)
    model = load_predictor(checkpoint, device=device, expected_method=method)
    run = run_of(Path(model.weights))
    config = build_config(run.read_config()) if run is not None else None
    if data is None and config is None:
        raise UsageError(f"data: {model.weights} lies in no run's folder; name the data set with --data")
    if out is None:
        if run is None:
            raise UsageError(f"out: {model.weights} lies in no run's folder; say where to write with --out")
        out = run.path
    source = _source(data, options, config)
    model, source = _in_common(model, source)
    part, temperature = EvaluatedPart(list(source.records), "all"), None
    if run is not None and config is not None and not _same_data(data, config):
        part = _elsewhere(run, config, source, rules)
    elif run is not None and config is not None:
        splits = Splits.load(run.splits)
        splits.check(source.records)
        part = _part(splits, split, source.records)
        validation = splits.part("val", source.records)
        if split == "test" and validation:
            scored = collect_outputs(model, _dataset(validation, model), batch_size=batch_size, workers=workers)
            temperature = fit_temperature(scored.scores, scored.ground_truth.labels)
    outputs = collect_outputs(model, _dataset(part.records, model), batch_size=batch_size, workers=workers)
    facts = EvaluationMetadata(
        split=part.name,
        label_version=source.label_version,
        method=model.method,
        weights=model.weights,
        split_hash=part.split_hash,
        training_patients=part.training_patients,
        notes=(*model.notes, *part.notes, *source.class_notes),
        data=EvaluatedData.of(source, options or (config.data_options if config is not None else DataOptions())),
    )
    result = score_outputs(rules, outputs, facts, temperature=temperature)
    folder = RunDirectory(out)
    report, predictions, maps = (name(part.name) for name in (folder.evaluation, folder.predictions, folder.maps))
    result.save(report)
    result.predictions.write_csv(predictions)
    write_maps(maps, outputs.maps, outputs.ground_truth.images, outputs.ground_truth.class_names, outputs.own)
    html = folder.report(part.name) if page else None
    if html is not None:
        write_report(from_result(result, source.records, None if run is None else run.path), html)
    return Assessment(result, report, predictions, maps, html)


def _source(data: Path | None, options: DataOptions | None, config: RunConfig | None) -> DataSource:
    if config is not None and _same_data(data, config):
        return read_data(config.data, options or config.data_options)
    assert data is not None
    return read_data(data, options or DataOptions())


def _in_common(model: TrainedModel, source: DataSource) -> tuple[TrainedModel, DataSource]:
    """The model with the class names of the data set, and the data set with notes on what was matched.

    An output "No Finding" of an imported model is left out, because it is not the probability of a finding.
    """
    matcher = ClassMatcher(source.class_names)
    ClassMatcher(model.class_names)  # no two outputs may mean the same finding
    names = {name: matcher.match(name) or name for name in model.class_names}
    notes = [text for text in (describe_matches(names),) if text]
    for name in [name for name, of in names.items() if class_key(of) == _NO_FINDING and of not in source.class_names]:
        del names[name]
        notes.append(f"the model's output {name} is not a class of findings: not evaluated")
    if not set(names.values()) & set(source.class_names):
        raise UsageError(
            f"data: {source.root} labels none of the model's classes ({', '.join(model.class_names)}), but "
            f"{', '.join(source.class_names)}; match them with --map 'CLASS OF THE DATA=CLASS OF THE MODEL'"
        )
    if list(names.values()) != list(model.class_names):
        model = model.with_outputs(names)
    source = source.for_classes(model.class_names)
    return model, replace(source, class_notes=[*notes, *source.class_notes])


class EvaluatedPart(NamedTuple):
    """Images to evaluate, and what training has seen."""

    records: list[Record]
    name: str
    split_hash: str | None = None
    training_patients: frozenset[str] | None = None
    notes: tuple[str, ...] = ()


def _part(splits: Splits, name: str, records: Sequence[Record]) -> EvaluatedPart:
    """Training has seen the training part; for the test part, validation has chosen among its models, too."""
    seen = ("train", "val") if name == "test" else ("train",)
    patients = frozenset(record.patient for part in seen for record in splits.part(part, records))
    return EvaluatedPart(splits.part(name, records), name, splits.hash, patients)


def _elsewhere(run: RunDirectory, config: RunConfig, source: DataSource, rules: Protocol) -> EvaluatedPart:
    """All of another data set, with the patients of it that training or validation has seen.

    An image of the same name and patient as one of the run's is that image, in another size perhaps, if most of such
    images agree in age and sex too. Then both data sets number the same patients, so all patients of the same name are
    the same. Otherwise they may be so by chance, as most data sets count theirs from 1: a note says how many, and
    shared patients are unknown.
    """
    splits = Splits.load(run.splits)
    own: Sequence[Record]
    try:
        own = read_data(config.data, replace(config.data_options, images_required=False)).records
    except CxrfastError:  # gone: its images had the patients that they have here
        named = {*splits.train, *splits.val, *splits.test}
        own = [record for record in source.records if record.image in named]
    patient = {record.image: record.patient for record in own}
    known = _same_images(own, source.records)
    seen = [image for image in (*splits.train, *splits.val) if image in patient]
    patients = frozenset(patient[image] for image in seen)
    shared = len(patients & {record.patient for record in source.records})
    everything = list(source.records)
    if not known:
        note = f"{shared} patients have names of training patients; whether they are the same is unknown"
        return EvaluatedPart(everything, "all", notes=(note,) if shared else ())
    if shared and rules.patients_apart:
        raise UsageError(
            f"data: {shared} patients of {source.root} are in the training data of {run.path}, with "
            f"{len(known & set(seen))} of its very images; protocol {rules.name} wants patients apart. Take others, "
            "or choose another --protocol, as own, which counts them; if the run's own data have moved there, write so "
            f"in {run.config} (data:) and leave out --data"
        )
    return EvaluatedPart(everything, "all", training_patients=patients)


def _same_images(first: Sequence[Record], second: Sequence[Record]) -> set[str]:
    """Names of the images that both have, of the same patients; none if most of these patients are other people."""
    by_name = {record.image: record for record in first}
    pairs = [(by_name[record.image], record) for record in second if record.image in by_name]
    pairs = [(a, b) for a, b in pairs if a.patient == b.patient]
    alike = sum((a.age, a.sex) == (b.age, b.sex) for a, b in pairs)
    return {b.image for _, b in pairs} if 2 * alike >= len(pairs) else set()


def _same_data(data: Path | None, config: RunConfig) -> bool:
    return data is None or data.resolve() == config.data.resolve()


def _dataset(records: list[Record], model: TrainedModel) -> XrayDataset:
    return XrayDataset(records, model.class_names, model.image_size)
