"""Evaluates a trained run: on one part of its own data, or on another data set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from cxrfast._files import remove_stale
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
    """Results, and the files they were written to."""

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
    """Evaluate weights on a part of the data of their run. The default is the best weights of the latest run.

    With `data`, all images of another data set are evaluated. Its images and patients that also occur in the training
    data count as shared (see :func:`_elsewhere`). `thresholds` replace the protocol's values of T. For the test part, a
    temperature is fitted on the validation part, for the column `prob_calibrated`. The results, `predictions.csv`,
    `maps.npz` and, with `page`, `report.html` are written to the folder of the run, or to `out`.

    `options` are those for reading the data; default: those of the run. Classes are matched by their synonyms and have
    the names of the data set. Classes of the model that the data set does not label count as unknown and have no
    results.

    Raises:
        UsageError: weights without a run need both `data` and `out`; or training patients are among the evaluated
            ones and the protocol does not allow this.
        CxrfastError: data, weights and splits that do not fit together.
    """
    rules = find_protocol(protocol)
    if thresholds:
        rules = rules.with_thresholds(*thresholds)
    model = load_predictor(checkpoint, device=device, expected_method=method)
    run = run_of(Path(model.weights))
    config = build_config(run.read_config()) if run is not None else None
    if data is None and config is None:
        raise UsageError(f"data: expected a data set for {model.weights}, which is in no run; add --data DIR")
    if out is None:
        if run is None:
            raise UsageError(f"out: expected a folder for {model.weights}, which is in no run; add --out DIR")
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
        warnings=model.provenance.warnings_for(synthetic=source.synthetic),
        learnt_from=model.provenance,
        data=EvaluatedData.of(source, options or (config.data_options if config is not None else DataOptions())),
    )
    result = score_outputs(rules, outputs, facts, temperature=temperature)
    folder = RunDirectory(out)
    remove_stale(out)
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
    """Images to evaluate, and the patients in the training data."""

    records: list[Record]
    name: str
    split_hash: str | None = None
    training_patients: frozenset[str] | None = None
    notes: tuple[str, ...] = ()


def _part(splits: Splits, name: str, records: Sequence[Record]) -> EvaluatedPart:
    """One part of the run's split. For the test part, validation patients count as training patients."""
    seen = ("train", "val") if name == "test" else ("train",)
    patients = frozenset(record.patient for part in seen for record in splits.part(part, records))
    return EvaluatedPart(splits.part(name, records), name, splits.hash, patients)


def _elsewhere(run: RunDirectory, config: RunConfig, source: DataSource, rules: Protocol) -> EvaluatedPart:
    """All images of another data set, with its patients that are in the training or validation data.

    Two images with equal names and patient identifiers are taken to be the same image, if age and sex agree for most
    such pairs. In this case, equal patient identifiers mean equal patients in both data sets. Otherwise, identifiers
    may coincide by chance, because most data sets number their patients from 1. Shared patients are then unknown, and
    a note states how many identifiers coincide.
    """
    splits = Splits.load(run.splits)
    own: Sequence[Record]
    try:
        own = read_data(config.data, replace(config.data_options, images_required=False)).records
    except CxrfastError:  # the run's data are missing: take the patients of its images from this data set
        named = {*splits.train, *splits.val, *splits.test}
        own = [record for record in source.records if record.image in named]
    patient = {record.image: record.patient for record in own}
    known = _same_images(own, source.records)
    seen = [image for image in (*splits.train, *splits.val) if image in patient]
    patients = frozenset(patient[image] for image in seen)
    shared = len(patients & {record.patient for record in source.records})
    everything = list(source.records)
    if not known:
        note = f"{shared} patient identifiers also occur in the training data; whether they are the same is unknown"
        return EvaluatedPart(everything, "all", notes=(note,) if shared else ())
    if shared and rules.patients_apart:
        raise UsageError(
            f"data: expected no training patients under protocol {rules.name}, got {shared} patients of {run.path} in "
            f"{source.root}, with {len(known & set(seen))} of its training images; choose other data or another "
            "--protocol, such as own, which counts them. If this is the run's own data in a new place, change data in "
            f"{run.config} and leave out --data"
        )
    return EvaluatedPart(everything, "all", training_patients=patients)


def _same_images(first: Sequence[Record], second: Sequence[Record]) -> set[str]:
    """Names of the images in both, with equal patients; empty if age or sex differ for most of them."""
    by_name = {record.image: record for record in first}
    pairs = [(by_name[record.image], record) for record in second if record.image in by_name]
    pairs = [(a, b) for a, b in pairs if a.patient == b.patient]
    alike = sum((a.age, a.sex) == (b.age, b.sex) for a, b in pairs)
    return {b.image for _, b in pairs} if 2 * alike >= len(pairs) else set()


def _same_data(data: Path | None, config: RunConfig) -> bool:
    return data is None or data.resolve() == config.data.resolve()


def _dataset(records: list[Record], model: TrainedModel) -> XrayDataset:
    return XrayDataset(records, model.class_names, model.image_size)
