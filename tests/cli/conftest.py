"""The command line under test."""

import pytest

from cxrfast.cli.main import run


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Run the command in an empty folder: cli("train", …) -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
