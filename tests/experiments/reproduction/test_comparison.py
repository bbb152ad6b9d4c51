"""Ours beside the published numbers, against plain arithmetic on records written by hand."""

import json
from dataclasses import replace

import pytest

from cxrfast.evaluation import CrossValidationRecord, EvaluationRecord
from cxrfast.experiments.reproduction import TABLES, ComparedRow, ComparedTable, compare_row, to_markdown, to_text
from cxrfast.experiments.reproduction.comparison import remarks_of
from cxrfast.experiments.reproduction.numbers import numbers_of
from cxrfast.published import PublishedRow, rows
from cxrfast.report.html.tables import localization_tables
from tests.report.made_up import made_up

PLACE = {
    "paper": "P 2020",
    "unit": "box",
    "rule": {"shape": "boxes"},
    "minmax_normalised": False,
    "threshold": {"kind": "fixed", "value": 0.5},
    "published_on": "official test list",
}


def table_at(measure, inclusive, *rows):
    return {"measure": measure, "inclusive": inclusive, "gate": {"kind": "none"}, "rows": rows}


def one_run(auroc, accuracy, measure="ior", thresholds=(0.1,), left_out=(), **changes):
    """An evaluation of one run by wang2017: `auroc` per class, and accuracy and AFP at IoR > 0.1.

    A class that is in one of the two only has no number in the other.
    """
    names = dict.fromkeys((*auroc, *accuracy))
    score = {
        "n_positive": 5,
        "n_negative": 5,
        "n_annotated": 5,
        "operating_point": 0.5,
        "auroc_interval": [0.5, 0.9],
        "average_precision": 0.5,
        "average_precision_interval": [0.4, 0.6],
    }
    nothing = {"accuracy": None, "low": None, "high": None, "hits": 0, "false_positives": 0, "afp": None}
    cells = dict.fromkeys(names, nothing) | {
        name: {"accuracy": value, "low": 0.1, "high": 0.6, "hits": 1, "false_positives": 2, "afp": 2 * value}
        for name, value in accuracy.items()
    }
    kept = [value for name, value in accuracy.items() if name not in left_out]
    mean = {"value": sum(kept) / len(kept), "left_out": [*left_out, *(n for n in names if n not in accuracy)]}
    table = table_at(measure, False, *({"T": t, "mean": mean, "classes": cells} for t in thresholds))
    of_auroc = {
        "value": sum(auroc.values()) / len(auroc),
        "left_out": [name for name in names if name not in auroc],
        "interval": [0.6, 0.8],
    }
    return EvaluationRecord.model_validate(
        {
            "protocol": "wang2017",
            "split": "test",
            "split_hash": None,
            "images_hash": "0123456789ab",
            "label_version": "2017",
            "method": "made-up",
            "weights": "nowhere.safetensors",
            "shared_patients": 0,
            "n_images": 10,
            "n_patients": 10,
            "notes": [],
            "unreadable": {},
            "classes": {name: {**score, "auroc": auroc.get(name)} for name in names},
            "mean": {"auroc": of_auroc, "average_precision": {"value": 0.5, "left_out": []}},
            "localization": {
                **PLACE,
                "thresholds": [dict.fromkeys(names, 0.5)],
                "fallbacks": 0,
                "grid": None,
                "tables": [table],
                "annotations": [],
            },
            "detection": None,
            **changes,
        }
    )


def of_folds(value):
    number = {"mean": value, "sd": 0.05, "n": 5, "pooled": value + 0.01, "interval": None, "values": [value] * 5}
    mean = {**number, "left_out": ["Hernia"], "incomplete": []}
    cell = {**number, "hits": [1] * 5, "n_annotated": [2] * 5}
    row = {"T": 0.1, "mean": mean, "classes": {"Mass": cell}}
    columns = ("auroc", "average_precision", "ece", "ece_calibrated")
    score = {"n_positive": 5, "n_negative": 5, "n_annotated": 5, "reliability": [], "reliability_calibrated": []}
    return CrossValidationRecord.model_validate(
        {
            "protocol": "rozenberg2019",
            "method": "made-up",
            "label_version": "2017",
            "folds": 5,
            "by": "image",
            "of": "boxes",
            "seeds": [0],
            "unannotated": 0.0,
            "validation_images": [0] * 5,
            "classes_left_out": {},
            "splits_hash": "0123456789abcdef",
            "complete": True,
            "missing": [],
            "n_patients": 10,
            "shared_patients": 0,
            "runs": [],
            "n_images": 10,
            "classes": {"Mass": {**score, **dict.fromkeys(columns, number)}},
            "mean": dict.fromkeys(columns, mean),
            "localization": {**PLACE, "tables": [table_at(measure, True, row) for measure in ("iou", "ior")]},
            "detection": None,
        }
    )


def test_differences_and_means_over_the_same_and_over_other_classes():
    (published,) = rows(paper="wang2017", table="17")
    plan = TABLES["wang17"]
    same = {name: value + 0.01 for name, value in published.values.items()}
    (found,) = compare_row(plan, plan.rows[0], list(numbers_of(one_run(same, {"Mass": 0.5}))))
    assert found.title == "AUROC"
    for name, cell in found.cells.items():
        assert cell.published == published.values[name]
        assert cell.difference == pytest.approx(0.01)
        assert (cell.ours.low, cell.ours.high) == (0.5, 0.9)
    assert found.mean.difference == pytest.approx(0.01)
    assert (found.mean.ours.low, found.mean.ours.high) == (0.6, 0.8)
    assert found.common is None
    assert "the mean of the published classes is calculated by us" in found.remarks

    fewer = {"Mass": 0.7, "Nodule": 0.8, "Something": 0.9}
    (found,) = compare_row(plan, plan.rows[0], list(numbers_of(one_run(fewer, {"Mass": 0.5}))))
    assert found.mean.ours.value == pytest.approx(0.8)
    assert found.mean.difference is None  # means of other classes
    two = (published.values["Mass"] + published.values["Nodule"]) / 2
    assert found.common.published == pytest.approx(two)
    assert found.common.difference == pytest.approx(0.75 - two)
    assert found.cells["Something"].published is None
    assert found.cells["Hernia"].ours is None
    assert found.cells["Hernia"].published == published.values["Hernia"]


def test_accuracy_and_afp_find_their_own_lines():
    plan = TABLES["wang19"]
    found = compare_row(plan, plan.rows[0], list(numbers_of(one_run({"Mass": 0.5}, {"Mass": 0.5, "Nodule": 0.25}))))
    accuracy, afp = found
    assert (accuracy.metric, accuracy.measure, accuracy.T) == ("accuracy", "ior", 0.1)
    assert accuracy.title == "accuracy at IoR > 0.1"
    assert accuracy.cells["Mass"].published == 0.5882  # Table 19, not Table 4
    assert afp.cells["Mass"].published == 0.3933
    assert afp.cells["Mass"].ours.value == 1.0
    assert afp.mean.ours.value == pytest.approx(0.75)
    assert (accuracy.mean.ours.value, accuracy.mean.ours.low, accuracy.mean.ours.high) == (0.375, None, None)


def test_the_mean_of_afp_is_over_the_classes_of_the_accuracy(tmp_path):
    boxed = ("Mass", "Nodule")
    evaluated = made_up(tmp_path, 40, (*boxed, "Edema"), boxed=boxed, protocol="wang2017")
    found = [of for of in numbers_of(evaluated.record) if of.metric == "afp"]
    assert all(of.left_out == ("Edema",) for of in found)
    assert any(of.classes["Edema"].value for of in found)
    pages = [
        row.cells[-1].text
        for table in localization_tables(evaluated)
        for row in table.rows
        if row.name == "AFP of this model"
    ]
    assert [f"{of.mean.value:.3f}" for of in found] == pages

    (line,) = (line for line in rows(paper="wang2017", table="19", metric="afp", measure="ior") if line.T == 0.1)
    false = dict.fromkeys(line.values, 1.0) | {"Edema": 7.0}
    plan = TABLES["wang19"]
    _, afp = compare_row(plan, plan.rows[0], list(numbers_of(one_run(false, false, left_out=["Edema"]))))
    assert afp.mean.ours.value == pytest.approx(2.0)
    assert afp.mean.difference == pytest.approx(2.0 - sum(line.values.values()) / 8)
    assert afp.common is None


def test_a_row_of_folds_stands_beside_its_own_line():
    plan = TABLES["rozenberg1"]
    found = compare_row(plan, plan.rows[1], list(numbers_of(of_folds(0.6))))
    assert [of.title for of in found] == ["accuracy at IoU ≥ 0.1", "accuracy at IoR ≥ 0.1"]
    for of in found:
        cell = of.cells["Mass"]
        assert (cell.ours.value, cell.ours.sd, cell.ours.runs) == (0.6, 0.05, 5)
        assert cell.ours.pooled == pytest.approx(0.61)
        published = {"iou": 0.695, "ior": 0.773}[of.measure]
        assert cell.published == published
        assert cell.difference == pytest.approx(0.6 - published)
        assert any(remark.startswith("not comparable: folds by image") for remark in of.remarks)
        assert "not in our mean: Hernia" in of.remarks


def test_a_row_without_published_numbers_says_why():
    line = PublishedRow(
        paper="p",
        citation="P 2020",
        url="u",
        table="1",
        title="t",
        metric="auroc",
        labels="ChestX-ray14",
        split="s",
        classes=("Mass",),
        unavailable="lost",
        comparable=True,
    )
    assert remarks_of(line) == ["published number not available here: lost"]
    plan = TABLES["seibold1"]
    (row,) = plan.choose(["sgl-mean"])
    (found,) = compare_row(plan, row, list(numbers_of(one_run({"Mass": 0.7}, {"Mass": 0.5}))))
    assert found.remarks == ("no published number is known",)
    assert found.cells["Mass"].published is None


def iou_run(accuracy, left_out=()):
    """An evaluation of one run by zhang2020: accuracy per class, the same at each of its T."""
    thresholds = (0.1, 0.3, 0.5, 0.7)
    return one_run(dict.fromkeys(accuracy, 0.7), accuracy, "iou", thresholds, left_out, protocol="zhang2020")


def test_a_published_mean_alone_is_compared_with_ours_over_the_same_classes():
    plan = TABLES["zhang3"]
    (row,) = plan.choose(["zhang-verification"])
    (line, *_) = rows(paper="zhang2020", table="3", row="region verification")
    eight = dict.fromkeys(line.classes, 0.5)
    found = compare_row(plan, row, list(numbers_of(iou_run({**eight, "Edema": 0.0}, ["Edema"]))))
    assert [(of.T, of.mean.published) for of in found] == [(0.1, 0.62), (0.3, 0.49), (0.5, 0.27), (0.7, 0.06)]
    for of in found:
        assert of.mean.ours.value == pytest.approx(0.5)
        assert of.mean.difference == pytest.approx(0.5 - of.mean.published)
        assert of.mean.digits == 2
        assert "only the mean over the classes is published" in of.remarks
        assert of.cells["Mass"].ours.value == 0.5
        assert of.cells["Mass"].published is None
    found = compare_row(plan, row, list(numbers_of(iou_run({"Mass": 0.5, "Nodule": 0.25}))))
    assert found[0].mean.published == 0.62
    assert found[0].mean.difference is None
    assert "the published mean is over 8 classes, ours over 2" in found[0].remarks
    (row,) = TABLES["zhang-hard"].choose(["zhang-random"])
    fourteen = rows(paper="zhang2020", table="1", row="both")[0].values
    (found,) = compare_row(TABLES["zhang-hard"], row, list(numbers_of(one_run(fourteen, eight))))
    assert found.mean.published == 0.84
    assert found.mean.difference == pytest.approx(sum(fourteen.values()) / 14 - 0.84)


def test_published_numbers_are_shown_with_their_own_digits():
    (line,) = (line for line in rows(paper="seibold2020", table="2", row="SGL") if line.T == 0.1)
    plan = TABLES["seibold2"]
    table = ComparedTable(
        plan.name,
        plan.title,
        plan.protocol,
        plan.note,
        tuple(
            ComparedRow(
                row.name, row.title, "published only", None, None, {}, (), None, compare_row(plan, row, numbers)
            )
            for row, numbers in (
                (plan.rows[0], list(numbers_of(iou_run(line.values)))),
                (plan.choose(["liu2019"])[0], ()),
            )
        ),
    )
    text = to_text(table)
    (mean, *_) = [line.split() for line in text.splitlines() if line.startswith("mean")]
    assert mean[1:] == ["0.662", "0.66", "+0.002", "0.60"]


def table_of(deviations=(), **changes):
    plan = TABLES["wang17"]
    numbers = list(numbers_of(one_run({"Mass": 0.7, "Nodule": 0.8}, {"Mass": 0.5})))
    state = {"state": "done", "reason": None, **changes}
    facts = {"n_images": 20, "shared_patients": 0, "unreadable": 2}
    row = ComparedRow(
        "wang",
        "Wang",
        folder="runs/wang",
        facts=facts,
        deviations=tuple(deviations),
        unchecked=None,
        comparisons=compare_row(plan, plan.rows[0], numbers),
        **state,
    )
    return ComparedTable(plan.name, plan.title, plan.protocol, plan.note, (row,))


def test_every_output_says_that_a_scaled_run_is_not_the_papers_setting():
    scaled, whole = table_of(["epochs 2 instead of 10", "no dogs (§2)"]), table_of()
    for render in (to_markdown, to_text):
        page = render(scaled)
        assert "Not the paper's setting. These numbers do not reproduce the table:" in page
        assert [line.strip() for line in page.splitlines() if line.strip().startswith("- ")][:2] == [
            "- epochs 2 instead of 10",
            "- no dogs (§2)",
        ]
        assert "Not the paper's setting" not in render(whole)
        assert "The paper's setting, according to every statement in docs/papers.md" in render(whole)
    content = json.loads(json.dumps(scaled.to_dict()))
    assert content["papers_setting"] is False
    assert content["deviations"] == ["epochs 2 instead of 10", "no dogs (§2)"]
    assert whole.to_dict()["papers_setting"] is True
    cell = content["rows"][0]["comparisons"][0]["cells"]["Mass"]
    assert cell["published"] == 0.6933
    assert cell["difference"] == pytest.approx(0.7 - 0.6933)
    assert table_of(state="failed", reason="no disk").to_dict()["papers_setting"] is False


def test_a_deviation_of_some_rows_names_them_and_what_was_not_compared_is_said():
    (row,) = table_of().rows
    first = replace(row, name="a", deviations=("of one", "of both"), unchecked="the register has nothing on a")
    table = replace(table_of(), rows=(first, replace(row, name="b", deviations=("of both",))))
    text = to_text(table)
    assert "do not reproduce the table:\n  - of both\na:\n  - of one\nNot compared" in text
    assert "do not reproduce the table:\n\n- of both\n\na:\n\n- of one\n\nNot compared" in to_markdown(table)
    assert "Not compared with the paper's setting: a: the register has nothing on a." in text
    assert table.papers_setting is False
    alone = replace(table, rows=(replace(first, deviations=()),))
    assert alone.to_dict()["papers_setting"] is None
    assert "Not compared with the paper's setting: the register has nothing on a." in to_markdown(alone)
    assert "The paper's setting, according to" not in to_markdown(alone)


def test_pages_show_ours_published_and_difference():
    page, text = to_markdown(table_of()), to_text(table_of())
    assert "| Mass | 0.700 (0.50–0.90) | 0.6933 | +0.007 |" in page
    assert "| mean of common | 0.750 | 0.6810 | +0.069 |" in page
    assert "| mean | 0.750 (0.60–0.80) |" in page
    (line,) = [line for line in text.splitlines() if line.startswith("Mass")]
    assert line.split() == ["Mass", "0.700", "(0.50–0.90)", "0.6933", "+0.007"]
    assert max(map(len, text.splitlines())) <= 100
    assert "2 test images could not be read" in page
    assert "wang: 2 test images could not be read" in text


def test_a_row_of_somebody_else_is_published_at_the_tables_own_t():
    plan = TABLES["seibold2"]
    (row,) = plan.choose(["wang2017"])
    found = compare_row(plan, row, ())
    assert [(of.measure, of.T) for of in found] == [("iou", t) for t in (0.1, 0.3, 0.5, 0.7)]
    assert found[0].title == "accuracy at IoU > 0.1"
    assert found[0].cells["Cardiomegaly"].published == 0.94
    assert found[0].cells["Cardiomegaly"].ours is None
    assert (found[0].mean.published, found[0].mean.digits) == (0.57, 2)
    assert any(remark.startswith("not comparable: Wang et al., Table 7") for remark in found[0].remarks)
