"""The published numbers as data: per class and T, with table, protocol, source, and whether they are comparable.

There is one YAML file per paper, in `tables/`. Every number was read in a publication, which `source` names. A row with
only a published mean over its classes has no `values`. A row that was not available has neither, but a reason
(`unavailable`).
"""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from cxrfast._yaml import PlainLoader, parse_yaml
from cxrfast.errors import CxrfastError, UsageError

Metric = Literal["auroc", "accuracy", "afp"]
# Between a published mean and the mean of the published values, in units of the last published digit.
MEAN_TOLERANCE = 0.6


class PublishedRow(BaseModel):
    """One row of a published table: one number per class, by one metric and, if applicable, one measure and T."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paper: str  # key of the paper, as in protocols: "wang2017"
    citation: str
    url: str
    table: str  # its number
    title: str
    row: str = ""  # as published; "" if the table has a single row
    metric: Metric
    measure: Literal["iou", "ior"] | None = None  # of accuracy and AFP; "ior" is also called IoBB
    T: float | None = None
    protocol: str | None = None  # of accuracy and AFP: name of the entry of protocols.py
    method: str | None = None  # the method of cxrfast that the row belongs to
    copied_from: str | None = None  # key of the paper whose numbers the row quotes
    labels: str  # "ChestX-ray8" or "ChestX-ray14"
    split: str
    classes: tuple[str, ...]
    values: dict[str, float] | None = None  # per class; None: not available, or not published
    digits: int = 4  # decimals of the published values
    mean: float | None = None  # as published
    mean_digits: int = 4
    unavailable: str | None = None  # why there are no values
    source: str | None = None  # where the values were read
    comparable: bool  # with a run of cxrfast by the same protocol
    why: str | None = None  # reason why it is not comparable
    remark: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "PublishedRow":
        known = self.values is not None or self.mean is not None
        if known != (self.unavailable is None):
            raise ValueError("expected either values or a mean, or the reason why they are unavailable")
        if known and self.source is None:
            raise ValueError("values without a source")
        if self.comparable != (not self.why):
            raise ValueError("comparable, but a reason why not" if self.why else "not comparable, but no reason why")
        if (self.metric == "auroc") != (self.measure is None) or (self.measure is None) != (self.T is None):
            raise ValueError("accuracy and afp have a measure and a T, auroc has neither")
        if self.measure is not None and self.protocol is None:
            raise ValueError("accuracy and afp are of a protocol")
        upper = float("inf") if self.metric == "afp" else 1.0
        wrong = [name for name, value in (self.values or {}).items() if not 0 <= value <= upper]
        if wrong:
            raise ValueError(f"the value of {wrong[0]} is not in [0, {upper:g}]")
        self._check_mean()
        return self

    def _check_mean(self) -> None:
        if self.mean is None or self.values is None or (self.remark and "mean" in self.remark):
            return
        found = sum(self.values.values()) / len(self.values)
        if abs(found - self.mean) > MEAN_TOLERANCE * 10**-self.mean_digits:
            mean = f"{self.mean:.{self.mean_digits}f}"
            raise ValueError(f"the published mean {mean} is not that of the classes, {found:.5f}; say so in a remark")

    @property
    def name(self) -> str:
        """Paper, table and row, as text."""
        return ", ".join(filter(None, (self.citation.split(",")[0], f"Table {self.table}", self.row)))


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """All rows of all tables."""
    folder = files("cxrfast.published") / "tables"
    found: list[PublishedRow] = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            found += read_tables(file.read_text(encoding="utf-8"), file.name)
    return tuple(found)


def rows(
    *,
    paper: str | None = None,
    table: str | None = None,
    row: str | None = None,
    metric: Metric | None = None,
    measure: str | None = None,
    protocol: str | None = None,
    method: str | None = None,
    available: bool | None = None,
) -> tuple[PublishedRow, ...]:
    """The rows of published tables with all of the given properties. For example, those to compare a run with:
    ``rows(protocol="wang2017", method="wang", available=True)``, ``rows(metric="auroc", method="chexnet")``.

    Raises :class:`UsageError` for an unknown paper.
    """
    everything = published_rows()
    papers = sorted({line.paper for line in everything})
    if paper is not None and paper not in papers:
        raise UsageError(f"paper: expected one of {', '.join(papers)}, got {paper!r}")
    wanted = {
        "paper": paper,
        "table": table,
        "row": row,
        "metric": metric,
        "measure": measure,
        "protocol": protocol,
        "method": method,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    return tuple(
        line
        for line in everything
        if all(getattr(line, name) == value for name, value in given.items())
        and (available is None or available == (line.unavailable is None))
    )


class _Number(float):
    """A number that keeps the number of decimals it was written with: 0.60 is more precise than 0.6."""

    digits: int


class _Loader(PlainLoader):
    """A YAML loader whose numbers keep their decimals."""


def _number(loader: PlainLoader, node: yaml.ScalarNode) -> _Number:
    number = _Number(loader.construct_yaml_float(node))
    number.digits = len(node.value.partition(".")[2])
    return number


_Loader.add_constructor("tag:yaml.org,2002:float", _number)


def read_tables(text: str, file: str) -> Iterator[PublishedRow]:
    """The rows of one file. A row inherits the fields of its table, and a table those of its paper.

    Raises :class:`CxrfastError`, in one line with file, table and row, for inconsistent entries.
    """
    content: dict[str, Any] = parse_yaml(text, _Loader)
    paper = {name: value for name, value in content.items() if name not in ("orders", "tables")}
    for table in content["tables"]:
        shared = {**paper, **{name: value for name, value in table.items() if name != "rows"}}
        for line in table["rows"]:
            fields = {**shared, **line}
            classes = content["orders"][fields["classes"]]
            if line.get("values"):
                values = line["values"]
                if len(values) != len(classes):
                    raise CxrfastError(f"{file}, Table {table['table']}: {len(values)} values of {classes}")
                fields["values"] = dict(zip(classes, values, strict=True))
                fields["digits"] = max(getattr(value, "digits", 0) for value in values)
            if line.get("mean") is not None:
                fields["mean_digits"] = getattr(line["mean"], "digits", 0)
            try:
                yield PublishedRow(**{**fields, "classes": tuple(classes)})
            except ValidationError as error:
                reason = "; ".join(str(part["msg"]) for part in error.errors())
                raise CxrfastError(f"{file}, Table {table['table']}, {line}: {reason}") from error
