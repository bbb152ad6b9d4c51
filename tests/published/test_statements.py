"""The register of statements: what a file has to be, and what it says of the code holds."""

import copy

import pytest
import yaml

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.published import find_paper, find_statements, papers
from cxrfast.published.statements import read_paper, read_papers
from tests.interpreter import run_code

STATEMENT = {
    "id": "anchors-only",
    "place": "§3, Eq. 7",
    "kind": "equation",
    "says": "The cross-entropies are of the anchors.",
    "status": "default",
    "setting": {"options.classified": "anchors"},
    "code": ["cxrfast.methods.zhang:Zhang.loss"],
}
PAPER = {"paper": "made2020", "citation": "Made up 2020", "method": "zhang", "statements": [STATEMENT]}


def read(change=None, *, of_paper=None, file="made2020.yaml"):
    """The paper above with some fields changed; None takes a field away."""
    statement = {name: value for name, value in {**STATEMENT, **(change or {})}.items() if value is not None}
    content = {**copy.deepcopy(PAPER), "statements": [statement], **(of_paper or {})}
    content = {name: value for name, value in content.items() if value is not None}
    return read_paper(yaml.safe_dump(content, allow_unicode=True), file)


def test_a_statement_has_its_papers_method_unless_it_names_another():
    (statement,) = read().statements
    assert (statement.paper, statement.method, statement.name) == ("made2020", "zhang", "made2020, anchors-only")
    assert statement.setting == {"options.classified": "anchors"}
    (statement,) = read({"method": "li"}).statements
    assert statement.method == "li"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"staus": "default"}, "anchors-only: staus: unknown field"),
        ({"status": "done"}, "anchors-only: status: Input should be 'default', 'option' or 'deviation'"),
        ({"kind": "formula"}, "anchors-only: kind: Input should be 'architecture', 'equation'"),
        ({"id": "Anchors only"}, "Anchors only: id: String should match"),
        ({"id": None}, "a statement without id: id: required"),
        ({"place": None}, "anchors-only: place: required"),
        ({"says": ""}, "anchors-only: says: "),
        ({"paper": "other"}, "anchors-only: a statement is of its file's paper"),
        ({"status": "option"}, "anchors-only: an option needs a reason"),
        ({"status": "option", "reason": "r", "setting": {}}, "anchors-only: an option needs its setting, or 'does'"),
        ({"status": "deviation", "reason": "r"}, "anchors-only: a deviation needs 'does'"),
        ({"status": "deviation", "does": "d"}, "anchors-only: a deviation needs a reason"),
        ({"silent": True, "does": "d"}, "anchors-only: a choice of ours needs a reason"),
        ({"silent": True, "reason": "r"}, "anchors-only: a choice of ours needs 'does'"),
        ({"silent": True, "status": "deviation", "does": "d", "reason": "r"}, "the status is default, not deviation"),
        ({"code": None}, "anchors-only: a default needs 'code'"),
        ({"code": ["the loss"]}, "anchors-only: code 'the loss'; expected module:attribute"),
        ({"setting": {"options classified": "anchors"}}, "'options classified' is no name of a setting"),
        ({"setting": {"pretrained": True}}, "pretrained is True; expected imagenet"),
        ({"alternatives": [{"setting": {"lr": 1}}]}, "anchors-only: alternatives.0.says: required"),
        ({"alternatives": [{"setting": {}, "says": "s"}]}, "anchors-only: alternatives.0.setting: "),
    ],
)
def test_what_is_wrong_with_a_statement_is_one_line_with_file_and_id(change, reason):
    with pytest.raises(CxrfastError) as error:
        read(change)
    assert str(error.value).startswith("made2020.yaml, ")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"statements": [STATEMENT, STATEMENT]}, "made2020.yaml, anchors-only: two statements have this id"),
        ({"statements": []}, "made2020.yaml: statements: "),
        ({"statements": ["text"]}, "made2020.yaml: expected statements of 'name: value' lines, got 'text'"),
        ({"statements": None}, "made2020.yaml: expected paper, citation, method and a list of statements"),
        ({"citation": None}, "made2020.yaml: citation: required"),
        ({"year": 2020}, "made2020.yaml: year: unknown field"),
        ({"paper": "other2020"}, "made2020.yaml: is of paper 'other2020'; a file has its paper's name"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(content, reason):
    with pytest.raises(CxrfastError) as error:
        read(of_paper=content)
    assert str(error.value).startswith(reason)
    assert "\n" not in str(error.value)


def test_a_name_that_stands_twice_is_refused_and_so_is_what_is_not_yaml():
    text = yaml.safe_dump(PAPER).replace("  kind: equation", "  kind: equation\n  kind: data")
    with pytest.raises(CxrfastError, match=r"made2020.yaml: not valid YAML: 'kind' stands twice .*line \d+"):
        read_paper(text, "made2020.yaml")
    with pytest.raises(CxrfastError, match="made2020.yaml: not valid YAML: "):
        read_paper("paper: made2020\n  says: no: nesting", "made2020.yaml")


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    for key in ("b2020", "a2019"):
        (tmp_path / f"{key}.yaml").write_text(yaml.safe_dump({**PAPER, "paper": key}))
    (tmp_path / "README.md").write_text("no statements")
    assert [paper.paper for paper in read_papers(tmp_path)] == ["a2019", "b2020"]
    assert list(read_papers(tmp_path / "none")) == []


def test_statements_are_found_by_paper_method_and_status():
    everything = find_statements()
    assert len(everything) == sum(len(paper.statements) for paper in papers())
    for paper in papers():
        assert find_paper(paper.paper) is paper
        assert find_statements(paper=paper.paper) == paper.statements
        for status in ("default", "option", "deviation"):
            found = find_statements(paper=paper.paper, method=paper.method, status=status)
            assert all((of.method, of.status) == (paper.method, status) for of in found)
    with pytest.raises(UsageError, match="paper is 'zhang'; the register has "):
        find_paper("zhang")


def test_the_papers_as_data_import_nothing_else_of_the_package():
    code = "import sys, cxrfast.published; print(*sorted(n for n in sys.modules if n.startswith('cxrfast.')))"
    imported = run_code(code).stdout.split()
    assert [name for name in imported if not name.startswith("cxrfast.published")] == ["cxrfast.errors"]
