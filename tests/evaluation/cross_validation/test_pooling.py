"""Results of folds and seeds as one, against plain computation and against one evaluation of everything together."""

import json
import math
import statistics
from dataclasses import replace

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrfast.errors import CxrfastError
from cxrfast.evaluation import (
    EvaluationMetadata,
    EvaluationRecord,
    FoldEvaluation,
    GroundTruth,
    MapSource,
    find_protocol,
    pool,
    score_predictions,
)
from cxrfast.metrics.bootstrap import Statistic, bootstrap_interval_with_mean, weighted_auroc
from cxrfast.metrics.detection import Boxes
from cxrfast.predictions.table import concatenate
from cxrfast.regions.rule import MethodDefaults, RegionRule
from cxrfast.report.terminal import cross_validation_to_text
from tests.evaluation.cross_validation.heads import head_of

NAMES = ("Mass", "Nodule", "Effusion", "Hernia")  # no image of the first fold has Effusion; nothing has Hernia
HEAD = head_of("own", method="li", seeds=(0, 1), validation_images=(4, 4), n_patients=24)


def content_of(pooled):
    return json.loads(pooled.record.to_json())


def changed(run, change):
    """The run with another record: `change` is called with its JSON content."""
    content = json.loads(run.record.to_json())
    change(content)
    return replace(run, record=EvaluationRecord.model_validate(content))


def part(fold, n=24):
    """Images of one fold, the same for every seed: labels, and a box of each positive."""
    generator = torch.Generator().manual_seed(fold)
    labels = (torch.rand(n, len(NAMES), generator=generator) < 0.4).float()
    labels[:, 3] = 0
    if fold == 0:
        labels[:, 2] = 0
    image, class_index = labels.nonzero(as_tuple=True)
    corner = torch.rand(len(image), 2, dtype=torch.float64, generator=generator) / 2
    size = 0.2 + torch.rand(len(image), 2, dtype=torch.float64, generator=generator) * 0.3
    names = [f"{fold}{i:02d}.png" for i in range(n)]
    boxes = Boxes(image, class_index, torch.cat([corner, corner + size], dim=1))
    return GroundTruth(NAMES, names, [name[:2] for name in names], labels, boxes)


def outputs(ground_truth, seed):
    generator = torch.Generator().manual_seed(100 * seed + len(ground_truth.images[0]) + int(ground_truth.images[0][0]))
    n, k = ground_truth.labels.shape
    scores = (torch.rand(n, k, generator=generator) + 0.4 * ground_truth.labels) / 1.4
    maps = torch.rand(n, k, 6, 6, generator=generator)
    return scores, maps


def temperatures(fold):
    """One for every class; the first fold has too few positives of Nodule for one."""
    return torch.tensor([0.5, torch.nan, 2.0, 1.0] if fold == 0 else [1.5, 0.7, 0.4, 1.0])


def evaluate(protocol, ground_truth, scores, maps, temperature=None):
    boxed = ground_truth.boxes.image.unique()
    own = MethodDefaults(RegionRule("patches"), torch.full((len(NAMES),), 0.6), torch.full((len(NAMES),), 0.5))
    facts = EvaluationMetadata(split="test", label_version="2017", method="li", weights="none", training_patients=())
    return score_predictions(
        protocol, ground_truth, scores, MapSource(boxed, maps[boxed]), own, facts, temperature=temperature, resamples=20
    )


def together(first, second):
    n = len(first.images)
    boxes = Boxes(
        torch.cat([first.boxes.image, second.boxes.image + n]),
        torch.cat([first.boxes.class_index, second.boxes.class_index]),
        torch.cat([first.boxes.xyxy, second.boxes.xyxy]),
    )
    labels = torch.cat([first.labels, second.labels])
    return GroundTruth(NAMES, [*first.images, *second.images], [*first.patients, *second.patients], labels, boxes)


@pytest.fixture(params=["own", "wang2017"])
def case(request, tmp_path):
    """Two folds by two seeds, read back from the files of their evaluations; and what both folds give at once."""
    protocol = find_protocol(request.param)
    runs, at_once = [], []
    for seed in (0, 1):
        parts = [part(fold) for fold in (0, 1)]
        said = [outputs(ground_truth, seed) for ground_truth in parts]
        for fold in (0, 1):
            result = evaluate(protocol, parts[fold], *said[fold], temperatures(fold))
            folder = tmp_path / f"fold-{fold}" / f"seed-{seed}"
            result.save(folder / "evaluation-test.json")
            result.predictions.write_csv(folder / "predictions.csv")
            name = f"fold-{fold}/seed-{seed}"
            runs.append(
                FoldEvaluation.load(name, fold, seed, folder / "evaluation-test.json", folder / "predictions.csv")
            )
        at_once.append(evaluate(protocol, together(*parts), *(torch.cat(pair) for pair in zip(*said, strict=True))))
    return runs, at_once


def same(a, b):
    return (math.isnan(a) and math.isnan(b)) or a == pytest.approx(b, abs=1e-12)


def test_pooled_numbers_are_those_of_one_evaluation_of_all_images(case):
    runs, at_once = case
    pooled = pool(runs, HEAD)
    for k in range(len(NAMES)):
        for column, name in ((pooled.auroc, "auroc"), (pooled.average_precision, "average_precision")):
            expected = statistics.fmean(getattr(result, name).value[k].item() for result in at_once)
            assert same(column.classes[k].pooled, expected)
        for t, table in enumerate(pooled.tables):
            for i in range(len(table.thresholds)):
                of_seeds = [result.localization.tables[t] for result in at_once]
                assert same(
                    table.accuracy[i].classes[k].pooled, statistics.fmean(s.accuracy[i, k].item() for s in of_seeds)
                )
                assert same(table.oracle[i][k], of_seeds[0].oracle[i, k].item())
                if table.afp is not None:
                    assert same(table.afp[i].classes[k].pooled, statistics.fmean(s.afp[i, k].item() for s in of_seeds))
    assert (pooled.tables[0].afp is not None) == (at_once[0].protocol.name == "wang2017")
    assert pooled.n_positive == at_once[0].n_positive
    assert pooled.n_annotated == tuple(at_once[0].localization.n_units.tolist())
    assert pooled.n_images == 48


def test_mean_and_sd_are_over_the_runs_that_have_the_number(case):
    runs, _ = case
    pooled = pool(runs, HEAD)
    for k, name in enumerate(NAMES):
        expected = [
            roc_auc_score(run.predictions.labels[:, k], run.predictions.prob[:, k])
            for run in runs
            if 0 < run.predictions.labels[:, k].sum() < 24
        ]
        number = pooled.auroc.classes[k]
        assert len(number.present) == len(expected) == (4, 4, 2, 0)[k]
        if expected:
            assert number.mean == pytest.approx(statistics.fmean(expected))
            assert number.sd == pytest.approx(statistics.stdev(expected))
        else:
            assert math.isnan(number.mean)
            assert math.isnan(number.pooled)
        own = pooled.tables[0].accuracy[0].classes[k]
        of_runs = [run.tables[0].rows[0].classes[name].accuracy for run in runs]
        assert own.present == [value for value in of_runs if not math.isnan(value)]
    labels, scores = (torch.cat([getattr(run.predictions, n) for run in runs[:2]]) for n in ("labels", "prob"))
    one_seed = pool(runs[:2], HEAD)
    assert one_seed.auroc.classes[2].pooled == pytest.approx(roc_auc_score(labels[:, 2], scores[:, 2]))
    assert one_seed.average_precision.classes[2].pooled == pytest.approx(
        average_precision_score(labels[:, 2], scores[:, 2])
    )


def plain_ece(probability, label):
    """Σ n_b/n |frequency − probability| over 15 bins, image by image."""
    bins = [[] for _ in range(15)]
    for p, y in zip(probability.tolist(), label.tolist(), strict=True):
        bins[max(math.ceil(p * 15) - 1, 0)].append((p, y))
    gaps = [abs(sum(y for _, y in some) - sum(p for p, _ in some)) for some in bins]
    return sum(gaps) / len(label)


def test_calibration_errors(case):
    runs, _ = case
    pooled = pool(runs, HEAD)
    for k in range(len(NAMES)):
        numbers = (pooled.ece.classes[k], pooled.ece_calibrated.classes[k])
        for number, column in zip(numbers, ("prob", "prob_calibrated"), strict=True):
            tables = [(getattr(run.predictions, column)[:, k], run.predictions.labels[:, k]) for run in runs]
            of_runs = [math.nan if p.isnan().any() else plain_ece(p, y) for p, y in tables]
            assert number.values == pytest.approx(of_runs, abs=1e-7, nan_ok=True)
            seeds = [[torch.cat(two) for two in zip(*tables[s : s + 2], strict=True)] for s in (0, 2)]
            expected = [math.nan if p.isnan().any() else plain_ece(p, y) for p, y in seeds]
            assert number.pooled == pytest.approx(statistics.fmean(expected), abs=1e-7, nan_ok=True)
    nodule = pooled.ece_calibrated.classes[1]
    assert len(nodule.present) == 2
    assert math.isnan(nodule.pooled)  # only a part of the images has a probability
    assert content_of(pooled)["classes"]["Nodule"]["reliability_calibrated"] == []
    one_seed = content_of(pool(runs[:2], HEAD))["classes"]["Mass"]
    for name in ("", "_calibrated"):  # the curve amounts to the error
        gaps = [b["images"] * abs(b["frequency"] - b["probability"]) for b in one_seed[f"reliability{name}"]]
        assert one_seed[f"ece{name}"]["pooled"] == pytest.approx(sum(gaps) / 48)
    content = content_of(pooled)
    assert content["mean"]["ece_calibrated"]["incomplete"] == ["Nodule"]
    assert content["mean"]["ece"]["values"][2] == pytest.approx(
        statistics.fmean(runs[2].record.classes[name].ece for name in NAMES)
    )


def test_detections_are_those_of_the_runs_and_the_pointing_game_counts_all_annotations(case):
    runs, at_once = case
    found = pool(runs, HEAD).detection
    for k, name in enumerate(NAMES):
        for t, column in enumerate(found.average_precision):
            of_runs = [run.record.detection.average_precision[name][t] for run in runs]
            assert column.classes[k].present == [value for value in of_runs if not math.isnan(value)]
            assert math.isnan(column.classes[k].pooled)
        rows = [run.record.detection.froc.sensitivity[name] for run in runs]
        rows = [row for row in rows if not math.isnan(row[0])]
        for r, column in enumerate(found.sensitivity):
            assert column.classes[k].present == [row[r] for row in rows]
        means = [sum(row) / len(row) for row in rows]
        assert found.froc.classes[k].present == pytest.approx(means)
        if means:
            assert found.froc.classes[k].sd == pytest.approx(statistics.stdev(means))
        assert len(means) == (4, 4, 2, 0)[k]
        expected = statistics.fmean(result.detection.pointing[k].item() for result in at_once)
        assert same(found.pointing.classes[k].pooled, expected)
    for column, value in zip(found.average_precision, runs[0].record.detection.map, strict=True):
        assert column.mean.values[0] == pytest.approx(value.value)
    assert found.froc.mean.values[0] == pytest.approx(runs[0].record.detection.froc.mean.value)
    content = json.loads(json.dumps(found.record.model_dump(mode="json"), allow_nan=False))
    assert content["iou_thresholds"] == [0.1, 0.3, 0.5]
    assert len(content["false_positives_per_image"]) == len(content["classes"]["Mass"]["sensitivity"]) == 7
    assert content["mean"]["froc"]["left_out"] == ["Hernia"]
    assert content["mean"]["average_precision"][0]["incomplete"] == ["Effusion"]
    assert content["classes"]["Mass"]["average_precision"][0]["pooled"] is None
    assert content["classes"]["Hernia"]["pointing_game"]["mean"] is None


def test_a_run_without_regions(case):
    runs, _ = case
    silent = changed(runs[1], lambda content: content.update(detection=None, localization=None))
    pooled = pool([runs[0], silent, *runs[2:]], HEAD)
    whole = pool(runs, HEAD)
    mass, all_mass = pooled.detection.pointing.classes[0], whole.detection.pointing.classes[0]
    assert mass.present == [all_mass.values[run] for run in (0, 2, 3)]
    assert math.isnan(mass.pooled)
    assert "pointing game" in cross_validation_to_text(pooled)
    none = [changed(run, lambda content: content.update(detection=None, localization=None)) for run in runs]
    alone = pool(none, HEAD)
    assert alone.detection is None
    assert content_of(alone)["detection"] is None
    assert "mAP" not in cross_validation_to_text(alone)
    assert alone.auroc.classes[:2] == whole.auroc.classes[:2]


def test_the_pooled_auroc_s_interval_is_the_bootstrap_s_by_patient_of_the_mean_over_seeds(case):
    runs, _ = case
    pooled = pool(runs, HEAD)
    seeds = [concatenate([run.predictions for run in runs if run.seed == seed]) for seed in (0, 1)]
    assert list(seeds[0].images) == list(seeds[1].images)
    parts = [weighted_auroc(of.prob, of.labels) for of in seeds]
    both = Statistic(lambda weights: sum(part(weights) for part in parts) / 2, parts[0].needs)
    expected, mean = bootstrap_interval_with_mean(both, seeds[0].patients)
    content = content_of(pooled)
    for k, name in enumerate(pooled.class_names):
        found = content["classes"][name]["auroc"]["interval"]
        if math.isnan(expected.low[k]):
            assert found is None
        else:
            assert found == pytest.approx([expected.low[k].item(), expected.high[k].item()])
            assert found[0] <= content["classes"][name]["auroc"]["pooled"] <= found[1]
    assert any(row["auroc"]["interval"] for row in content["classes"].values())
    assert same(pooled.auroc.mean.interval[0], mean.low.item())
    assert content["classes"]["Mass"]["average_precision"]["interval"] is None
    # In whatever order the images of a seed are
    turned = replace(runs[2], predictions=_reversed(runs[2].predictions))
    again = pool([*runs[:2], turned, *runs[3:]], HEAD)
    assert again.auroc.classes[0].interval == pytest.approx(pooled.auroc.classes[0].interval)


def _reversed(found):
    tables = {name: getattr(found, name).flip(0) for name in ("prob", "labels", "n_boxes", "iou", "ior")}
    calibrated = None if found.prob_calibrated is None else found.prob_calibrated.flip(0)
    images, patients = list(found.images)[::-1], list(found.patients)[::-1]
    return replace(found, images=images, patients=patients, prob_calibrated=calibrated, **tables)


def test_what_the_json_says(case):
    runs, _ = case
    content = content_of(pool(runs, HEAD))
    mean = content["mean"]["auroc"]
    assert mean["left_out"] == ["Hernia"]
    assert mean["incomplete"] == ["Effusion"]
    of_run = runs[1].record.mean.auroc.value
    assert mean["values"][1] == pytest.approx(of_run)
    assert mean["pooled"] == pytest.approx(
        statistics.fmean(content["classes"][name]["auroc"]["pooled"] for name in NAMES[:3])
    )
    row = content["localization"]["tables"][0]["rows"][0]
    mass = row["classes"]["Mass"]
    shares = [hits / n for hits, n in zip(mass["hits"], mass["n_annotated"], strict=True)]
    assert mass["values"] == pytest.approx(shares)
    assert row["classes"]["Hernia"]["mean"] is None
    assert row["classes"]["Hernia"]["oracle"] is None
    assert 0 < row["classes"]["Mass"]["oracle"] <= 1
    assert [run["run"] for run in content["runs"]] == [
        "fold-0/seed-0",
        "fold-1/seed-0",
        "fold-0/seed-1",
        "fold-1/seed-1",
    ]


def test_a_fold_that_is_missing(case):
    runs, _ = case
    head = HEAD.model_copy(update={"complete": False, "missing": ("fold-1/seed-1",)})
    some = pool(runs[:3], head)
    both = pool(runs[:2], head)
    assert some.auroc.classes[0].pooled == both.auroc.classes[0].pooled  # of the seed that has all folds
    assert len(some.auroc.classes[0].present) == 3
    alone = pool(runs[:1], head)
    assert math.isnan(alone.auroc.classes[0].pooled)
    assert math.isnan(alone.auroc.classes[0].sd)
    assert "missing: fold-1/seed-1" in cross_validation_to_text(alone)


def test_the_text_fits_a_terminal(case):
    runs, _ = case
    text = cross_validation_to_text(pool(runs, HEAD))
    assert max(map(len, text.splitlines())) <= 100
    assert "not in every mean of AUROC (no run has it): Hernia" in text
    assert "some runs have it, and their means with it" in text
    assert "pooled" in text
    number = pool(runs, HEAD).auroc.classes[0]
    assert f"{number.mean:.3f} ± {number.sd:.3f}" in text
    for column, words in (
        (pool(runs, HEAD).detection.average_precision[1], "mAP of boxes, IoU 0.3"),
        (pool(runs, HEAD).detection.froc, "FROC, IoU 0.1, 1/8 to 8 false positives per image"),
    ):
        line = next(line for line in text.splitlines() if line.startswith(words))
        assert line.split()[-4:] == [*f"{column.mean.mean:.3f} ± {column.mean.sd:.3f}".split(), "-"]
    assert "ECE, calibrated" in text
    assert "not in every mean of calibrated ECE (some runs have it, and their means with it): Nodule" in text


def test_the_oracle_is_of_the_runs_that_have_a_grid(case):
    runs, _ = case
    name, row = NAMES[0], runs[0].tables[0].rows[2]
    text = cross_validation_to_text(pool(runs, HEAD))
    best = [pool(runs, HEAD).tables[0].oracle[2][k] for k in range(3)]
    (line, *_) = (line for line in text.splitlines() if line.startswith("oracle region"))
    assert line.split()[2:][2] == f"{statistics.fmean(best):.3f}"
    alone = pool(runs[:1], HEAD)
    assert same(alone.tables[0].oracle[2][0], row.classes[name].oracle)

    def without_grid(content):
        content["localization"]["grid"] = None
        for table in content["localization"]["tables"]:
            for row in table["rows"]:
                for cell in row["classes"].values():
                    cell["oracle"] = None

    boxes = pool([changed(run, without_grid) for run in runs], HEAD)
    assert boxes.tables[0].oracle is None
    assert "oracle region" not in cross_validation_to_text(boxes)
    assert content_of(boxes)["localization"]["tables"][0]["rows"][0]["classes"]["Mass"]["oracle"] is None


def test_runs_that_were_evaluated_otherwise(case, tmp_path):
    runs, _ = case

    def other_t(content):
        content["localization"]["tables"][0]["rows"][0]["T"] = 0.15

    def other_detection(content):
        content["detection"]["iou_thresholds"] = [0.1, 0.3, 0.6]

    with pytest.raises(CxrfastError, match=r"fold-1/seed-0 was evaluated otherwise than fold-0/seed-0"):
        pool([runs[0], changed(runs[1], other_t)], HEAD)
    with pytest.raises(CxrfastError, match=r"fold-0/seed-1 was evaluated otherwise than fold-0/seed-0"):
        pool([*runs[:2], changed(runs[2], other_detection)], HEAD)
    folder = tmp_path / "fold-0" / "seed-0"
    lines = (folder / "predictions.csv").read_text().splitlines()
    (folder / "predictions.csv").write_text("\n".join(lines[: -len(NAMES)]) + "\n")
    with pytest.raises(CxrfastError, match="does not belong to .*evaluate the run again"):
        FoldEvaluation.load("fold-0/seed-0", 0, 0, folder / "evaluation-test.json", folder / "predictions.csv")
    (folder / "evaluation-test.json").write_text("{}")
    with pytest.raises(CxrfastError, match="schema version 1.*evaluate again"):
        FoldEvaluation.load("fold-0/seed-0", 0, 0, folder / "evaluation-test.json", folder / "predictions.csv")
