"""Options and counts of the fuzz suite; `pytest tests/fuzz --fuzz 5000` tries more changes than CI does."""

from collections import Counter

import pytest

COUNTS: Counter[tuple[str, str]] = Counter()
"""(reader, what came of a changed file) -> how many."""


@pytest.fixture
def changes(request) -> int:
    """Changed files for each reader."""
    return request.config.getoption("--fuzz")


@pytest.fixture
def fuzz_seed(request) -> int:
    return request.config.getoption("--fuzz-seed")


@pytest.fixture(scope="session")
def counts() -> Counter[tuple[str, str]]:
    return COUNTS


def pytest_terminal_summary(terminalreporter) -> None:
    if not COUNTS:
        return
    kinds = sorted({kind for _, kind in COUNTS})
    terminalreporter.section("changed files, by reader and outcome")
    terminalreporter.line(f"{'':<24}" + "".join(f"{kind:>14}" for kind in kinds))
    for reader in sorted({reader for reader, _ in COUNTS}):
        terminalreporter.line(f"{reader:<24}" + "".join(f"{COUNTS[reader, kind]:>14}" for kind in kinds))
