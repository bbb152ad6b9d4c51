"""The page of a cross-validation."""

import json

import pytest

from cxrfast.errors import CxrfastError
from cxrfast.evaluation import RunNumbers, pool
from cxrfast.report import is_folds, render_folds, write_folds
from cxrfast.report.printed import BOXES
from tests.report.made_up import made_up

FACTS = {
    "protocol": "wang2017",
    "method": "made-up",
    "label_version": "2017",
    "folds": 2,
    "by": "image",
    "seeds": [0],
    "unannotated": 0.2,
    "splits_hash": "0123456789abcdef",
    "complete": True,
    "missing": ["fold-1/seed-1"],
    "n_patients": 40,
    "shared_patients": 3,
}


@pytest.fixture
def folder(tmp_path):
    """Two folds of all classes that Wang et al. print."""
    runs = []
    for fold in (0, 1):
        found = made_up(tmp_path / "images", 40, tuple(BOXES), seed=fold, protocol="wang2017")
        runs.append(RunNumbers(f"fold-{fold}/seed-0", fold, 0, found.numbers, found.predictions))
    pool(runs, FACTS, folds=2).save(tmp_path / "cross-validation.json")
    return tmp_path


def test_means_stand_beside_the_papers(folder, visit):
    assert is_folds(folder)
    path = write_folds(folder)
    assert path == folder / "report.html"
    html = path.read_text(encoding="utf-8")
    numbers = json.loads((folder / "cross-validation.json").read_text())
    area = numbers["mean"]["auroc"]
    assert f"{area['mean']:.3f} ± {area['sd']:.3f}<small>pooled {area['pooled']:.3f}</small>" in html
    row = numbers["localization"]["tables"][0]["rows"][0]["classes"]["Mass"]
    assert f'<td class="">{row["mean"]:.3f} ± {row["sd"]:.3f}<small>' in html
    for words in ("Wang et al. 2017, Table 7", "fold-1/seed-0", "20 %", "not finished yet", "Research use only"):
        assert words in html
    found = visit(html, width=390)
    assert found.console == []
    assert len(found.requests) == 1
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_damaged_result_is_one_line(folder):
    numbers = json.loads((folder / "cross-validation.json").read_text())
    del numbers["seeds"]
    with pytest.raises(CxrfastError, match="folds: cross-validation.json lacks 'seeds'; evaluate the cross-validation"):
        render_folds(numbers, "folds")
    (folder / "cross-validation.json").write_text("[1]")
    with pytest.raises(CxrfastError, match="expected an object, got list"):
        write_folds(folder)
