"""All cases, and how a user names them."""

import difflib
import fnmatch
from collections.abc import Sequence

from cxrfast.benchmarks.case import BenchmarkCase
from cxrfast.benchmarks.cases import (
    blur_pool,
    components,
    hamming,
    mil_pool,
    overhead,
    pac_crf,
    region_loss,
    self_guiding,
)
from cxrfast.errors import UsageError

FAMILIES: dict[str, list[BenchmarkCase]] = {
    "pac_crf": pac_crf.CASES,
    "blur_pool": blur_pool.CASES,
    "mil_pool": mil_pool.CASES,
    "region_loss": region_loss.CASES,
    "self_guiding": self_guiding.CASES,
    "components": components.CASES,
    "hamming": hamming.CASES,
    "overhead": overhead.CASES,
}
CASES = [case for cases in FAMILIES.values() for case in cases]


def select_cases(names: Sequence[str]) -> list[BenchmarkCase]:
    """The cases of these families, or operators, or names and patterns of names, in the registry's order; all of them
    where none is given."""
    chosen: set[str] = set()
    for name in names:
        matching = (case for case in CASES if name == case.operator or fnmatch.fnmatchcase(case.name, name))
        found = {case.name for case in FAMILIES.get(name, matching)}
        if not found:
            raise UsageError(_unknown(name))
        chosen |= found
    return [case for case in CASES if not names or case.name in chosen]


def _unknown(name: str) -> str:
    operators = dict.fromkeys(case.operator for case in CASES)
    near = difflib.get_close_matches(name, [*FAMILIES, *operators, *(case.name for case in CASES)], 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    known = ", ".join(dict.fromkeys([*FAMILIES, *operators]))
    return f"cases: unknown {name!r}{hint} Known: {known}, and the names that --list prints"
