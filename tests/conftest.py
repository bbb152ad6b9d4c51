"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public data that lies beside the project; tests that need it skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CXRFAST_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no public test data in {folder}; set CXRFAST_TEST_DATA to where it lies")
    return folder
