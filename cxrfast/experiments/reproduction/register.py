"""The register's statements as settings of a run."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cxrfast.published import Statement, find_statements, papers
from cxrfast.training import RunConfig, build_config

_OPTION = "options."


def statements_on(paper: str, method: str) -> tuple[Statement, ...]:
    """The paper's statements on this method; if there are none, those of the method's own paper."""
    found = find_statements(paper=paper, method=method)
    if found:
        return found
    own = [of.paper for of in papers() if of.method == method]
    return tuple(statement for key in own for statement in find_statements(paper=key, method=method))


def merged(setting: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the setting of a statement into settings of the run and options of its method."""
    settings: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, value in setting.items():
        if name == "pretrained":
            options["pretrained"] = value == "imagenet"
        elif name.startswith(_OPTION):
            options[name.removeprefix(_OPTION)] = value
        else:
            settings[name] = value
    return settings, options


def papers_setting(found: Iterable[Statement]) -> dict[str, Any]:
    """The combined settings of these statements, without ablations and our own choices.

    If the paper has two values of a setting, the first is taken.
    """
    setting: dict[str, Any] = {}
    for statement in found:
        if statement.kind != "ablation" and not statement.silent:
            setting = {**statement.setting, **setting}
    return setting


def configured(method: str, setting: Mapping[str, Any]) -> RunConfig:
    """The method's defaults with the setting of a statement.

    Raises UsageError for an unknown setting or option, or an invalid value.
    """
    settings, options = merged(setting)
    return build_config({**settings, "method": method, "data": Path("data"), "options": options})


def value_of(config: RunConfig, name: str) -> Any:
    """The value of a setting in a configuration, by its name in the register."""
    if name == "pretrained":
        return config.options[name]
    return config.options[name.removeprefix(_OPTION)] if name.startswith(_OPTION) else getattr(config, name)


def stated(statement: Statement) -> dict[str, Any]:
    """The values of a statement's setting with the types of a configuration: 1e-3 is a number, a pair is a list."""
    config = configured(statement.method, statement.setting)
    return {name: value_of(config, name) for name in statement.setting}
