"""A file is written whole or not at all."""

import pytest

from cxrfast._files import atomic_path, write_text
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
