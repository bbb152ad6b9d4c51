"""The package's structure, read from the imports in its source: the order of docs/architecture.md holds."""

import ast
import graphlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
FOLDERS = {"cxrfast": "cxrfast", "cli": "cxrfast.cli", "benchmarks": "cxrfast.benchmarks"}
BASE = "base"  # modules directly in cxrfast/: every package may use them

# Results do not know who renders them, inference does not need the trainer, training does not write reports.
FORBIDDEN = (("evaluation", "report"), ("inference", "training"), ("training", "report"), ("report", "training"))

# Classes inside another class or function, and private ones, are known by where they are.
NAMES_OF_MANY = {"Options"}


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


class Module(NamedTuple):
    name: str
    path: Path

    @property
    def room(self) -> str:
        return room_of(self.name)

    def tree(self) -> ast.Module:
        return parse(self.path)


class Import(NamedTuple):
    importer: str
    imported: str  # a module of the package

    @property
    def rooms(self) -> tuple[str, str]:
        return room_of(self.importer), room_of(self.imported)


def room_of(module: str) -> str:
    """`cxrfast.report.html.page` is in report; `cxrfast.errors` and `cxrfast` itself are base modules."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and not is_base(module) else BASE


def is_base(module: str) -> bool:
    return module == "cxrfast" or ((ROOT / (module.replace(".", "/") + ".py")).is_file() and module.count(".") == 1)


def modules() -> list[Module]:
    found = []
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            # In an editable installation cxrfast/cli and cxrfast/benchmarks may be links to the folders beside it.
            if not any(parent.is_symlink() for parent in path.parents):
                inner = path.relative_to(ROOT / folder).with_suffix("").parts
                name = ".".join((package, *(part for part in inner if part != "__init__")))
                found.append(Module(name, path))
    return found


MODULES = modules()
NAMES = {module.name for module in MODULES}


def imports_of(module: Module, names: Iterable[str] = frozenset(NAMES)) -> Iterator[Import]:
    """Every import of a module of the package, inside functions too."""
    known = set(names)
    package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]
    for node in ast.walk(module.tree()):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                origin = ".".join([*above, *([node.module] if node.module else [])])
            targets = [
                f"{origin}.{alias.name}" if f"{origin}.{alias.name}" in known else origin for alias in node.names
            ]
        else:
            continue
        yield from (Import(module.name, target) for target in targets if target.split(".")[0] == "cxrfast")


def order() -> dict[str, int]:
    """The height of each package in the list of docs/architecture.md; base modules are below all."""
    block = re.search(r"^    cli\n(?:    .+\n)+", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert block is not None, f"{PAGE} has no list of the packages"
    lines = [line.strip().split(", ") for line in block[0].splitlines()]
    return {BASE: 0} | {room: height for height, line in enumerate(reversed(lines), 1) for room in line}


def upward(imports: Iterable[Import], height: Mapping[str, int]) -> list[str]:
    """Imports from a package on the same or a higher line."""
    found = []
    for edge in imports:
        low, high = edge.rooms
        if low != high and height.get(high, 99) >= height.get(low, -1):
            found.append(f"{edge.importer} imports {edge.imported}")
    return found


def circle(edges: Iterable[tuple[str, str]]) -> list[str]:
    """A circle among edges, or nothing."""
    graph: dict[str, set[str]] = defaultdict(set)
    for start, end in edges:
        if start != end:
            graph[start].add(end)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def twice(classes: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Names of public classes that several modules define."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, module in classes:
        if not name.startswith("_") and name not in NAMES_OF_MANY:
            places[name].append(module)
    return {name: found for name, found in places.items() if len(found) > 1}


ALL_IMPORTS = [edge for module in MODULES for edge in imports_of(module)]


def test_no_import_goes_upwards():
    assert upward(ALL_IMPORTS, order()) == []


def test_rooms_have_no_circle():
    # Base modules and the packages' __init__ count as they are: `import cxrfast` is an import of a base module.
    assert circle(edge.rooms for edge in ALL_IMPORTS if BASE not in edge.rooms) == []


def test_modules_have_no_circle():
    """Packages' `__init__` lists what its modules define; below that, modules import modules."""
    plain = {module.name for module in MODULES if module.path.name != "__init__.py"}
    assert circle(edge for edge in ALL_IMPORTS if edge.importer in plain and edge.imported in plain) == []


@pytest.mark.parametrize(("importer", "imported"), FORBIDDEN)
def test_rooms_that_do_not_know_each_other(importer, imported):
    assert [edge for edge in ALL_IMPORTS if edge.rooms == (importer, imported)] == []


def test_published_imports_nothing_but_errors_and_the_reader_of_yaml():
    outside = {edge.imported for edge in ALL_IMPORTS if edge.rooms[0] == "published" != edge.rooms[1]}
    assert outside <= {"cxrfast.errors", "cxrfast._yaml"}


def test_every_module_has_a_room_in_the_table():
    rows = re.findall(r"^\| (`[^|]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {name.strip("/") for row in rows for name in re.findall(r"`([^`]+)`", row)}
    rooms = {module.room for module in MODULES} - {BASE}
    folders = {room if room in FOLDERS else f"cxrfast/{room}" for room in rooms}
    assert folders <= listed
    assert {name for name in listed if name.startswith("cxrfast/") and "*" not in name} <= folders
    assert rooms <= set(order())
    assert set(order()) - rooms == {BASE, "csrc"}


def test_no_two_classes_of_one_name():
    classes = [
        (node.name, module.name) for module in MODULES for node in module.tree().body if isinstance(node, ast.ClassDef)
    ]
    assert twice(classes) == {}


def test_what_is_planted_is_found(tmp_path):
    """The checks above can fail."""
    height = {BASE: 0, "ops": 1, "nn": 2, "data": 2}
    down, up, beside = (
        Import("cxrfast.nn.a", "cxrfast.ops.b"),
        Import("cxrfast.ops.b", "cxrfast.nn.a"),
        Import("cxrfast.nn.a", "cxrfast.data.c"),
    )
    assert upward([down], height) == []
    assert upward([down, up, beside], height) == [
        "cxrfast.ops.b imports cxrfast.nn.a",
        "cxrfast.nn.a imports cxrfast.data.c",
    ]
    assert upward([Import("cxrfast.nn.a", "cxrfast.unheard_of.d")], height) != []
    assert circle([("a", "b"), ("b", "c")]) == []
    assert set(circle([("a", "b"), ("b", "c"), ("c", "a")])) == {"a", "b", "c"}
    assert twice([("Row", "a"), ("Row", "b"), ("Cell", "a"), ("_Row", "a"), ("_Row", "b")]) == {"Row": ["a", "b"]}
    path = tmp_path / "e.py"
    path.write_text(
        "import cxrfast.report.html\nfrom cxrfast import report\nfrom . import f\nfrom ..nn.a import g\nimport torch\n"
        "def late():\n    from cxrfast.training.loop import fit\n"
    )
    names = ["cxrfast.report", "cxrfast.evaluation.f", "cxrfast.nn.a"]
    assert [edge.imported for edge in imports_of(Module("cxrfast.evaluation.e", path), names)] == [
        "cxrfast.report.html",
        "cxrfast.report",
        "cxrfast.evaluation.f",
        "cxrfast.nn.a",
        "cxrfast.training.loop",
    ]
