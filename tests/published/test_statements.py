"""The register of statements: what a file has to be, and what it says of the code holds."""

import copy

import pytest
import yaml

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.published import find_paper, find_statements, papers
from cxrfast.published.statements import Statement, read_paper, read_papers
from tests.interpreter import run_code
from tests.published import checks

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
        (
            {"setting": {"options classified": "anchors"}},
            "setting: expected NAME or options.NAME, got 'options classified'",
        ),
        ({"setting": {"pretrained": True}}, "pretrained: expected imagenet, got True"),
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
        (
            {"statements": [STATEMENT, copy.deepcopy(STATEMENT)]},
            "made2020.yaml, anchors-only: two statements have this id",
        ),
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
    with pytest.raises(UsageError, match="paper: expected one of .*, got 'zhang'"):
        find_paper("zhang")


def test_the_papers_as_data_import_nothing_else_of_the_package():
    code = "import sys, cxrfast.published; print(*sorted(n for n in sys.modules if n.startswith('cxrfast.')))"
    imported = run_code(code).stdout.split()
    assert [name for name in imported if not name.startswith("cxrfast.published")] == [
        "cxrfast._files",
        "cxrfast._yaml",
        "cxrfast.errors",
    ]


# What the register says of the code

REGISTER = find_statements()
EACH = pytest.mark.parametrize("statement", REGISTER, ids=[statement.name for statement in REGISTER])
PROBES = {(paper.paper, name): probe for paper in papers() for name, probe in checks.probes_of(paper.paper).items()}


def some(keep):
    found = [statement for statement in REGISTER if keep(statement)]
    return pytest.mark.parametrize("statement", found, ids=[statement.name for statement in found])


@EACH
def test_the_places_of_a_statement_exist(statement):
    checks.places_exist(statement)


@some(lambda of: of.status == "default" and of.setting)
def test_a_default_is_what_the_paper_states(statement):
    checks.default_is_what_it_says(statement)


@some(lambda of: of.status == "default" and not of.setting)
def test_a_default_that_no_setting_shows_has_a_probe(statement):
    assert (statement.paper, statement.id) in PROBES, f"write one in tests/published/probes_{statement.paper}.py"


@pytest.mark.parametrize("key", PROBES, ids=", ".join)
def test_a_probe_finds_what_its_statement_says(key):
    assert any((statement.paper, statement.id) == key for statement in REGISTER), "the probe is of no statement"
    PROBES[key]()


@some(lambda of: of.status != "default" and of.setting)
def test_the_setting_of_an_option_or_a_deviation_is_valid_and_no_default(statement):
    checks.setting_is_another_than_the_default(statement)


@some(lambda of: of.alternatives)
def test_alternatives_are_valid(statement):
    checks.alternatives_are_other_settings(statement)


def made_up(**changes):
    return Statement(**{**STATEMENT, "paper": "p", "method": "chexnet", "setting": {"epochs": 15}, **changes})


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            "places_exist",
            {"code": ["cxrfast.methods.chexnet:CheXNet.loss"]},
            {"code": ["cxrfast.methods.chexnet:CheX"]},
        ),
        ("places_exist", {"code": ["cxrfast.training:RunConfig.epochs"]}, {"code": ["cxrfast.training:RunConfig.eps"]}),
        ("places_exist", {"code": ["cxrfast/methods/base.py"]}, {"code": ["cxrfast/methods/basis.py"]}),
        ("places_exist", {"tests": ["tests/experiments/test_demo.py"]}, {"tests": ["tests/test_demos.py"]}),
        (
            "places_exist",
            {"tests": ["tests/tolerances.py"]},
            {"tests": ["tests/experiments/test_demo.py::test_nothing"]},
        ),
        ("default_is_what_it_says", {"setting": {"lr": "1e-3"}}, {"setting": {"lr": 0.01}}),
        ("default_is_what_it_says", {"setting": {"options.upsample": 8}}, {"setting": {"options.upsample": 2}}),
        ("default_is_what_it_says", {}, {"setting": {"pretrained": "imagenet"}}),
        ("setting_is_another_than_the_default", {"setting": {"epochs": 9, "lr": 0.001}}, {"setting": {"epochs": 15}}),
        ("setting_is_another_than_the_default", {"setting": {"pretrained": "imagenet"}}, {"setting": {"lr": "1e-3"}}),
        (
            "alternatives_are_other_settings",
            {"alternatives": [{"setting": {"epochs": 9}, "says": "s"}]},
            {"alternatives": [{"setting": {"epochs": 15}, "says": "s"}]},
        ),
    ],
)
def test_the_checks_find_what_is_wrong(check, good, bad):
    getattr(checks, check)(made_up(**{"code": [], "status": "deviation", "does": "d", "reason": "r", **good}))
    with pytest.raises(AssertionError):
        getattr(checks, check)(made_up(**{"code": [], "status": "deviation", "does": "d", "reason": "r", **bad}))


@pytest.mark.parametrize("check", ["setting_is_another_than_the_default", "default_is_what_it_says"])
def test_a_setting_that_no_run_has_is_an_error(check):
    for setting in ({"epoch": 1}, {"options.edges": 1}, {"options.upsample": "much"}):
        with pytest.raises(UsageError):
            getattr(checks, check)(made_up(setting=setting))
