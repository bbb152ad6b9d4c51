"""Nothing is forgotten when something is added: the checklists of CONTRIBUTING.md hold for everything there is."""

import re

import pytest

from tests.checklists import CHECKLISTS, ROOT, WITHOUT, entries, missing
from tests.test_architecture import MODULES

ENTRIES = [(kind, *entry) for kind in CHECKLISTS for entry in entries(kind)]


@pytest.mark.parametrize(("kind", "name", "op"), ENTRIES, ids=[f"{kind} {name}" for kind, name, _ in ENTRIES])
def test_every_file_knows_what_there_is(kind, name, op):
    forgotten = missing(kind, name, op)
    assert not forgotten, f"{kind} {name} is missing in {', '.join(forgotten)}; see CONTRIBUTING.md"


@pytest.mark.parametrize("kind", CHECKLISTS)
def test_what_is_forgotten_is_found(kind):
    """An entry that nobody has heard of is missing in every file; entries are found at all."""
    paths = [item.path.replace("<name>", "unheard_of").replace("<op>", "unheard_of") for item in CHECKLISTS[kind]]
    assert missing(kind, "unheard_of") == paths
    assert entries(kind)


def test_what_an_entry_does_without_is_still_missing():
    """A reason that is no longer needed has to go."""
    for (name, path), reason in WITHOUT.items():
        kind, op = next((kind, op) for kind, of, op in ENTRIES if of == name)
        absent = [item.missing(name=name, op=op) for item in CHECKLISTS[kind]]
        assert path in absent, reason


@pytest.mark.parametrize("kind", CHECKLISTS)
def test_contributing_names_every_file(kind):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("\n## Add an operator\n" if kind == "operator" else f"\n### A {kind}\n")[1].split("\n#")[0]
    unnamed = [item.path for item in CHECKLISTS[kind] if f"`{item.path}`" not in section]
    assert not unnamed


def test_every_package_is_installed():
    packages = {module.name for module in MODULES if module.path.name == "__init__.py"}
    listed = re.search(r"^packages = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M | re.S)
    assert listed is not None
    assert packages == set(re.findall(r'"([^"]+)"', listed[1])) - TEMPLATES


TEMPLATES = {"cxrfast.published.statements", "cxrfast.published.tables", "cxrfast.report.html.templates"}
"""Folders of data, without Python."""
