"""What a statement of the register claims, checked against the code."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cxrfast.experiments.reproduction.register import configured, stated, value_of
from cxrfast.methods import get_method
from cxrfast.published import Statement

ROOT = Path(__file__).parents[2]


def places_exist(statement: Statement) -> None:
    """Every place in the code can be imported, every file exists, and so does a test that is named."""
    for path in statement.code:
        module, _, attribute = path.partition(":")
        if attribute:
            found: Any = importlib.import_module(module)
            for name in attribute.split("."):
                found = _member(found, name, path)
        else:
            assert (ROOT / path).exists(), f"there is no {path}"
    for path in statement.tests:
        file, _, test = path.partition("::")
        assert (ROOT / file).exists(), f"there is no {file}"
        assert not test or f"def {test}(" in (ROOT / file).read_text(), f"{file} has no {test}"


def _member(owner: Any, name: str, path: str) -> Any:
    """An attribute, or a field of a pydantic model or a dataclass, which need not be one."""
    if hasattr(owner, name):
        return getattr(owner, name)
    fields = {**getattr(owner, "model_fields", {}), **getattr(owner, "__dataclass_fields__", {})}
    assert name in fields, f"{path}: {owner.__name__} has no {name}"
    return fields[name]


def default_is_what_it_says(statement: Statement) -> None:
    """The method's defaults have the paper's values: those of a run, and those of its options alone."""
    assert "pretrained" not in statement.setting, "weights are never fetched unasked: pretrained is an option"
    unasked, options = configured(statement.method, {}), get_method(statement.method).Options()
    for name, value in stated(statement).items():
        assert value_of(unasked, name) == value, f"{name}: the default is {value_of(unasked, name)!r}, not {value!r}"
        if name.startswith("options."):
            assert options.model_dump(mode="json")[name.removeprefix("options.")] == value


def setting_is_another_than_the_default(statement: Statement) -> None:
    unasked = configured(statement.method, {})
    assert any(value_of(unasked, name) != value for name, value in stated(statement).items())


def alternatives_are_other_settings(statement: Statement) -> None:
    unasked, own = configured(statement.method, {}), stated(statement)
    for alternative in statement.alternatives:
        values = stated(statement.model_copy(update={"setting": alternative.setting}))
        assert any(own.get(name, value_of(unasked, name)) != value for name, value in values.items()), alternative.says


def probes_of(paper: str) -> dict[str, Callable[[], None]]:
    """The probes of a paper's statements by their ids, from `probes_PAPER.py` and `probes_PAPER_PART.py` beside this
    file."""
    folder, found = Path(__file__).parent, {}
    for file in sorted([*folder.glob(f"probes_{paper}.py"), *folder.glob(f"probes_{paper}_*.py")]):
        probes = importlib.import_module(f"tests.published.{file.stem}").PROBES
        assert not probes.keys() & found.keys(), f"{file.name} has a probe that another file has"
        found |= probes
    return found
