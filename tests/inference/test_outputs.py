"""Where results are written: the folders of the inputs below the output folder, and no result twice."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrfast.errors import UsageError
from cxrfast.inference._outputs import output_places, refuse_existing

NAMES = ("a.png", "a.dcm", "A.png", "a-2.png", "a-2.dcm", "a-3.png", "b.png", "b", "1.2.8", "1.2.9", "x.y")


def places(files, roots):
    return [str(place) for place in output_places([Path(file) for file in files], roots)]


@given(st.lists(st.tuples(st.sampled_from(["p", "P", "p/q", "r"]), st.sampled_from(NAMES)), unique=True))
def test_places_never_collide_and_stay_below_the_output_folder(files):
    paths = [Path("in") / folder / name for folder, name in files]
    found = output_places(paths, ["in"])
    assert len({str(place).casefold() for place in found}) == len(paths)
    for place, (folder, name) in zip(found, files, strict=True):
        assert place.parent == Path(folder)
        assert place.name.startswith(Path(name).stem)
        assert ".." not in place.parts


def test_places_mirror_the_folders():
    assert places(["in/a.png", "in/p/a.png"], ["in"]) == ["a", "p/a"]
    assert places(["in/p1/a.png", "in/p2/a.png"], ["in/p1", "in/p2"]) == ["p1/a", "p2/a"]
    assert places(["in/p1/a.png"], ["in"]) == ["p1/a"]  # the same as with other patients beside it
    assert places(["x/a.png"], ["x"]) == ["a"]
    assert places(["../x/a.png", "./b.png"], ["../x", "."]) == ["x/a", f"{Path.cwd().name}/b"]
    assert places(["/one/a.png", "/two/b/a.png"], ["/one", "/two/b"]) == ["one/a", "two/b/a"]
    assert output_places([], []) == []


def test_names_that_differ_in_their_suffix_alone():
    assert places(["x/a.png", "x/a.dcm", "x/a-2.png", "x/A.jpg"], ["x"]) == ["a", "a-3", "a-2", "A-4"]
    assert places(["x/1.2.840.7", "x/1.2.840.8"], ["x"]) == ["1.2.840.7", "1.2.840.8"]  # the end of a UID is no suffix


@pytest.mark.parametrize("spread", [True, False])
def test_sixteen_thousand_files_of_one_name(spread):
    if spread:
        files = [Path(f"in/{n}/IM0001.png") for n in range(16_000)]
    else:  # as many of one name as a folder can have: in each way of writing it
        letters = ["".join(c.upper() if n >> i & 1 else c for i, c in enumerate("abcdefghijkl")) for n in range(2**12)]
        files = [Path(f"in/{name}{suffix}") for name in letters for suffix in (".png", ".dcm", ".jpg", ".tif")]
    started = time.perf_counter()
    found = output_places(files, ["in"])
    assert time.perf_counter() - started < 10
    assert len({str(place).casefold() for place in found}) == len(files)


def test_existing_results_are_named(tmp_path):
    refuse_existing(tmp_path, [Path("a"), Path("p/b")])
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "b.png").symlink_to(tmp_path / "nowhere")  # a broken link is there too
    with pytest.raises(UsageError, match=rf"got {os.path.join(tmp_path, 'p', 'b.png')}; choose another folder"):
        refuse_existing(tmp_path, [Path("a"), Path("p/b")])
