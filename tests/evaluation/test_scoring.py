"""What the operating points achieve, and warnings, are in the result and in its record."""

import json
import math

import pytest
import torch

from cxrfast.evaluation import (
    EvaluationMetadata,
    EvaluationRecord,
    FoldEvaluation,
    find_protocol,
    pool,
    score_predictions,
)
from cxrfast.evaluation.cross_validation.record import CrossValidationRecord
from cxrfast.regions.rule import MethodDefaults, RegionRule
from cxrfast.runs.provenance import ClassProvenance, Provenance
from tests.evaluation.cross_validation.heads import head_of
from tests.report.made_up import made_up

CLASSES = ("Mass", "Nodule")
LEARNT = Provenance(
    data="phantoms", layout="chestxray14", synthetic=True, images=9, boxed_images=2,
    classes={"Mass": ClassProvenance(auroc=0.5, auroc_interval=(0.3, 0.7), operating_point_note="too few")},
)  # fmt: skip


def scored(made, scores, points, **facts):
    """The made-up ground truth with other scores and operating points."""
    own = MethodDefaults(RegionRule(), torch.full((2,), 0.5), torch.tensor(points, dtype=torch.float64))
    metadata = EvaluationMetadata("test", "2017", "made-up", "w.safetensors", **facts)
    return score_predictions(find_protocol("own"), made.ground_truth, scores, None, own, metadata, resamples=100)


def test_rates_are_those_of_the_images_with_a_label_and_a_score(tmp_path):
    made = made_up(tmp_path, 60, CLASSES)
    made.ground_truth.labels[:5, 0] = math.nan
    scores = made.predictions.prob.clone()
    scores[5:9, 0] = math.nan
    result = scored(made, scores, (0.6, 0.2))
    for k, name in enumerate(CLASSES):
        labels, called = made.ground_truth.labels[:, k].double(), scores[:, k].double() >= (0.6, 0.2)[k]
        known = ~labels.isnan() & ~scores[:, k].isnan()
        found = result.record.classes[name].at_operating_point
        assert found.called == int((called & known).sum())
        for key, among, right in (
            ("sensitivity", known & (labels == 1), called),
            ("specificity", known & (labels == 0), ~called),
            ("ppv", known & called, labels == 1),
            ("npv", known & ~called, labels == 0),
        ):
            rate = getattr(found, key)
            assert rate.value == pytest.approx(right[among].double().mean().item(), nan_ok=True)
            if not math.isnan(rate.interval[0]):
                assert rate.interval[0] <= rate.value <= rate.interval[1]


def test_scores_that_are_no_probabilities_have_no_operating_point(tmp_path):
    made = made_up(tmp_path, 30, CLASSES)
    result = scored(made, made.predictions.prob * 3 - 1, (0.5, 0.5))
    assert result.rates is None
    assert result.record.classes["Mass"].at_operating_point is None


def test_the_record_keeps_warnings_and_provenance_and_reads_those_without(tmp_path):
    made = made_up(tmp_path, 30, CLASSES)
    result = scored(made, made.predictions.prob, (0.5, 0.5), warnings=LEARNT.warnings, learnt_from=LEARNT)
    path = tmp_path / "evaluation-test.json"
    result.save(path)
    again = EvaluationRecord.load(path)
    assert again.warnings == LEARNT.warnings
    assert again.learnt_from == LEARNT
    assert again.classes["Mass"].at_operating_point.called == result.rates.called[0]
    content = json.loads(path.read_text())
    for name in ("warnings", "learnt_from"):
        del content[name]
    for row in content["classes"].values():
        del row["at_operating_point"]
    path.write_text(json.dumps(content))
    old = EvaluationRecord.load(path)
    assert (old.warnings, old.learnt_from, old.classes["Mass"].at_operating_point) == ((), None, None)


def test_a_cross_validation_names_the_runs_that_a_warning_is_for(tmp_path):
    runs = []
    for fold, more in enumerate(((), ("only here",))):
        found = made_up(tmp_path / "images", 20, CLASSES, seed=fold, protocol="wang2017")
        record = found.record.model_copy(update={"warnings": ("everywhere", *more)})
        runs.append(FoldEvaluation(f"fold-{fold}/seed-0", fold, 0, record, found.predictions))
    result = pool(runs, head_of("wang2017"))
    assert result.record.warnings == ("everywhere", "fold-1/seed-0: only here")
    assert CrossValidationRecord.model_validate_json(result.record.to_json()).warnings == result.record.warnings
