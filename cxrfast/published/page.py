"""The register of statements as sections of a Markdown page.

    python -m cxrfast.published.page docs/papers.md          # writes the sections
    python -m cxrfast.published.page docs/papers.md --check  # exit code 1 if the page is not up to date

A section is enclosed in `<!-- register: PAPER -->` and `<!-- end -->`. The sections of papers in the register are
replaced; those of other papers stay unchanged.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from cxrfast.errors import CxrfastError
from cxrfast.published.statements import Kind, Paper, Statement, papers

_SECTION = re.compile(r"(<!-- register: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_HEADER = ("statement", "place", "status", "option and value", "where", "what we do, and why", "alternatives")
_TITLES: Mapping[Kind, str] = {
    "architecture": "Architecture",
    "equation": "Equations",
    "constant": "Constants",
    "training": "Training",
    "data": "Data",
    "evaluation": "Evaluation",
    "ablation": "Ablations",
}


def updated(page: str, register: Sequence[Paper]) -> str:
    """The page with updated sections of these papers.

    Raises :class:`CxrfastError` if a paper does not have exactly one section on the page.
    """
    places = [key for _, key, _, _ in _SECTION.findall(page)]
    for paper in register:
        if places.count(paper.paper) != 1:
            expected = f"'<!-- register: {paper.paper} -->' and '<!-- end -->'"
            raise CxrfastError(
                f"{places.count(paper.paper)} sections of {paper.paper}; expected one between {expected}"
            )
    sections = {paper.paper: section(paper) for paper in register}
    return _SECTION.sub(lambda m: f"{m[1]}{sections.get(m[2], m[3])}{m[4]}", page)


def section(paper: Paper) -> str:
    """All statements of a paper, in one table per kind."""
    lines = [f"## {paper.citation}", ""]
    lines += [paper.notation.strip(), ""] if paper.notation else []
    lines += [f"Statements on method `{paper.method}`{_others(paper)}: {_counts(paper.statements)}.", ""]
    for kind in get_args(Kind):
        found = [statement for statement in paper.statements if statement.kind == kind]
        if found:
            lines += [f"### {_TITLES[kind]}", "", _row(_HEADER), "|---" * len(_HEADER) + "|"]
            lines += [_row(_cells(statement, paper)) for statement in found]
            lines.append("")
    return "\n".join(lines)


def _others(paper: Paper) -> str:
    names = dict.fromkeys(of.method for of in paper.statements if of.method != paper.method)
    return "".join(f", or where it is said on `{name}`" for name in names)


def _counts(found: Sequence[Statement]) -> str:
    counts = {
        "default": sum(of.status == "default" and not of.silent for of in found),
        "option": sum(of.status == "option" for of in found),
        "deviation": sum(of.status == "deviation" for of in found),
        "ours, where the paper is silent": sum(of.silent for of in found),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _cells(of: Statement, paper: Paper) -> tuple[str, ...]:
    method = f" (`{of.method}`)" if of.method != paper.method else ""
    where = [_code(path) for path in of.code] + [f"`{path}`" for path in of.tests]
    return (
        f"{of.says.strip()}{method}",
        of.place,
        "default (ours)" if of.silent else of.status,
        _setting(of.setting),
        ", ".join(where),
        " ".join(_sentence(text) for text in (of.does, of.reason) if text),
        "; ".join(f"{_setting(other.setting)}: {other.says.strip().rstrip('.')}" for other in of.alternatives),
    )


def _setting(setting: Mapping[str, Any]) -> str:
    """As a user writes it: options in the form of --set, the rest in the form of a configuration file."""
    found = []
    for name, value in setting.items():
        if name == "pretrained":
            found.append("`--pretrained imagenet`")
        elif name.startswith("options."):
            found.append(f"`{name.removeprefix('options.')}={_value(value)}`")
        else:
            found.append(f"`{name}: {_value(value)}`")
    return ", ".join(found)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _code(path: str) -> str:
    module, _, attribute = path.partition(":")
    return f"`{attribute}` in `{module}`" if attribute else f"`{path}`"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?", ")")) else f"{text}."


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") or "–" for cell in cells) + " |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cxrfast.published.page", description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="a page in Markdown, such as docs/papers.md")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the page is not up to date")
    given = parser.parse_args(arguments)
    try:
        before = given.page.read_text(encoding="utf-8")
        after = updated(before, papers())
    except (OSError, CxrfastError) as error:
        print(f"page: {given.page}: {error}", file=sys.stderr)
        return 2
    if before == after:
        return 0
    if given.check:
        print(f"{given.page} is not up to date; run: python -m cxrfast.published.page {given.page}", file=sys.stderr)
        return 1
    given.page.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
