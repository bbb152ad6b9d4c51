"""Tiny images and tables for the readers of data sets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def make_image(tmp_path) -> Callable[..., Path]:
    """Write a grey image at a path relative to the test's folder."""

    def write(name: str, width: int = 40, height: int = 20, root: Path = tmp_path) -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(name)).integers(0, 256, (height, width), dtype=np.uint8)
        Image.fromarray(pixels).save(path, format="JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG")
        return path

    return write
