"""Files, folders and patterns to image files, and the names of what is written for them."""

import os

import pytest

from cxrfast.inference._inputs import expand_inputs


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "below/c.dcm", "below/out/d.png", ".cache/e.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "in" / "below" / "1.2.840.7").write_bytes(bytes(128) + b"DICM")
    os.mkfifo(tmp_path / "in" / "pipe")
    return tmp_path / "in"


def names(files, folder):
    return [str(file.relative_to(folder)) for file in files]


def test_a_folder_is_the_images_below_it(folder):
    files, failures = expand_inputs([folder])
    assert names(files, folder) == ["a.JPG", "b.png", "below/1.2.840.7", "below/c.dcm", "below/out/d.png"]
    assert failures == {}


def test_the_output_folder_is_not_read(folder):
    files, _ = expand_inputs([folder], skip=folder / "below" / "out")
    assert "below/out/d.png" not in names(files, folder)
    assert len(files) == 4


def test_patterns(folder):
    files, failures = expand_inputs([f"{folder}/*.png", f"{folder}/**/*.dcm", f"{folder}/*.gif"])
    assert names(files, folder) == ["b.png", "below/c.dcm"]
    assert failures == {f"{folder}/*.gif": f"{folder}/*.gif: expected a pattern that matches files, got no match"}


def test_a_file_with_the_letters_of_a_pattern_is_a_file(folder):
    odd = folder / "scan[1].png"
    odd.write_bytes(b"x")
    assert expand_inputs([odd]) == ([odd], {})


def test_a_named_file_is_taken_once_and_whatever_it_is(folder):
    files, _ = expand_inputs([folder / "notes.txt", folder / "b.png", folder / "below" / ".." / "b.png", folder])
    assert names(files, folder)[:2] == ["notes.txt", "b.png"]
    assert len(files) == 6


def test_what_is_missing_is_left_to_the_reader_and_an_empty_folder_is_told(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    files, failures = expand_inputs([folder / "missing.png", tmp_path / "empty"])
    assert files == [folder / "missing.png"]
    assert "empty: expected images (.png, " in failures[str(tmp_path / "empty")]


def test_unreadable_folders_and_names_of_images_that_are_no_files_are_named(folder, monkeypatch):
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "gone.dcm").symlink_to(folder / "nowhere.dcm")
    os.mkfifo(folder / "pipe.png")
    (folder / "closed").mkdir()
    scandir = os.scandir

    def refuse(place):  # root may read everything, so permissions cannot be tested by themselves
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    files, failures = expand_inputs([folder])
    assert len(files) == 5
    assert {name.rpartition("/")[2] for name in failures} == {"loop.png", "gone.dcm", "pipe.png", "closed"}
    assert failures[str(folder / "closed")] == f"{folder / 'closed'}: the folder cannot be read (Permission denied)"
    assert "it is a named pipe, not a file" in failures[str(folder / "pipe.png")]
    assert "symbolic links" in failures[str(folder / "loop.png")]


def test_linked_folders_are_searched_once(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "z.png").write_bytes(b"x")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "below" / "up").symlink_to(folder)
    files, failures = expand_inputs([folder])
    assert [file.name for file in files] == ["a.JPG", "b.png", "1.2.840.7", "c.dcm", "d.png", "z.png"]
    assert failures == {}
