"""The register: every statement of a paper that specifies a method, and what the code does about it.

There is one YAML file per paper, in `statements/`:

    paper: zhang2020                # the file's name
    citation: Zhang et al. 2020, …  # one line
    method: zhang                   # the method whose defaults are described; a statement may name another
    statements:
      - id: anchors-only
        place: "§3, Eq. 7"
        kind: equation
        says: The cross-entropies are of the anchor images.
        status: default
        setting: {options.classified: anchors}
        code: [cxrfast.methods.zhang:Zhang.loss]
        tests: [tests/methods/test_zhang.py]

`status` is `default` (the code does by default what the text says), `option` (the paper's value needs an option, or is
an ablation) or `deviation` (the code does something else, or cannot do it). `setting` has the paper's values under the
names of a run's configuration, `options.NAME` for options of the method, or `pretrained: imagenet`. If the paper is
silent and a choice is necessary, the statement is a `default` with `silent: true`. For statements on evaluation, or on
the data of a table, `default` means that the paper's protocol, or its table in `cxrfast reproduce`, does this without
an option.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib.abc import Traversable
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cxrfast._yaml import parse_yaml
from cxrfast.errors import CxrfastError, UsageError

Kind = Literal["architecture", "equation", "constant", "training", "data", "evaluation", "ablation"]
Status = Literal["default", "option", "deviation"]
Setting = dict[str, Any]
_SETTING = re.compile(r"(options\.)?[a-zA-Z]\w*")
_CODE = re.compile(r"[\w.]+:[\w.]+|[\w./-]+")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("setting", check_fields=False)
    @classmethod
    def _named(cls, setting: Setting) -> Setting:
        for name in setting:
            if not _SETTING.fullmatch(name):
                raise ValueError(f"setting: expected NAME or options.NAME, got {name!r}")
        if setting.get("pretrained", "imagenet") != "imagenet":
            raise ValueError(f"pretrained: expected imagenet, got {setting['pretrained']!r}")
        return setting


class Alternative(_Entry):
    """Another reading of a statement, and the settings that implement it."""

    setting: Setting = Field(min_length=1)
    says: str = Field(min_length=1)


class Statement(_Entry):
    """One statement of a paper, paraphrased."""

    paper: str  # key: "zhang2020"
    method: str  # the method of cxrfast whose defaults are described
    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    place: str = Field(min_length=1)  # section, equation, table or figure
    kind: Kind
    says: str = Field(min_length=1)
    status: Status
    silent: bool = False  # the paper does not state it
    setting: Setting = {}  # the paper's values; empty if no option implements it
    code: tuple[str, ...] = ()  # "module:attribute", or the path of a file
    tests: tuple[str, ...] = ()  # paths
    does: str | None = None  # what the code does
    reason: str | None = None
    alternatives: tuple[Alternative, ...] = ()

    @model_validator(mode="after")
    def _explained(self) -> "Statement":
        what = "a choice of ours" if self.silent else {"option": "an option"}.get(self.status, f"a {self.status}")
        if self.silent and self.status != "default":
            raise ValueError(f"where the paper is silent the status is default, not {self.status}")
        if (self.status == "deviation" or self.silent) and not self.does:
            raise ValueError(f"{what} needs 'does': what the code does")
        if (self.status != "default" or self.silent) and not self.reason:
            raise ValueError(f"{what} needs a reason")
        if self.status == "option" and not self.setting and not self.does:
            raise ValueError("an option needs its setting, or 'does': how it is reached")
        if self.status != "deviation" and not self.code:
            raise ValueError(f"{what} needs 'code': where it is realised")
        for path in self.code:
            if not _CODE.fullmatch(path):
                raise ValueError(f"code {path!r}; expected module:attribute or the path of a file")
        return self

    @property
    def name(self) -> str:
        """Paper and id, which identify it in the register."""
        return f"{self.paper}, {self.id}"


class Paper(_Entry):
    """A paper with all its statements, in the order of the text."""

    paper: str = Field(pattern=r"^[a-z0-9]+$")
    citation: str = Field(min_length=1)
    method: str
    notation: str | None = None  # meaning of the symbols in its statements
    statements: tuple[Statement, ...] = Field(min_length=1)


@cache
def papers() -> tuple[Paper, ...]:
    """All papers of the register."""
    return tuple(read_papers(files("cxrfast.published") / "statements"))


def find_paper(key: str) -> Paper:
    """The paper with this key, such as "zhang2020". Raises :class:`UsageError`, which lists all keys, for another."""
    for paper in papers():
        if paper.paper == key:
            return paper
    known = ", ".join(paper.paper for paper in papers()) or "none"
    raise UsageError(f"paper: expected one of {known}, got {key!r}")


def find_statements(
    *, paper: str | None = None, method: str | None = None, kind: Kind | None = None, status: Status | None = None
) -> tuple[Statement, ...]:
    """The statements with all of the given properties; for example
    ``find_statements(method="zhang", status="deviation")``."""
    wanted = {"paper": paper, "method": method, "kind": kind, "status": status}
    given = {name: value for name, value in wanted.items() if value is not None}
    everything = (statement for of in papers() for statement in of.statements)
    return tuple(of for of in everything if all(getattr(of, name) == value for name, value in given.items()))


def read_papers(folder: Traversable) -> Iterator[Paper]:
    """The papers of all YAML files of a folder, in the order of the file names.

    Raises :class:`CxrfastError`, in one line with the file and the statement's id, for invalid content.
    """
    if not folder.is_dir():
        return
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            yield read_paper(file.read_text(encoding="utf-8"), file.name)


def read_paper(text: str, file: str) -> Paper:
    """One file's content; see :func:`read_papers`."""
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise CxrfastError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("statements"), list):
        raise CxrfastError(f"{file}: expected paper, citation, method and a list of statements")
    shared = {"paper": content.get("paper"), "method": content.get("method")}
    found = [_statement(entry, shared, file) for entry in content["statements"]]
    ids = [statement.id for statement in found]
    for name in ids:
        if ids.count(name) > 1:
            raise CxrfastError(f"{file}, {name}: two statements have this id")
    try:
        paper = Paper(**{**content, "statements": tuple(found)})
    except ValidationError as error:
        raise CxrfastError(f"{file}: {_first(error)}") from error
    if file != f"{paper.paper}.yaml":
        raise CxrfastError(f"{file}: is of paper {paper.paper!r}; a file has its paper's name")
    return paper


def _statement(entry: Any, shared: dict[str, Any], file: str) -> Statement:
    if not isinstance(entry, dict):
        raise CxrfastError(f"{file}: expected statements of 'name: value' lines, got {entry!r}")
    if "paper" in entry:
        raise CxrfastError(f"{file}, {entry.get('id')}: a statement is of its file's paper; leave out paper")
    try:
        return Statement(**{**shared, **entry})
    except (ValidationError, TypeError) as error:
        reason = _first(error) if isinstance(error, ValidationError) else "names must be text"
        raise CxrfastError(f"{file}, {entry.get('id', 'a statement without id')}: {reason}") from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    reason = {"extra_forbidden": "unknown field", "missing": "required"}.get(first["type"], first["msg"])
    return f"{name}: {reason}" if name else reason.removeprefix("Value error, ")
