"""Code that needs an interpreter of its own."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cxrfast


def run_code(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a new interpreter, which imports the cxrfast under test from wherever it is.

    `python -c` puts its working folder first on the import path: in the project's own folder the uncompiled package
    would hide the installed one, so it runs in an empty folder.
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(cxrfast.__file__).parents[1])}
    with tempfile.TemporaryDirectory() as empty:
        command = [sys.executable, *options, "-c", code]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done
