"""Images are found by shorter names, unless these mean several images."""

import pytest

from cxrfast.data.image_names import ImageIndex
from cxrfast.errors import CxrfastError

IMAGES = ["p1/study1/view1_frontal.jpg", "p2/study1/view1_frontal.jpg", "p3/a.png", "b.png"]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("p1/study1/view1_frontal.jpg", 0),
        ("p2/study1/view1_frontal", 1),
        ("p2\\study1\\view1_frontal.jpg", 1),
        ("./p3/a.png", 2),
        ("a.png", 2),
        ("a", 2),
        ("images/b.png", 3),
        ("b.jpg", 3),
        ("c.png", None),
    ],
)
def test_names(name, place):
    assert ImageIndex(IMAGES).find(name) == place


def test_a_name_of_two_images_is_an_error():
    with pytest.raises(CxrfastError, match="may be p1/study1/view1_frontal.jpg or p2/study1/view1_frontal.jpg"):
        ImageIndex(IMAGES).find("view1_frontal.jpg")


def test_as_a_mapping():
    index = ImageIndex(IMAGES)
    assert "a.png" in index
    assert index["a.png"] == 2
    with pytest.raises(KeyError):
        index["c.png"]


def test_a_full_name_goes_before_a_short_one():
    """An image at the top of the folder keeps its name, if another has it in a sub-folder."""
    index = ImageIndex(["a.png", "p/a.png"])
    assert (index.find("a.png"), index.find("p/a.png")) == (0, 1)
