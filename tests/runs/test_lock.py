"""One process at a time trains in a folder."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cxrfast
from cxrfast.errors import CxrfastError
from cxrfast.runs.lock import locked

pytest.importorskip("fcntl")

HOLD = """
import sys, time
from pathlib import Path
from cxrfast.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held\\n", end="", flush=True)
    time.sleep(20)
"""


def holder_of(path, script=HOLD):
    """A process that holds the lock. It imports the cxrfast under test, and not the one in the working folder."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cxrfast.__file__).parents[1])}
    call = [sys.executable, "-c", script, str(path)]
    return subprocess.Popen(
        call, cwd=path.parent, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def test_the_second_is_told_who_the_first_is(tmp_path):
    path = tmp_path / "run.lock"
    holder = holder_of(path)
    try:
        assert holder.stdout.readline() == "held\n"
        message = rf"is in use by process {holder.pid} on \S+; wait until it has finished"
        with pytest.raises(CxrfastError, match=message), locked(path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    assert path.exists()  # a killed process leaves the file, but not the lock
    with locked(path):
        assert f"process {os.getpid()} on " in path.read_text()
    assert not path.exists()


def test_one_process_cannot_take_it_twice_and_an_error_releases_it(tmp_path):
    path = tmp_path / "run.lock"
    with locked(path), pytest.raises(CxrfastError, match="is in use"), locked(path):
        pass
    with pytest.raises(RuntimeError), locked(path):
        raise RuntimeError
    with locked(path):
        pass


def test_a_child_that_lives_longer_does_not_keep_it(tmp_path):
    path = tmp_path / "run.lock"
    script = HOLD.replace(
        'print("held\\n"', 'import os\n    child = os.fork()\n    print("held\\n" if child else "child\\n"'
    )
    holder = holder_of(path, script)
    try:
        lines = {holder.stdout.readline(), holder.stdout.readline()}
        assert lines == {"held\n", "child\n"}
        holder.kill()
        holder.wait()
        time.sleep(0.1)
        with locked(path):
            pass
    finally:
        os.killpg(holder.pid, signal.SIGKILL)  # the child too
        holder.communicate()


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / "run.lock").symlink_to(tmp_path / "target")
    with pytest.raises(CxrfastError, match="run.lock cannot be written"), locked(tmp_path / "run.lock"):
        pass
    assert (tmp_path / "target").read_text() == "mine"
