"""Renders a comparison as Markdown and for a terminal, and lists the rows of a table with their costs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cxrfast.experiments.reproduction.comparison import ComparedNumber, ComparedRow, ComparedTable, MetricComparison
from cxrfast.experiments.reproduction.cost import DATA_GB, PROCESSES, READ, SUSTAINED, run_cost, table_cost
from cxrfast.experiments.reproduction.numbers import Value
from cxrfast.experiments.reproduction.plans import TablePlan
from cxrfast.report.terminal.layout import WIDTH, ruled, wrap

ESTIMATE = (
    "Hours are estimates for one GPU machine, not measurements: images times epochs, at an assumed "
    f"{SUSTAINED / 1e12:g} TFLOP/s of the GPU or with {PROCESSES} data-loader workers of {READ:g} images/s each "
    "(measured on copies of 512×512 pixels; the originals take about four times as long), whichever is slower. Disk "
    f"space is that of weights, checkpoints and predictions, in addition to about {DATA_GB:g} GB of released images. "
    "Tables share runs of equal names."
)
_COMMON = "mean of common"  # over the classes of both means
_CLASS_COLUMN = 20


@dataclass(frozen=True)
class _Columns:
    """The columns of one row of the table in a section."""

    row: str
    headers: tuple[str, ...]
    cells: dict[str, tuple[str, ...]]  # by class, and for the mean


@dataclass(frozen=True)
class _Section:
    """One metric, measure and T. Its lines are the classes; its columns are the rows of the published table."""

    title: str
    lines: tuple[str, ...]  # classes, and "mean"
    columns: tuple[_Columns, ...]
    remarks: tuple[str, ...]


def to_markdown(table: ComparedTable) -> str:
    """The comparison as Markdown."""
    lines = [f"# {table.title}", "", f"Protocol `{table.protocol}`{'; ' + table.note if table.note else ''}.", ""]
    for line in _settings(table):
        item = line.startswith("- ")
        lines += ["", line] if not item and lines[-1] else [line]
        lines += [] if item else [""]
    lines += [""] if lines[-1] else []
    lines += [
        "Ours: ± standard deviation over folds, or the 95 % interval of one run. Difference: ours − published.",
        "",
    ]
    lines += ["| row | what | state | run | test images | patients also in training |", "|---|---|---|---|---|---|"]
    for row in table.rows:
        state = ", ".join([f"{row.state}: {row.reason}" if row.reason else row.state, *_unreadable(row)])
        images, shared = (str(row.facts.get(name, "")) for name in ("n_images", "shared_patients"))
        lines.append(f"| `{row.name}` | {row.title} | {state} | {row.folder or ''} | {images} | {shared} |")
    sections, everywhere = _sections(table)
    for section in sections:
        headers = [f"{of.row} {header}" for of in section.columns for header in of.headers]
        lines += ["", f"## {section.title}", "", "| | " + " | ".join(headers) + " |", "|---" * (len(headers) + 1) + "|"]
        for name in section.lines:
            cells = [cell for of in section.columns for cell in of.cells[name]]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines += ["", *(f"- {remark}" for remark in section.remarks)] if section.remarks else []
    lines += ["", "## Everywhere", "", *(f"- {remark}" for remark in everywhere)] if everywhere else []
    return "\n".join(lines) + "\n\nResearch use only.\n"


def to_text(table: ComparedTable) -> str:
    """The comparison for a terminal, 100 columns wide."""
    lines = ["", *wrap(table.title), *(part for line in _settings(table) for part in _item(line))]
    lines += [line for row in table.rows if row.reason for line in wrap(f"{row.name} failed: {row.reason}")]
    lines += [f"{row.name}: {text}" for row in table.rows for text in _unreadable(row)]
    sections, everywhere = _sections(table)
    for section in sections:
        for chunk in _chunks(section.columns):
            header = ["", *(_heading(of, h) for of in chunk for h in of.headers)]
            body = [[name, *(cell for of in chunk for cell in of.cells[name])] for name in section.lines]
            lines += [
                "",
                section.title,
                *ruled([header, *body], below=len(section.lines) - section.lines.index("mean")),
            ]
        lines += [line for remark in section.remarks for line in wrap(remark, "  ")]
    lines += ["", *(line for remark in everywhere for line in wrap(remark))] if everywhere else []
    return "\n".join(lines) + "\n"


def _item(line: str) -> list[str]:
    return wrap(line, "  ") if line.startswith("- ") else wrap(line)


def _unreadable(row: ComparedRow) -> list[str]:
    """A remark on test images that could not be read, which are in none of the numbers."""
    count = row.facts.get("unreadable")
    return [f"{count} test images could not be read"] if count else []


def settings_lines(
    deviations: Mapping[str, Sequence[str]], unchecked: Mapping[str, Sequence[str]], rows: int
) -> list[str]:
    """The deviations from the paper's setting, as lines. Those of all rows come before those of some rows.

    Args:
        deviations, unchecked: each text with the names of the rows that it applies to.
        rows: number of rows that were run.
    """
    lines = []
    groups: dict[tuple[str, ...], list[str]] = {}
    for text, names in deviations.items():
        groups.setdefault(tuple(names), []).append(f"- {text}")
    if groups:
        lines.append("Not the paper's setting. These numbers do not reproduce the table:")
    for names in sorted(groups, key=lambda names: len(names) < rows):
        lines += [*([] if len(names) == rows else [f"{', '.join(names)}:"]), *groups[names]]
    for text, names in unchecked.items():
        who = "" if len(names) == rows else f"{', '.join(names)}: "
        lines.append(f"Not compared with the paper's setting: {who}{text}.")
    return lines or ["The paper's setting, according to every statement in docs/papers.md, on all of ChestX-ray14."]


def _settings(table: ComparedTable) -> list[str]:
    run = sum(row.state != "published only" for row in table.rows)
    return settings_lines(table.deviations, table.unchecked, run) if run else []


def table_lines(plan: TablePlan) -> list[str]:
    """The rows of a table, with their costs at the paper's setting."""
    lines = []
    for row in plan.rows:
        if row.run is None:
            lines.append(f"    {row.name:<20}{row.title}")
            continue
        of_row = run_cost(row.run, plan)
        lines.append(f"    {row.name:<20}{row.title:<55}{of_row.hours:6.1f} h{of_row.disk_gb:6.1f} GB")
    cost = table_cost(plan, [row.run for row in plan.rows if row.run is not None])
    return [*lines, f"    {'all':<75}{cost.hours:6.1f} h{cost.disk_gb:6.1f} GB"]


def _sections(table: ComparedTable) -> tuple[list[_Section], list[str]]:
    """The sections with their own remarks, and the remarks that all sections share."""
    sections = list(_all_sections(table))
    if len(sections) < 2:
        return sections, []
    everywhere = [remark for remark in sections[0].remarks if all(remark in of.remarks for of in sections)]
    own = [replace(of, remarks=tuple(text for text in of.remarks if text not in everywhere)) for of in sections]
    return own, everywhere


def _all_sections(table: ComparedTable) -> Iterator[_Section]:
    places = dict.fromkeys(of.place for row in table.rows for of in row.comparisons)
    for place in places:
        found = [(row, of) for row in table.rows for of in row.comparisons if of.place == place]
        known = {name for _, of in found for name, cell in of.cells.items() if cell.known}
        names = tuple(dict.fromkeys(name for _, of in found for name in of.cells if name in known))
        remarks: dict[str, list[str]] = {}
        for row, of in found:
            for remark in of.remarks:
                remarks.setdefault(remark, []).append(row.name)
        texts = tuple(f"{', '.join(rows)}: {remark}" for remark, rows in remarks.items())
        lines = (*names, "mean", _COMMON) if any(of.common for _, of in found) else (*names, "mean")
        yield _Section(found[0][1].title, lines, tuple(_columns(row, of, names) for row, of in found), texts)


def _columns(row: ComparedRow, of: MetricComparison, names: Iterable[str]) -> _Columns:
    nothing = ComparedNumber(None, None, None)
    cells = {name: of.cells.get(name, nothing) for name in names} | {"mean": of.mean, _COMMON: of.common or nothing}
    ours = any(cell.ours is not None for cell in cells.values())
    published = any(cell.published is not None for cell in cells.values())
    headers = ("ours",) * ours + ("published",) * published + ("difference",) * (ours and published)
    return _Columns(row.name, headers, {name: tuple(_texts(cell, ours, published)) for name, cell in cells.items()})


def _texts(cell: ComparedNumber, ours: bool, published: bool) -> Iterator[str]:
    if ours:
        yield _ours(cell.ours)
    if published:
        yield "-" if cell.published is None else f"{cell.published:.{cell.digits}f}"
    if ours and published:
        yield "-" if cell.difference is None else f"{cell.difference:+.3f}".replace("-", "−")


def _ours(value: Value | None) -> str:
    if value is None or value.value is None:
        return "-"
    if value.sd is not None:
        return f"{value.value:.3f} ± {value.sd:.3f}"
    if value.low is not None and value.high is not None:
        return f"{value.value:.3f} ({value.low:.2f}–{value.high:.2f})"
    return f"{value.value:.3f}"


def _heading(of: _Columns, header: str) -> str:
    """The heading of a column; the first column of a row has the row's name."""
    return of.row if header == "ours" else f"{of.row} {header}" if "ours" not in of.headers else header


def _chunks(columns: tuple[_Columns, ...]) -> Iterator[list[_Columns]]:
    """Groups of rows that fit side by side."""
    chunk: list[_Columns] = []
    for of in columns:
        if chunk and _CLASS_COLUMN + sum(_width(c) for c in (*chunk, of)) > WIDTH:
            yield chunk
            chunk = []
        chunk.append(of)
    if chunk:
        yield chunk


def _width(of: _Columns) -> int:
    return sum(
        2 + max(len(_heading(of, header)), *(len(cells[i]) for cells in of.cells.values()))
        for i, header in enumerate(of.headers)
    )
