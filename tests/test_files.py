"""A file is written whole or not at all, without following links; only files are read."""

import os
import socket
import stat
import subprocess
import sys
import time

import pytest

from cxrfast._files import atomic_path, is_file, open_regular, read_bytes, read_text, remove_stale, write_text
from cxrfast.errors import CxrfastError


def test_writes_into_a_folder_that_is_made(tmp_path):
    write_text(tmp_path / "a" / "b" / "file.json", "é\n")
    assert (tmp_path / "a" / "b" / "file.json").read_bytes() == "é\n".encode()
    assert len(list((tmp_path / "a" / "b").iterdir())) == 1


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text("ha")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CxrfastError, match=r"file/below\.txt cannot be written \(.+\)$"):
        write_text(tmp_path / "file" / "below.txt", "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CxrfastError, match="folder cannot be written"):
        write_text(tmp_path / "folder", "text")
    with pytest.raises(CxrfastError, match="cannot be written"):
        write_text(tmp_path / ("x" * 300), "text")
    with pytest.raises(CxrfastError, match="cannot be written"):
        write_text(tmp_path / "a\0b", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_errors_of_the_block_are_left_as_they_are(tmp_path):
    with pytest.raises(ValueError, match="^mine$"), atomic_path(tmp_path / "file"):
        raise ValueError("mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_a_link_at_the_path_is_replaced_and_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("kept")
    (tmp_path / "out").symlink_to(secret)
    write_text(tmp_path / "out", "new")
    assert secret.read_text() == "kept"
    assert not (tmp_path / "out").is_symlink()
    assert (tmp_path / "out").read_text() == "new"


def test_a_planted_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text("kept")
    monkeypatch.setattr("secrets.token_hex", lambda size: "ab" * size)
    planted = tmp_path / f".{'ab' * 8}.tmp"
    planted.symlink_to(secret)
    with pytest.raises(CxrfastError, match="cannot be written"):
        write_text(tmp_path / "out", "new")
    assert secret.read_text() == "kept"
    assert planted.is_symlink()  # it is not ours to delete
    assert not (tmp_path / "out").exists()


def test_a_link_that_replaces_the_temporary_file_is_noticed(tmp_path):
    (tmp_path / "secret").write_text("kept")

    def swap():
        with atomic_path(tmp_path / "out") as temporary:
            temporary.unlink()
            temporary.symlink_to(tmp_path / "secret")

    with pytest.raises(CxrfastError, match="another process has replaced the temporary file"):
        swap()
    assert not (tmp_path / "out").exists()


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b))[1])
    write_text(tmp_path / "file", "text")
    assert calls[:2] == ["fsync", "replace"]


def test_files_of_killed_processes_are_removed_and_no_others(tmp_path):
    script = (
        "import os, sys; from cxrfast._files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n"
        "    path.write_text('half'); print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    others = [tmp_path / name for name in ("a.tmp", ".0123.tmp", ".0123456789abcdef.tmp.png")]
    for path in others:
        path.write_text("")
    (tmp_path / ".0123456789abcdef.tmp").symlink_to(others[0])
    (temporary,) = [path for path in tmp_path.glob(".*.tmp") if not path.is_symlink() and path.stat().st_size]
    remove_stale(tmp_path, tmp_path / "missing")
    assert temporary.exists()  # the process still writes it
    process.kill()
    process.communicate()
    remove_stale(tmp_path)
    assert not temporary.exists()
    assert len(list(tmp_path.iterdir())) == 4


def test_only_files_are_read_and_nothing_waits(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("text")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "to-pipe").symlink_to(tmp_path / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    listening.bind("socket")
    started = time.perf_counter()
    for name, problem in (
        ("pipe", "it is a named pipe"),
        ("to-pipe", "it is a named pipe"),
        ("socket", "it is a socket"),
        ("folder", "directory"),
        ("loop", "symbolic links"),
        ("x" * 300, "too long"),
        ("x/" * 3000, "too long"),
        ("a\0b", "zero byte"),
        ("\ud800", "no file can have this name"),
        ("missing", "No such file"),
    ):
        assert not is_file(tmp_path / name)
        with pytest.raises(OSError, match=problem):
            open_regular(tmp_path / name)
    with pytest.raises(OSError, match="it is a device"):
        open_regular("/dev/zero")
    listening.close()
    assert time.perf_counter() - started < 5
    assert is_file(tmp_path / "file")
    assert read_text(tmp_path / "file") == "text"


def test_larger_files_than_expected_are_not_read(tmp_path):
    (tmp_path / "file").write_bytes(bytes(100))
    assert read_bytes(tmp_path / "file", 100) == bytes(100)
    with pytest.raises(OSError, match="it has 100 bytes, more than 99"):
        read_bytes(tmp_path / "file", 99)
    with pytest.raises(OSError, match="more than 10"):
        read_bytes("/proc/self/maps", 10)  # its size is said to be 0
