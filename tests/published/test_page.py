"""The sections of docs/papers.md that are written from the register."""

import pytest
import yaml

from cxrfast.errors import CxrfastError
from cxrfast.published import page, papers
from cxrfast.published.page import main, section, updated
from cxrfast.published.statements import read_paper
from tests.published.checks import ROOT

PAGE = """# Papers

By hand.

<!-- register: made2020 -->
old
<!-- end -->

<!-- register: later2021 -->
by hand until then
<!-- end -->
"""
PAPER = {
    "paper": "made2020",
    "citation": "Made up 2020, A | B",
    "method": "zhang",
    "notation": "`m` is the margin.\n",
    "statements": [
        {
            "id": "margin",
            "place": "§3, Eq. 4",
            "kind": "constant",
            "says": "m = 0.5",
            "status": "default",
            "setting": {"options.margin": 0.5},
            "code": ["cxrfast.losses:TripletLoss"],
            "tests": ["tests/losses/test_zhang.py"],
            "alternatives": [{"setting": {"options.margin": 1.0, "epochs": 3}, "says": "twice as far."}],
        },
        {
            "id": "weights",
            "place": "§4",
            "kind": "training",
            "says": "from ImageNet",
            "status": "option",
            "setting": {"pretrained": "imagenet", "augment": False},
            "reason": "|never| fetched\nunasked",
            "code": ["cxrfast/models/backbones.py"],
        },
        {
            "id": "batch",
            "place": "–",
            "kind": "training",
            "says": "not stated: batch size",
            "status": "default",
            "silent": True,
            "setting": {"batch_size": 48},
            "does": "48",
            "reason": "As the others.",
            "code": ["cxrfast.methods.zhang:Zhang.defaults"],
        },
        {
            "id": "other",
            "method": "li",
            "place": "§5",
            "kind": "training",
            "says": "something",
            "status": "deviation",
            "does": "Nothing.",
            "reason": "it is lost",
        },
    ],
}


@pytest.fixture
def paper():
    return read_paper(yaml.safe_dump(PAPER, allow_unicode=True, sort_keys=False), "made2020.yaml")


def test_a_section_has_a_row_for_every_statement_under_its_kind(paper):
    lines = section(paper).splitlines()
    assert lines[0] == "## Made up 2020, A | B"
    assert lines[2] == "`m` is the margin."
    assert lines[4] == (
        "Statements on method `zhang`, or where it is said on `li`: "
        "1 default, 1 option, 1 deviation, 1 ours, where the paper is silent."
    )
    assert [line for line in lines if line.startswith("### ")] == ["### Constants", "### Training"]
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| statement")]
    assert rows == [
        "| m = 0.5 | §3, Eq. 4 | default | `margin=0.5` "
        "| `TripletLoss` in `cxrfast.losses`, `tests/losses/test_zhang.py` | – "
        "| `margin=1.0`, `epochs: 3`: twice as far |",
        "| from ImageNet | §4 | option | `--pretrained imagenet`, `augment: false` | `cxrfast/models/backbones.py` "
        "| \\|never\\| fetched unasked. | – |",
        "| not stated: batch size | – | default (ours) | `batch_size: 48` "
        "| `Zhang.defaults` in `cxrfast.methods.zhang` | 48. As the others. | – |",
        "| something (`li`) | §5 | deviation | – | – | Nothing. it is lost. | – |",
    ]
    assert len({line.replace("\\|", "").count("|") for line in lines if line.startswith("|")}) == 1


def test_only_the_sections_of_papers_in_the_register_are_written(paper):
    found = updated(PAGE, [paper])
    assert "By hand." in found
    assert "by hand until then" in found
    assert "old" not in found
    assert f"<!-- register: made2020 -->\n{section(paper)}<!-- end -->" in found
    assert updated(found, [paper]) == found
    assert updated(PAGE, []) == PAGE
    with pytest.raises(CxrfastError, match="0 sections of made2020; expected one between '<!-- register"):
        updated("# Papers\n", [paper])
    with pytest.raises(CxrfastError, match="2 sections of made2020"):
        updated(PAGE + PAGE, [paper])


def test_the_command_writes_and_checks(paper, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page, "papers", lambda: (paper,))
    file = tmp_path / "papers.md"
    file.write_text(PAGE)
    assert main([str(file), "--check"]) == 1
    assert f"{file} is not up to date; run: python -m cxrfast.published.page {file}" in capsys.readouterr().err
    assert file.read_text() == PAGE
    assert main([str(file)]) == 0
    assert file.read_text() == updated(PAGE, [paper])
    assert main([str(file), "--check"]) == 0
    assert main([str(tmp_path / "none.md")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_the_page_of_the_papers_is_up_to_date():
    file = ROOT / "docs" / "papers.md"
    text = file.read_text(encoding="utf-8")
    assert text == updated(text, papers()), "run: python -m cxrfast.published.page docs/papers.md"
