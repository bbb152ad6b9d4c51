"""Images on which bags can be learnt in seconds."""

from pathlib import Path

import numpy as np
import pytest

from cxrfast.experiments.bags import BagSource, read_source


def make_images(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise [n, 32, 32] with a bright square (class 1, a fifth of them) or a bright cross (classes 0 and 2)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (n, 32, 32), dtype=np.uint8)
    labels = rng.choice(3, n, p=[0.5, 0.2, 0.3])
    for image, label, row, column in zip(images, labels, *rng.integers(4, 18, (2, n)), strict=True):
        if label == 1:
            image[row : row + 9, column : column + 9] = 220
        else:
            image[row : row + 9, column + 3 : column + 6] = 220
            image[row + 3 : row + 6, column : column + 9] = 220
    return images, labels


@pytest.fixture(scope="session")
def array_file(tmp_path_factory) -> Path:
    """An .npz file of 900 images, 300 of them for testing. Not to be changed."""
    train_images, train_labels = make_images(600, 0)
    test_images, test_labels = make_images(300, 1)
    path = tmp_path_factory.mktemp("arrays") / "squares.npz"
    names = np.array(["cross", "square", "other cross"])
    np.savez(
        path,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=names,
    )
    return path


@pytest.fixture(scope="session")
def squares(array_file) -> BagSource:
    return read_source(str(array_file), positive_class="square")
