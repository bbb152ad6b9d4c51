"""What a new operator, method, protocol, metric, format, layout or renderer touches, as CONTRIBUTING.md lists it.

An item is a file and what it must contain. `<name>` is the thing's name, `<op>` the stem of an operator's family or a
layout's name for `--dataset`. The files are read as text: nothing is imported, so a check says what is missing even
where the package does not import.
"""

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Item(NamedTuple):
    path: str  # from the root; a pattern of `Path.glob`
    holds: str  # regular expression that one of these files matches

    def missing(self, **names: str) -> str | None:
        """The path, if no such file has it."""
        path, pattern = self.path, self.holds
        for name, value in names.items():
            path, pattern = path.replace(f"<{name}>", value), pattern.replace(f"<{name}>", re.escape(value))
        found = any(re.search(pattern, file.read_text(encoding="utf-8"), re.MULTILINE) for file in ROOT.glob(path))
        return None if found else path


CHECKLISTS: dict[str, tuple[Item, ...]] = {
    "operator": (
        Item("cxrfast/reference/<op>.py", r"^def <name>\("),
        Item("cxrfast/reference/__init__.py", r'"<name>"'),
        Item("tests/ops/test_<op>.py", r"\b<name>\b"),
        Item("csrc/schema.cpp", r'"<name>\('),
        Item("cxrfast/ops/<op>.py", r"^def <name>\("),
        Item("cxrfast/ops/__init__.py", r'"<name>"'),
        Item("benchmarks/cases/<op>.py", r"\b<name>\b"),
        Item("benchmarks/cases/overhead.py", r'"<name>"'),
        Item("tests/cuda_emulation/test_determinism.py", r"\b<name>\b"),
        Item("docs/operators.md", r"^\| `<name>` \|"),
    ),
    "method": (
        Item("cxrfast/methods/<name>.py", r'^    name = "<name>"$'),
        Item("cxrfast/methods/registry.py", r"^from cxrfast\.methods\.<name> import"),
        Item("tests/methods/test_*<name>*.py", r"\b<name>\b"),
        Item("tests/methods/test_methods.py", r'^    "<name>": '),
        Item("cxrfast/published/statements/*.yaml", r"^method: <name>$"),
        Item("docs/papers.md", r"cxrfast[./]methods[./]<name>\b"),
        Item("cxrfast/experiments/demo.py", r'^    "<name>": {'),
        Item("cxrfast/experiments/study/plan.py", r'StudyRow\("<name>"'),
        Item("README.md", r"`<name>`"),
    ),
    "protocol": (
        Item("cxrfast/evaluation/protocols.py", r'name="<name>"'),
        Item("tests/evaluation/test_protocols.py", r'"<name>"'),
        Item("docs/evaluation.md", r"^\| `<name>`"),
    ),
    "metric": (
        Item("cxrfast/metrics/__init__.py", r'^    "<name>",$'),
        Item("tests/metrics/test_*.py", r"^from cxrfast.* import .*\b<name>\b|^    <name>,$"),
        Item("docs/evaluation.md", r"^\| .*`<name>`"),
    ),
    "prediction format": (
        Item("cxrfast/predictions/files.py", r'"<name>": '),
        Item("tests/predictions/test_files.py", r'<name>"'),
        Item("docs/evaluation.md", r"^\| `<name>`"),
    ),
    "layout of a data set": (
        Item("cxrfast/data/datasets/**/<name>.py", r"^LAYOUT = Layout\($"),
        Item("cxrfast/data/datasets/registry.py", r"\b<name>\.LAYOUT\b"),
        Item("tests/data/datasets/**/test_<name>.py", r"\bread_data\(|\bread_<name>\(|\bLAYOUT\b"),
        Item("docs/data.md", r"`<op>`"),
    ),
    "renderer": (
        Item("cxrfast/report/<name>/__init__.py", ""),
        Item("tests/**/test_*.py", r"^from cxrfast\.report\.<name>\b"),
        Item("pyproject.toml", r'"cxrfast\.report\.<name>"'),
        Item("docs/architecture.md", r"`cxrfast/report/`.*`<name>/`"),
    ),
}

WITHOUT: dict[tuple[str, str], str] = {
    (
        "self_guided_sums_ragged",
        "benchmarks/cases/self_guiding.py",
    ): "the same kernel as the map's, measured by overhead.py",
    ("component_boxes_static", "tests/cuda_emulation/test_determinism.py"): "the same kernels as component_boxes",
    ("wang", "cxrfast/published/statements/*.yaml"): "docs/papers.md has its equations as a table: a baseline",
    ("chexnet", "cxrfast/published/statements/*.yaml"): "docs/papers.md has its equations as a table: a baseline",
    ("yao", "cxrfast/experiments/study/plan.py"): "our own design after a text that leaves much open: not compared",
    ("cia", "cxrfast/experiments/study/plan.py"): "our own design after a text that leaves much open: not compared",
}
"""What an existing entry does without, and why."""


def missing(kind: str, name: str, op: str | None = None) -> list[str]:
    """The files of the checklist that do not know the entry."""
    names = {"name": name, "op": op or name}
    paths = [path for item in CHECKLISTS[kind] if (path := item.missing(**names)) is not None]
    return [path for path in paths if (name, path) not in WITHOUT]


def entries(kind: str) -> list[tuple[str, str]]:
    """Name and stem of everything of a kind that the package has now."""
    if kind == "operator":
        stems = _origins("cxrfast/ops/__init__.py")
        return [(name, stems[name]) for name in _public("cxrfast/ops/__init__.py") if name[0].islower()]
    if kind == "method":
        stems = _origins("cxrfast/methods/registry.py")
        return [(stem, stem) for stem in stems.values() if stem not in ("base", "errors")]
    if kind == "metric":
        return [(name, name) for name in _public("cxrfast/metrics/__init__.py") if name[0].islower()]
    if kind == "layout of a data set":  # its module, and its name for --dataset
        found = []
        for path in sorted((ROOT / "cxrfast/data/datasets").rglob("[a-z]*.py")):
            name = re.search(r'^LAYOUT = Layout\(\s*(?:name=)?"([^"]+)"', path.read_text(encoding="utf-8"), re.M)
            found += [(path.stem, name[1])] if name else []
        return found
    if kind == "renderer":
        folders = sorted(path for path in (ROOT / "cxrfast/report").iterdir() if any(path.glob("*.py")))
        return [(path.name, path.name) for path in folders]
    path, pattern = {
        "protocol": ("cxrfast/evaluation/protocols.py", r'name="([^"]+)"'),
        "prediction format": ("cxrfast/predictions/files.py", r'"(\.\w+)": \w+'),
    }[kind]
    return [(name, name) for name in re.findall(pattern, (ROOT / path).read_text(encoding="utf-8"))]


def _public(path: str) -> list[str]:
    """`__all__` of a package."""
    for node in _tree(path).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
    raise AssertionError(f"{path} has no __all__")


def _origins(path: str) -> dict[str, str]:
    """For every imported name the last part of its module."""
    imports: Iterable[ast.ImportFrom] = (node for node in _tree(path).body if isinstance(node, ast.ImportFrom))
    return {alias.name: str(node.module).rpartition(".")[2] for node in imports for alias in node.names}


def _tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))
