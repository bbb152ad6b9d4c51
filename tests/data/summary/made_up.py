"""Data sets of a few image files, described record by record, in a layout of their own."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cxrfast.data.datasets import registry
from cxrfast.data.datasets.interface import DataOptions, DataSource, Layout
from cxrfast.data.records import Record

CLASSES = ("Mass", "Nodule", "Edema")


def write_image(path: Path, seed: int, width: int = 8, height: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8))


def record(root: Path, image: str, labels: str = "", patient: str | None = None, **more: Any) -> Record:
    return Record(image, root / image, patient or image.partition(".")[0], frozenset(labels.split()), **more)


def use_layout(monkeypatch: Any, records: Iterable[Record], **more: Any) -> None:
    """Make these records the content of every folder. Missing images are left out if images are required."""
    content = tuple(records)

    def read(path: Path, options: DataOptions) -> DataSource:
        kept = tuple(r for r in content if r.path.is_file() or not options.images_required)
        source = DataSource(path, "made-up", kept, CLASSES, "readers", notes=["a note"])
        return replace(source, **more)

    recognise: Callable[[Path], str | None] = lambda path: "made_up.csv"  # noqa: E731
    layout = Layout("made-up", "a made-up layout", "anything", recognise, read)
    monkeypatch.setattr(registry, "LAYOUTS", (layout,))
