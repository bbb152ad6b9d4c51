"""What stands on a page, without a browser; and that the page of a folder is that of the evaluation."""

import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from cxrfast.data import read_chestxray14
from cxrfast.errors import CxrfastError
from cxrfast.evaluation import EvaluationRecord
from cxrfast.experiments.evaluate_run import evaluate_run
from cxrfast.predictions.table import read_predictions
from cxrfast.published import rows
from cxrfast.report import from_folder, from_predictions, from_result, render_report
from cxrfast.report.facts import read_run
from cxrfast.report.published import (
    BOXES,
    TEST_IMAGES,
    other_images,
    other_places,
    published_accuracies,
    published_auroc,
)
from cxrfast.runs import RunDirectory
from tests.report.made_up import made_up


@pytest.fixture(scope="module")
def evaluated_run(trained, tmp_path_factory):
    """A finished run's folder with its evaluation, and that evaluation."""
    folder = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(trained, folder)
    return folder, evaluate_run(folder)


def test_evaluate_writes_the_page(evaluated_run):
    folder, assessment = evaluated_run
    assert assessment.page == folder / "report.html" == RunDirectory(folder).report()
    html = assessment.page.read_text(encoding="utf-8").replace("<wbr>", "")
    for words in ("Research use only", "stage unary", "stage crf", "crf_kernel_size", "Cases", "Viewer", "0</dd>"):
        assert words in html
    assert len(html) < 2_000_000


def test_the_page_of_a_folder_is_that_of_the_evaluation(evaluated_run, phantoms):
    folder, assessment = evaluated_run
    again = from_folder(folder)
    assert again.notes == ()
    now = from_result(assessment.result, read_chestxray14(phantoms).records, folder)
    assert render_report(again) == render_report(now) == assessment.page.read_text(encoding="utf-8")


def test_without_the_data_set_there_are_numbers_but_no_cases(evaluated_run, tmp_path):
    folder, _ = evaluated_run
    found = from_folder(folder, data=tmp_path / "nowhere")
    html = render_report(found)
    assert "No cases are shown: no folder" in html
    assert 'id="cases"' not in html
    assert 'id="viewer"' not in html
    assert 'aria-label="ROC curve of' in html


def test_folders_without_an_evaluation_say_what_to_do(trained, tmp_path):
    with pytest.raises(
        CxrfastError, match="expected an evaluation of the test part, got no .*; run: cxrfast evaluate "
    ):
        from_folder(trained)
    with pytest.raises(CxrfastError, match="run: expected a folder, got .*nowhere, which does not exist"):
        from_folder(tmp_path / "nowhere")
    (tmp_path / "evaluation-test.json").write_text('{"a": 1}')
    with pytest.raises(CxrfastError, match=r"evaluation-test\.json is .* schema version 1; .*; evaluate again"):
        from_folder(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("mean",), None, "mean: Field required"),
        (("mean",), 3, "mean: Input should be a valid dictionary"),
        (("classes", "Mass", "auroc"), None, "classes.Mass.auroc: Field required"),
        (("localization", "tables"), {}, "localization.tables: Input should be a valid tuple"),
        (("localization", "tables", 0, "rows", 1, "mean"), None, "localization.tables.0.rows.1.mean: Field required"),
        (("detection", "froc", "curves"), None, "detection.froc.curves: Field required"),
    ],
)
def test_a_damaged_evaluation_is_one_line(tmp_path, path, value, said):
    numbers = json.loads(made_up(tmp_path / "images", 12, ("Mass",)).record.to_json())
    *way, last = path
    place = numbers
    for name in way:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    (tmp_path / "evaluation-test.json").write_text(json.dumps(numbers))
    with pytest.raises(CxrfastError, match=rf"is not an evaluation of this version \({said}.*\); evaluate again"):
        from_folder(tmp_path)


def test_learning_curves_that_are_no_objects(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("[1]\n")
    with pytest.raises(CxrfastError, match=r"metrics\.jsonl is damaged \(a line is no object\); delete it"):
        read_run(tmp_path)


@pytest.mark.parametrize("kept", [0.3, 0.5, "rows", "images", "other images"])
def test_numbers_and_predictions_are_of_the_same_images(evaluated_run, tmp_path, kept):
    folder = shutil.copytree(evaluated_run[0], tmp_path / "run")
    path = folder / "predictions.csv"
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    classes = len(json.loads((folder / "evaluation-test.json").read_text())["classes"])
    if isinstance(kept, float):
        text = text[: int(kept * len(text))]
    elif kept == "other images":
        text = text.replace(lines[1].split(",")[0], "somebody.png")
    else:
        text = "".join(lines[: -1 if kept == "rows" else -classes])
    path.write_text(text)
    with pytest.raises(CxrfastError, match=r"predictions\.csv.*; evaluate again"):
        from_folder(folder)


def test_predictions_come_back_from_their_file(evaluated_run):
    _, assessment = evaluated_run
    predictions = assessment.result.predictions
    again = read_predictions(assessment.predictions)
    assert (again.class_names, again.images, again.patients) == (
        predictions.class_names,
        list(predictions.images),
        list(predictions.patients),
    )
    for name in ("prob", "labels", "n_boxes"):
        np.testing.assert_array_equal(getattr(again, name), getattr(predictions, name))
    for name in ("iou", "ior"):
        np.testing.assert_allclose(getattr(again, name), getattr(predictions, name), rtol=1e-5)


def test_the_page_of_a_file_of_scores(evaluated_run, phantoms, tmp_path):
    from cxrfast.evaluation.offline import evaluate_data_set

    folder, _ = evaluated_run
    result = evaluate_data_set([folder / "predictions.csv"], phantoms, splits=folder / "splits.json")
    html = render_report(from_predictions(result, phantoms))
    assert "ROC curve of" in html
    assert 'id="places"' not in html
    assert 'id="configuration"' not in html


def test_nothing_on_a_page_leads_out(tmp_path):
    html = render_report(made_up(tmp_path, 20, ("Mass", "Nodule")))
    targets = re.findall(r'(?:href|src)="([^"]*)"', html)
    assert targets
    assert all(target.startswith(("#", "data:")) for target in targets)
    assert "@import" not in html
    assert "url(" not in html
    assert "default-src &#39;none&#39;" in html


def test_numbers_that_do_not_exist_are_dashes_with_a_reason(tmp_path):
    evaluated = made_up(tmp_path, 3, ("Mass", "Nodule"), boxed=("Mass",))
    html = render_report(evaluated)
    missing = [name for name, row in evaluated.record.classes.items() if math.isnan(row.auroc)]
    assert missing
    assert f"– No negative image, so no AUROC, and not in the mean: {', '.join(missing)}." in html
    assert "– No annotated box, so nothing to localise, and not in the mean: Nodule." in html
    assert "nan" not in re.sub(r"data:[^\"]*", "", html).lower().split("<style>")[0]


def test_means_have_the_intervals_that_the_evaluation_has(tmp_path):
    evaluated = made_up(tmp_path, 80, ("Mass", "Nodule"))
    numbers = json.loads(evaluated.record.to_json())
    means = [*numbers["mean"].values(), *(row["mean"] for t in numbers["localization"]["tables"] for row in t["rows"])]
    assert len(means) == 2 + 4 * 4
    html = render_report(evaluated)
    for mean in means:
        low, high = mean["interval"]
        mean["interval"] = None
        assert low <= mean["value"] <= high
        assert f"{mean['value']:.3f}<small>{low:.2f}–{high:.2f}</small>" in html
    low, high = evaluated.record.mean.auroc.interval
    assert f"<small>{low:.2f}–{high:.2f} (95 %); 2 classes</small>" in html
    without = render_report(replace(evaluated, record=EvaluationRecord.model_validate(numbers)))
    assert f"<b>{means[0]['value']:.3f}</b><span>mean AUROC</span><small>2 classes</small>" in without
    assert f'<td class="">{means[0]["value"]:.3f}</td>' in without


def test_papers_stand_beside_the_same_protocol_only(tmp_path):
    published = '<tr class="published"><th scope="row">Wang et al. 2017, Table 7\N{NO-BREAK SPACE}*</th>'
    assert published in render_report(made_up(tmp_path, 20, tuple(BOXES), protocol="wang2017"))
    strict = render_report(made_up(tmp_path, 20, tuple(BOXES)))
    assert published not in strict
    assert "No paper publishes numbers by protocol strict." in strict
    assert "The papers&#39; numbers cannot be compared with this model&#39;s: they are for the 25,596 images" in strict


def test_tables_that_could_not_be_read_are_named_where_they_belong(tmp_path, monkeypatch):
    li = render_report(made_up(tmp_path, 20, tuple(BOXES), protocol="li2018"))
    assert "Li et al. 2018, Table localisation is not available here: " in li.split('<section id="places"')[1]

    everything = rows(metric="auroc", method="sgl")
    lost = [line.model_copy(update={"values": None, "mean": None, "unavailable": "lost"}) for line in everything]

    def some(available=None, protocol=None, **wanted):
        return () if protocol else everything if available else lost

    monkeypatch.setattr("cxrfast.report.published.rows", some)
    evaluated = made_up(tmp_path, 20, tuple(BOXES), protocol="wang2017")
    html = render_report(replace(evaluated, record=evaluated.record.model_copy(update={"method": "sgl"})))
    scores, places = html.split('<section id="places"')
    missing = "Seibold et al. 2020, Table 1 is not available here: lost"
    assert missing in scores.split('<section id="scores"')[1]
    assert missing not in places


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """An evaluation of the classes that have boxes in ChestX-ray14, and of one that has none."""
    return made_up(tmp_path_factory.mktemp("record"), 20, (*BOXES, "Hernia"), boxed=tuple(BOXES)).record


def test_lines_of_others_stand_once_and_those_of_the_method_first(record):
    def names(method):
        return [line.name for line in published_auroc(record.model_copy(update={"method": method}))]

    assert names("sgl")[0] == "Seibold et al. 2020, Table 1, SGL"
    assert names("zhang")[:4] == [
        f"Zhang et al. 2020, Table 1, {row}" for row in ("both", "distance learning", "region verification", "neither")
    ]
    for method in ("sgl", "li", "wang", "zhang"):
        found = names(method)
        assert len(found) == len(set(found))
        assert sum("Li et al." in name for name in found) == 1  # of two copies
        # Of Tables 3 and 17 themselves, no copy; their other networks only beside their method
        assert sum("Wang et al." in name for name in found) == (6 if method == "wang" else 2)
    assert [name for name in names("sgl") if name.startswith("Zhang")] == ["Zhang et al. 2020, Table 1, both"]


def test_rows_of_a_mean_alone_stand_in_no_table_of_classes(record):
    found = published_accuracies(record.model_copy(update={"protocol": "zhang2020"}), "accuracy", "iou", 0.3)
    assert [line.name.split(", Table ")[1] for line in found] == [
        "2, both",
        "2, Wang et al.",
        "2, Li et al.",
        "2, CIA-Net",
    ]


def test_what_is_comparable(record):
    def counted(annotated, n_images):
        classes = {
            name: row.model_copy(update={"n_annotated": annotated.get(name, 0)}) for name, row in record.classes.items()
        }
        return record.model_copy(update={"classes": classes, "n_images": n_images})

    official = counted(BOXES, TEST_IMAGES)
    assert other_places(official) == other_images(official) == ""
    assert "these for 983 annotations" in other_places(counted({**BOXES, "Mass": 84}, TEST_IMAGES))
    assert "these for 3 images" in other_images(counted(BOXES, 3))


def test_a_viewer_has_valid_data(tmp_path):
    html = render_report(made_up(tmp_path, 20, ("</script><b>", "Mass")))
    (text,) = re.findall(r'<script type="application/json" id="viewer-data">(.*?)</script>', html)
    assert json.loads(text)["classes"][0]["name"] == "</script><b>"
