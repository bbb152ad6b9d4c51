"""A folder of images for manifests."""

import pytest

from tests.data.datasets.formats.manifests import NAMES


@pytest.fixture
def folder(tmp_path, make_image):
    for name in NAMES:
        make_image(name)
    return tmp_path
