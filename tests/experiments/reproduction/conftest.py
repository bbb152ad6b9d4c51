"""A register of statements that a test writes itself."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from cxrfast.experiments.reproduction import register as of_runs
from cxrfast.published import statements as published


@pytest.fixture
def register(tmp_path, monkeypatch) -> Callable[..., None]:
    """``register("zhang2020", "zhang", {...}, {...})`` puts a paper with these statements in the place of all others.

    What a statement does not say is filled in: id, place "§1", kind, code.
    """

    def write(paper: str, method: str, *given: dict[str, Any]) -> None:
        filled = [
            {"id": f"s{n}", "place": "§1", "kind": "training", "says": "something", "status": "default", **statement}
            for n, statement in enumerate(given)
        ]
        for statement in filled:
            statement.setdefault("code", ["cxrfast.methods.base:Method"])
            if statement["status"] != "default" or statement.get("silent"):
                statement.setdefault("reason", "made up")
                statement.setdefault("does", "something else")
        content = {"paper": paper, "citation": "made up", "method": method, "statements": filled}
        folder = tmp_path / "statements"
        folder.mkdir(exist_ok=True)
        (folder / f"{paper}.yaml").write_text(yaml.safe_dump(content))
        found = tuple(published.read_papers(folder))
        for module in (published, of_runs):
            monkeypatch.setattr(module, "papers", lambda: found)

    return write
