"""Renders HTML pages: single files that contain style, pictures and script, and make no network request."""

import base64
import hashlib
import json
import math
import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import cxrfast
from cxrfast._files import write_text
from cxrfast.report.comparison import RunComparison
from cxrfast.report.facts import Evaluated
from cxrfast.report.html import tables
from cxrfast.report.html.curves import all_curves, learning_charts
from cxrfast.report.html.gallery import make_gallery
from cxrfast.report.html.operating import operating_table
from cxrfast.report.html.viewer import viewer_data


def write_report(evaluated: Evaluated, path: str | os.PathLike) -> None:
    """Write the page of one evaluation, atomically."""
    write_text(path, render_report(evaluated))


def write_comparison(comparison: RunComparison, path: str | os.PathLike) -> None:
    """Write the page of a comparison, atomically."""
    write_text(path, render_comparison(comparison))


def render_report(evaluated: Evaluated) -> str:
    """The page of one evaluation as HTML."""
    gallery = make_gallery(evaluated)
    viewer = viewer_data(evaluated, gallery)
    split_table = tables.split_table(evaluated)
    return render(
        "report.html",
        evaluated=evaluated,
        record=evaluated.record,
        title=evaluated.title,
        headline=tables.headline(evaluated),
        facts_rows=tables.evaluation_facts(evaluated),
        split_table=split_table,
        configuration=tables.configuration(evaluated.run),
        environment=tables.environment(evaluated.run),
        score_table=tables.score_table(evaluated),
        operating_table=operating_table(evaluated),
        published_auroc_table=tables.published_auroc_table(evaluated),
        published_remark=tables.published_remark(evaluated),
        localization_tables=tables.localization_tables(evaluated),
        detection_table=tables.detection_table(evaluated),
        curves=all_curves([evaluated]),
        learning=learning_charts(evaluated.run.metrics),
        gallery=gallery,
        class_names=evaluated.predictions.class_names,
        viewer=viewer,
        viewer_rule="" if evaluated.own is None else str(evaluated.own.rule),
        viewer_json=None if viewer is None else _script_json(viewer),
        script=None if viewer is None else Markup(_asset("viewer.js")),
    )


def render_comparison(comparison: RunComparison) -> str:
    """The page of a comparison as HTML."""
    runs = [comparison.first, comparison.second]
    return render(
        "comparison.html",
        comparison=comparison,
        runs=runs,
        title=" and ".join(comparison.names),
        headlines=[tables.headline(run) for run in runs],
        curves=all_curves(runs),
        script=None,
    )


def render(template: str, **values: Any) -> str:
    """Render a template. Its content security policy allows no script but ``values["script"]``."""
    script = values["script"]
    allowed = "'none'" if script is None else f"'sha256-{_digest(str(script))}'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    values |= {"style": Markup(_asset("style.css")), "policy": policy, "version": cxrfast.__version__}
    page: str = _environment().get_template(template).render(number=tables.number, columns=_columns, **values)
    return page


def _columns(count: int) -> int:
    """Number of panels per row, at most six, such that rows are about equally long."""
    rows = max(math.ceil(count / 6), 1)
    return max(math.ceil(count / rows), 1)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _script_json(value: Mapping[str, Any]) -> Markup:
    """JSON that is safe inside a script element, whatever strings it contains."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@cache
def _environment() -> Environment:
    from jinja2 import FunctionLoader

    return Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _asset(name: str) -> str:
    return (files("cxrfast.report.html") / "templates" / name).read_text(encoding="utf-8")
