"""Help texts and `cxrfast info`."""

import subprocess
import sys
import time

import pytest

from cxrfast.cli.main import app
from tests.interpreter import run_code


def test_help_names_every_command_and_answers_at_once(tmp_path):
    call = [sys.executable, "-m", "cxrfast.cli.main", "--help"]
    subprocess.run(call, check=True, capture_output=True, cwd=tmp_path)
    started = time.perf_counter()
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path)
    seconds = time.perf_counter() - started
    assert done.returncode == 0
    for command in app.registered_commands:
        assert command.callback.__name__.replace("_", "-") in done.stdout
    assert "Research use only" in " ".join(done.stdout.split())
    assert seconds < 5  # the promise is half a second; this only notices a heavy import, on a busy machine too


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from cxrfast.cli.main import run; run(['--help']); "
        "print([m for m in ('torch', 'timm', 'cv2') if m in sys.modules])"
    )
    assert run_code(code).stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    "command",
    ["demo", "synth", "data", "train", "evaluate", "localize", "reproduce", "import-weights", "bench", "info"],
)
def test_every_command_has_a_help_text(cli, command):
    code, out, _ = cli(command, "--help")
    assert code == 0
    assert "Options:" in out


def test_help_names_the_methods(cli):
    from cxrfast.experiments.demo import SETTINGS
    from cxrfast.methods import METHODS

    for command, names in (("train", METHODS), ("demo", SETTINGS)):
        _, out, _ = cli(command, "--help")
        assert ", ".join(names) in " ".join(out.split())


def test_info(cli):
    code, out, _ = cli("info")
    assert code == 0
    for word in ("cxrfast", "torch", "compiler", "cuda operators", "method rozenberg", "method li"):
        assert word in out


def test_info_lists_the_options_of_a_method(cli):
    code, out, _ = cli("info", "rozenberg")
    assert code == 0
    for word in ("lambda_ann", "70.0", "λ_ann of Eq. 12", "batch-size", "48"):
        assert word in out
