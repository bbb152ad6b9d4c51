"""Lets the tests run against the package that is installed.

`pip install .` compiles nothing into this folder, yet pytest puts the folder first on the import path, where its
uncompiled `cxrfast` would hide the installed one. So the folder comes last: it gives the `tests` package and, after a
build in place without an installation, cxrfast too.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent

sys.path[:] = [str(ROOT), *(entry for entry in sys.path if Path(entry).resolve() != ROOT)]
import tests  # noqa: E402, F401  some distributions install a package of this name

sys.path.append(sys.path.pop(0))


def pytest_addoption(parser) -> None:
    group = parser.getgroup("fuzz", "tests/fuzz: files that are changed at random")
    group.addoption("--fuzz", type=int, default=25, metavar="N", help="changed files for each reader (default: 25)")
    group.addoption("--fuzz-seed", type=int, default=0, metavar="SEED", help="seed of the changes (default: 0)")


def pytest_report_header() -> str:
    import cxrfast

    return f"cxrfast: {Path(cxrfast.__file__).parent}"
