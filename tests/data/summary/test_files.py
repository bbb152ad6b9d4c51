"""Files that are identical, and files that cannot be read."""

import numpy as np

from cxrfast.data.summary import files
from cxrfast.data.summary.files import identical_files, look_at_files
from tests.data.summary.made_up import write_image


def test_identical_files_whatever_differs(tmp_path, monkeypatch):
    data = np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8)
    inside, start, end = data.copy(), data.copy(), data.copy()
    inside[25_000] ^= 1  # not among the bytes that are compared first
    start[0] ^= 1
    end[-1] ^= 1
    contents = [data, inside, start, data, end, data[:-1], inside, data, np.zeros(0, np.uint8), np.zeros(0, np.uint8)]
    paths = [tmp_path / str(n) for n in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content.tobytes())
    read_whole = []
    monkeypatch.setattr(
        files, "_hash_file", lambda path, hash_file=files._hash_file: read_whole.append(path) or hash_file(path)
    )
    groups = identical_files(paths, [len(content) for content in contents], progress=False)
    assert groups == [[0, 3, 7], [1, 6], [8, 9]]
    assert sorted(path.name for path in read_whole) == ["0", "1", "3", "6", "7", "8", "9"]


def test_files_that_vanish_are_in_no_group(tmp_path):
    assert identical_files([tmp_path / "a", tmp_path / "b"], [5, 5], progress=False) == []


def test_order_is_kept_over_many_tasks(tmp_path):
    paths = [tmp_path / f"{n}.png" for n in range(75)]
    for n, path in enumerate(paths):
        write_image(path, n, width=n + 1)
    for verify in (False, True):
        facts = look_at_files(paths, verify=verify, progress=False)
        assert [fact.size for fact in facts] == [(n + 1, 6) for n in range(75)]
        assert [fact.length for fact in facts] == [path.stat().st_size for path in paths]
        assert len({fact.pixels for fact in facts}) == (75 if verify else 1)


def test_problems_are_one_line(tmp_path):
    (tmp_path / "text.png").write_text("no\nimage")
    for verify in (False, True):
        missing, text = look_at_files([tmp_path / "missing.png", tmp_path / "text.png"], verify=verify, progress=False)
        assert (missing.size, missing.length, text.size, text.length) == (None, 0, None, 8)
        assert "missing.png" in missing.problem
        assert "\n" not in missing.problem + text.problem
