"""The page of a cross-validation."""

import json
import re
from dataclasses import replace

import pytest
import torch

from cxrfast.errors import CxrfastError
from cxrfast.evaluation import FoldEvaluation, pool
from cxrfast.metrics import calibrate, expected_calibration_error
from cxrfast.report import is_folds, write_folds
from cxrfast.report.published import BOXES
from tests.evaluation.cross_validation.heads import head_of
from tests.report.made_up import CUT_OFF, made_up

HEAD = head_of(
    "wang2017",
    by="image",
    validation_images=(5, 7),
    classes_left_out={"Hernia": 3},
    missing=("fold-1/seed-1",),
    n_patients=40,
    shared_patients=3,
)


def write_runs(folder, **options):
    """Two folds of all classes that Wang et al. print, with their own temperatures."""
    runs = []
    for fold, temperature in ((0, 0.5), (1, 2.0)):
        found = made_up(folder / "images", 40, tuple(BOXES), seed=fold, protocol="wang2017", **options)
        scores = found.predictions.prob
        calibrated = calibrate(scores, torch.full((scores.shape[1],), temperature))
        errors = expected_calibration_error(calibrated, found.predictions.labels).tolist()
        content = json.loads(found.record.to_json())
        for row, error in zip(content["classes"].values(), errors, strict=True):
            row["ece_calibrated"] = error
        place = folder / f"fold-{fold}" / "seed-0"
        place.mkdir(parents=True)
        (place / "evaluation-test.json").write_text(json.dumps(content))
        replace(found.predictions, prob_calibrated=calibrated).write_csv(place / "predictions.csv")
        files = place / "evaluation-test.json", place / "predictions.csv"
        runs.append(FoldEvaluation.load(f"fold-{fold}/seed-0", fold, 0, *files))
    pool(runs, HEAD).save(folder / "cross-validation.json")
    return runs


@pytest.fixture
def folder(tmp_path):
    write_runs(tmp_path)
    return tmp_path


def drawn(html, heading):
    """The panels under a heading, without their frames: [(class, figure, classes of the curves)]."""
    part = html.split(f'<h3 id="{heading}">')[1].split("<h3")[0].split("</section>")[0]
    panels = re.findall(r"<figcaption>(.*?)<span>(.*?)</span></figcaption>(.*?)</figure>", part)
    return [(name.replace("<wbr>", ""), said, re.findall('class="curve ([a-z]+)"', svg)) for name, said, svg in panels]


def test_means_stand_beside_the_papers(folder, visit):
    assert is_folds(folder)
    path = write_folds(folder)
    assert path == folder / "report.html"
    html = path.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    numbers = json.loads((folder / "cross-validation.json").read_text())
    area = numbers["mean"]["auroc"]
    assert f"{area['mean']:.3f} ± {area['sd']:.3f}<small>pooled {area['pooled']:.3f}</small>" in html
    row = numbers["localization"]["tables"][0]["rows"][0]["classes"]["Mass"]
    assert f'<td class="">{row["mean"]:.3f} ± {row["sd"]:.3f}<small>' in html
    assert "oracle region on this grid" in html
    assert f'<td class="">{row["oracle"]:.3f}</td>' in html
    for words in ("Wang et al. 2017, Table 7", "fold-1/seed-0", "20 %", "not finished yet", "Research use only"):
        assert words in html
    found = visit(html, width=390, scripts=False)
    assert found.console == []
    assert len(found.requests) == 1
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert visit(html, width=1280).page.evaluate(CUT_OFF) == []


def test_runs_that_have_a_page_are_linked(tmp_path):
    folder = tmp_path / "my folds"
    write_runs(folder)
    (folder / "fold-0" / "seed-0" / "report.html").write_text("")
    for out, place in ((None, ""), (tmp_path / "page.html", "my%20folds/")):
        html = write_folds(folder, out).read_text(encoding="utf-8")
        assert re.findall(r'<th scope="row"><a href="(.*?)">(.*?)</a>', html) == [
            (f"{place}fold-0/seed-0/report.html", "fold-0/seed-0")
        ]
        assert "Without a page (cxrfast report makes it): fold-1/seed-0." in html


def test_curves_of_every_run_and_of_all_images(folder):
    html = write_folds(folder).read_text(encoding="utf-8")
    numbers = json.loads((folder / "cross-validation.json").read_text())
    panels = {heading: drawn(html, heading) for heading in ("roc", "froc", "reliability")}
    kinds = {"roc": ["run", "run", "first"], "froc": ["run", "run", "first"], "reliability": ["first", "second"]}
    for heading, entries in panels.items():
        assert [name for name, _, _ in entries] == list(numbers["classes"])
        assert all(curves == kinds[heading] for _, _, curves in entries)
    for number, (name, row) in enumerate(numbers["classes"].items()):
        area = row["auroc"]
        said = f"AUROC {area['mean']:.3f} ± {area['sd']:.3f}, pooled {area['pooled']:.3f}"
        assert panels["roc"][number][1] == said
        sensitivity = numbers["detection"]["classes"][name]["froc"]
        assert panels["froc"][number][1] == f"mean {sensitivity['mean']:.3f} ± {sensitivity['sd']:.3f}"
        errors = (row["ece"]["pooled"], row["ece_calibrated"]["pooled"])
        assert panels["reliability"][number][1] == "ECE {:.3f}, {:.3f} calibrated".format(*errors)
        assert sum(entry["images"] for entry in row["reliability_calibrated"]) == 80


def test_tables_of_calibration_and_detections(folder):
    html = write_folds(folder).read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    numbers = json.loads((folder / "cross-validation.json").read_text())
    mass = numbers["classes"]["Mass"]["ece_calibrated"]
    pooled = f"<small>pooled {mass['pooled']:.3f}</small>"
    assert f'<td class="">{mass["mean"]:.3f} ± {mass["sd"]:.3f}{pooled}</td>' in html
    mean = numbers["detection"]["mean"]
    for entry in (mean["average_precision"][1], mean["sensitivity"][3], mean["froc"]):
        assert f'<td class="">{entry["mean"]:.3f} ± {entry["sd"]:.3f}</td>' in html
    for words in ("AP at IoU 0.3", "ECE, calibrated", "FROC: sensitivity at IoU 0.1", "1/8", "all folds, calibrated"):
        assert words in html


def test_runs_without_regions(tmp_path):
    write_runs(tmp_path, regions="none")
    html = write_folds(tmp_path).read_text(encoding="utf-8")
    assert "FROC" not in html
    assert len(drawn(html, "reliability")) == len(BOXES)


def test_a_fold_is_missing(tmp_path):
    runs = write_runs(tmp_path)
    pool(runs[:1], HEAD.model_copy(update={"missing": ("fold-1/seed-0",)})).save(tmp_path / "cross-validation.json")
    html = write_folds(tmp_path).read_text(encoding="utf-8")
    assert f"No curve, a fold is missing: {', '.join(BOXES)}." in html
    assert all(curves == ["run"] for _, _, curves in drawn(html, "roc"))
    assert "all folds, calibrated" not in html


def test_without_the_files_of_a_run_there_are_tables_only(folder):
    place = folder / "fold-1" / "seed-0"
    report = json.loads((place / "evaluation-test.json").read_text())
    (place / "evaluation-test.json").write_text(json.dumps({**report, "protocol": "own"}))
    html = write_folds(folder).read_text(encoding="utf-8")
    assert "was evaluated with other settings since; evaluate the cross-validation again." in html
    (place / "predictions.csv").unlink()
    html = write_folds(folder).read_text(encoding="utf-8")
    assert "No curves are shown: " in html
    assert "Boxes as detections" in html
    assert '<section id="curves"' not in html


def test_a_damaged_result_is_one_line(folder):
    path = folder / "cross-validation.json"
    numbers = json.loads(path.read_text())
    for change, words in (
        ({"seeds": None}, "seeds: Input should be a valid tuple"),
        ({"folds": "many"}, "folds: Input should be a valid integer"),
        ({"schema_version": 1}, "schema version 1; this cxrfast reads version 2; evaluate again"),
    ):
        path.write_text(json.dumps({**numbers, **change}))
        with pytest.raises(CxrfastError, match=f"cross-validation.json is .*{words}"):
            write_folds(folder)
    path.write_text("[1]")
    with pytest.raises(CxrfastError, match="expected an object, got list"):
        write_folds(folder)
