"""Image files found by the names that tables give them."""

import pytest

from cxrfast.data.tables.image_files import ImageFiles
from cxrfast.errors import CxrfastError


@pytest.fixture
def files(tmp_path):
    for name in ("train/p1/s1/view1.jpg", "train/p2/s1/view1.JPG", "valid/p1/s1/view1.jpg", "a.png", "b/a.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return ImageFiles(tmp_path)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("train/p1/s1/view1.jpg", "train/p1/s1/view1.jpg"),
        ("Set-v1.0/train/p2/s1/view1.jpg", "train/p2/s1/view1.JPG"),
        ("p2/s1/view1.png", "train/p2/s1/view1.JPG"),
        ("TRAIN\\P2\\S1\\VIEW1", "train/p2/s1/view1.JPG"),
        ("above/all/a.png", "a.png"),
        ("b/a", "b/a.dcm"),
        ("a.png", "a.png"),
        ("train/p3/s1/view1.jpg", None),
        ("iew1.jpg", None),
    ],
)
def test_finds(files, name, path):
    assert files.find(name) == path


def test_ambiguous_and_outside(files):
    with pytest.raises(CxrfastError, match="may be"):
        files.find("p1/s1/view1.jpg")
    with pytest.raises(CxrfastError, match="inside"):
        files.find("../a.png")
