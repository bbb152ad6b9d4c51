"""Evaluations as files: what is written is what is read, and what cannot be read is refused in one line."""

import json
import math

import pytest
from pydantic import TypeAdapter

from cxrfast.errors import CxrfastError
from cxrfast.evaluation import PROTOCOLS, EvaluationRecord, FoldEvaluation, pool
from cxrfast.evaluation.cross_validation.record import CrossValidationRecord
from cxrfast.evaluation.record import (
    FixedLevels,
    FixedThreshold,
    FoldsThreshold,
    Gate,
    MeanRecord,
    MethodThreshold,
    NoGate,
    OperatingPointGate,
    ScoreGate,
    Threshold,
)
from cxrfast.regions.rule import RegionRule
from tests.evaluation.cross_validation.heads import head_of
from tests.report.made_up import made_up

CLASSES = ("Mass", "Nodule", "Edema")  # nothing has boxes of Edema


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("record")


@pytest.fixture(scope="module")
def record(folder):
    return made_up(folder / "images", 40, CLASSES, boxed=CLASSES[:2]).record


@pytest.fixture(scope="module")
def pooled(folder):
    """The record of a cross-validation of two folds."""
    runs = []
    for fold in (0, 1):
        found = made_up(folder / "images", 20, CLASSES, seed=fold, boxed=CLASSES[:2], protocol="wang2017")
        place = folder / f"fold-{fold}"
        found.record.save(place / "evaluation-test.json")
        found.predictions.write_csv(place / "predictions.csv")
        files = place / "evaluation-test.json", place / "predictions.csv"
        runs.append(FoldEvaluation.load(f"fold-{fold}/seed-0", fold, 0, *files))
    return pool(runs, head_of("wang2017", unannotated=1.0, classes_left_out={"Hernia": 3})).record


def plain(value):
    """Tuples as lists, NaN as None: what JSON can hold."""
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


@pytest.mark.parametrize("kind", [EvaluationRecord, CrossValidationRecord])
def test_a_record_comes_back_from_its_file(kind, record, pooled, tmp_path):
    saved = {EvaluationRecord: record, CrossValidationRecord: pooled}[kind]
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    saved.save(first)
    again = kind.load(first)
    assert plain(again.model_dump()) == plain(saved.model_dump())
    again.save(second)
    assert second.read_bytes() == first.read_bytes()
    content = json.loads(first.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert content["schema_version"] == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_s_record_comes_back(protocol, tmp_path):
    saved = made_up(tmp_path / "images", 20, CLASSES, boxed=CLASSES[:2], protocol=protocol).record
    saved.save(tmp_path / "evaluation.json")
    again = EvaluationRecord.load(tmp_path / "evaluation.json")
    assert again.localization.threshold == saved.localization.threshold
    assert [table.gate for table in again.localization.tables] == [table.gate for table in saved.localization.tables]
    assert again.to_json() == saved.to_json()


def test_nan_is_null_in_the_file_only(record, pooled, tmp_path):
    assert math.isnan(record.localization.tables[0].rows[0].classes["Edema"].accuracy)
    content = json.loads(record.to_json())
    assert content["localization"]["tables"][0]["rows"][0]["classes"]["Edema"]["accuracy"] is None
    record.save(tmp_path / "evaluation.json")
    again = EvaluationRecord.load(tmp_path / "evaluation.json")
    assert math.isnan(again.localization.tables[0].rows[0].classes["Edema"].accuracy)
    assert math.isnan(pooled.localization.tables[0].rows[0].classes["Edema"].mean)
    cell = json.loads(pooled.to_json())["localization"]["tables"][0]["rows"][0]["classes"]["Edema"]
    assert (cell["mean"], cell["values"], cell["interval"]) == (None, [None, None], None)


def test_a_number_that_json_has_no_word_for_is_not_written(record, tmp_path):
    infinite = MeanRecord(value=math.inf, left_out=())
    infinite = record.model_copy(update={"mean": record.mean.model_copy(update={"auroc": infinite})})
    with pytest.raises(ValueError, match="Out of range float values"):
        infinite.save(tmp_path / "evaluation.json")
    assert not (tmp_path / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("gate", "content", "words"),
    [
        (NoGate(), {"kind": "none"}, ""),
        (ScoreGate(score=0.5), {"kind": "score", "score": 0.5}, "score > 0.5"),
        (OperatingPointGate(), {"kind": "operating_point"}, "score ≥ the operating point"),
    ],
)
def test_gates(gate, content, words):
    assert gate.model_dump(mode="json") == content
    assert TypeAdapter(Gate).validate_python(content) == gate
    assert str(gate) == words


@pytest.mark.parametrize(
    ("threshold", "content", "words"),
    [
        (FixedThreshold(value=0.5), {"kind": "fixed", "value": 0.5}, "0.5"),
        (MethodThreshold(), {"kind": "method"}, "the method's own"),
        (FixedLevels(), {"kind": "levels"}, "fixed levels"),
        (
            FoldsThreshold(count=5, by="patient", pooled=False),
            {"kind": "folds", "count": 5, "by": "patient", "pooled": False},
            "per class, chosen by 5 folds by patient without the scored fold",
        ),
        (
            FoldsThreshold(count=10, by="box", pooled=True),
            {"kind": "folds", "count": 10, "by": "box", "pooled": True},
            "one for all classes, chosen by 10 folds by box without the scored fold",
        ),
    ],
)
def test_thresholds(threshold, content, words):
    assert threshold.model_dump(mode="json") == content
    assert TypeAdapter(Threshold).validate_python(content) == threshold
    assert str(threshold) == words


def test_the_rule_keeps_its_kind(tmp_path):
    rule = RegionRule("boxes", "peak", opening=1 / 16, gate=0.25)
    saved = made_up(tmp_path, 20, ("Mass",), rule=rule, protocol="own").record
    again = EvaluationRecord.model_validate(json.loads(saved.to_json()))
    assert again.localization.rule == RegionRule("boxes", "peak", opening=1 / 16)  # gates are the protocol's
    assert again.localization.tables[0].gate == ScoreGate(score=0.25)


@pytest.mark.parametrize("protocol", ["strict", "zhang2020-pooled", "rozenberg2019"])
def test_the_threshold_of_an_annotation_is_that_of_its_fold(tmp_path, protocol):
    """At it, the map's region has the overlaps that the annotation was scored with."""
    evaluated = made_up(tmp_path, 60, ("Mass", "Nodule"), protocol=protocol)
    found, source = evaluated.record.localization, evaluated.source
    if found.minmax_normalised:
        source = source.minmax_normalised()
    units = evaluated.ground_truth.units(found.unit)
    assert len(found.annotations) == len(units.image) > 0
    assert len({annotation.fold for annotation in found.annotations}) == len(found.thresholds)
    names = evaluated.record.class_names
    for u, annotation in enumerate(found.annotations):
        threshold = found.threshold_of(annotation)
        assert threshold == found.thresholds[annotation.fold][annotation.class_name]
        overlaps = source.overlaps(units, found.rule, evaluated.own.thresholds.new_full((len(names),), threshold))
        assert (overlaps.iou[u].item(), overlaps.ior[u].item()) == (annotation.iou, annotation.ior)
        assert annotation.image == evaluated.ground_truth.images[units.image[u]]
        assert annotation.class_name == names[units.class_index[u]]
    if protocol == "zhang2020-pooled":
        assert all(len(set(row.values())) == 1 for row in found.thresholds)


def place(content, *way):
    for name in way:
        content = content[name]
    return content


def without(*way):
    def change(content):
        del place(content, *way[:-1])[way[-1]]

    return change


def with_value(value, *way):
    def change(content):
        place(content, *way[:-1])[way[-1]] = value

    return change


TABLE = ("localization", "tables", 0)
ANNOTATION = ("localization", "annotations", 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("schema_version"), "is an evaluation of schema version 1; this cxrfast reads version 2"),
        (with_value(3, "schema_version"), "is an evaluation of schema version 3; this cxrfast reads version 2"),
        (with_value("a\nb", "schema_version"), r"is an evaluation of schema version 'a\\nb'; "),
        (without("n_images"), r"\(n_images: Field required\)"),
        (with_value("many", "n_images"), r"\(n_images: Input should be a valid integer, .*\)"),
        (with_value(None, "n_images"), r"\(n_images: Input should be a valid integer\)"),
        (with_value("x", "classes", "Mass", "auroc"), r"\(classes.Mass.auroc: Input should be a valid number, .*\)"),
        (with_value(1, "surprise"), r"\(surprise: Extra inputs are not permitted\)"),
        (
            with_value({"kind": "age", "score": 60}, *TABLE, "gate"),
            r"\(localization.tables.0.gate: Input tag 'age' found using 'kind' does not match any of the expected .*\)",
        ),
        (with_value("score > 0.5", *TABLE, "gate"), r"\(localization.tables.0.gate: Input should be a valid dict.*\)"),
        (with_value("a\nb", *TABLE, "measure"), r"\(localization.tables.0.measure: Input should be 'io.*\)"),
        (
            with_value({"kind": "folds", "count": 5, "by": "hospital", "pooled": False}, "localization", "threshold"),
            r"\(localization.threshold.folds.by: Input should be 'patient', 'image' or 'box'\)",
        ),
        (with_value("circle", "localization", "rule", "shape"), r"\(localization.rule.shape: Input should be .*\)"),
        (
            with_value(-1, "localization", "rule", "opening"),
            r"\(opening: expected a number of pixels or .*, got -1\S*\)",
        ),
        (with_value(5, *ANNOTATION, "fold"), r"\(localization: .*annotations: no row 5 in thresholds\)"),
        (
            with_value("Hernia", *ANNOTATION, "class_name"),
            r"\(localization: .*annotations: 'Hernia' has no threshold\)",
        ),
        (
            without(*TABLE, "rows", 0, "classes", "Mass"),
            r"\(record: .*tables: expected the classes Mass, Nodule, Edema, .*\)",
        ),
        (
            without("detection", "froc", "curves", "Mass"),
            r"\(record: .*curves: expected the classes Mass, Nodule, .*\)",
        ),
    ],
)
def test_a_file_that_is_not_a_record_is_refused_in_one_line(record, tmp_path, change, words):
    content = json.loads(record.to_json())
    change(content)
    refused(tmp_path, json.dumps(content).encode(), words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, r"cannot be read \(.*No such file or directory.*\)"),
        (b"", r"cannot be read \(Expecting value.*\)"),
        (b'{"schema_version": 2', r"cannot be read \(Expecting ',' delimiter.*\)"),
        (b"\xff\xfe{}", r"cannot be read \('utf-8' codec can't decode byte.*\)"),
        (b"[1]", "expected an object, got list"),
        (b"null", "expected an object, got NoneType"),
        (b"{}", "schema version 1; this cxrfast reads version 2"),
        (b"[" * 200_000, r"cannot be read \(it is nested too deeply\)"),
        (b'{"schema_version": 2, "classes": ' + b"[" * 500 + b"]" * 500 + b"}", "is not an evaluation of this version"),
    ],
    ids=["missing", "empty", "cut off", "no text", "list", "null", "no keys", "deep", "nested"],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, data, words):
    refused(tmp_path, data, words)


def refused(folder, data, words):
    path = folder / "evaluation-test.json"
    if data is not None:
        path.write_bytes(data)
    for kind in (EvaluationRecord, CrossValidationRecord) if data is None or len(data) < 1000 else (EvaluationRecord,):
        with pytest.raises(CxrfastError, match=rf"^{path}:? .*{words}") as failure:
            kind.load(path)
        assert str(failure.value).endswith("; evaluate again")
        assert "\n" not in str(failure.value)


def test_a_cross_validation_that_was_edited_is_refused_in_one_line(pooled, tmp_path):
    for change, words in (
        (without("schema_version"), "schema version 1"),
        (without("runs", 0, "fold"), r"\(runs.0.fold: Field required\)"),
        (
            without("localization", "tables", 0, "rows", 0, "classes", "Mass"),
            "expected the classes Mass, Nodule, Edema",
        ),
        (without("detection", "classes", "Mass"), "expected the classes Mass, Nodule, Edema"),
    ):
        content = json.loads(pooled.to_json())
        change(content)
        (tmp_path / "cross-validation.json").write_text(json.dumps(content))
        with pytest.raises(CxrfastError, match=words) as failure:
            CrossValidationRecord.load(tmp_path / "cross-validation.json")
        assert str(failure.value).endswith("; evaluate again")
        assert "\n" not in str(failure.value)
