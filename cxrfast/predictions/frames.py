"""Boxes in pixels of their image become fractions of it."""

from collections.abc import Sequence
from pathlib import Path

from cxrfast.errors import CxrfastError
from cxrfast.predictions.masks import Mask
from cxrfast.predictions.parsed import ParsedPredictions, Region, checked_score

FRAME = 1024.0
"""Side of the image in pixels for boxes of a CSV without columns `width` and `height`, as in ChestX-ray14."""


class Frames:
    """Collects the boxes of one file, each with the size of its image, and checks that they are in pixels of it.

    Edges outside of the image are moved to its border, with a note if that is more than a pixel.
    """

    def __init__(self, path: Path, into: ParsedPredictions):
        self.path, self.into = path, into
        self.boxes = self.clipped = self.tiny = 0

    def add(
        self,
        image: str,
        class_name: str,
        box: Sequence[float],  # x1, y1, x2, y2
        size: tuple[float, float],  # width, height
        score: float,
        where: str,
        mask: Mask | None = None,
    ) -> None:
        x1, y1, x2, y2 = box
        width, height = size
        if not (width > 0 and height > 0):
            raise CxrfastError(f"{where}: an image of width {width:g} and height {height:g}; expected more than 0")
        if not (x2 > x1 and y2 > y1):
            raise CxrfastError(f"{where}: box {list(box)} has no area; expected x1 < x2 and y1 < y2")
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            raise CxrfastError(
                f"{where}: box {list(box)} lies outside of its image of {width:g} × {height:g}; give its true size, "
                "in a CSV as columns width and height"
            )
        pixel = [1.0 if side > 1 else side / FRAME for side in size]  # an image with sides of 1 has boxes as fractions
        self.boxes += 1
        self.clipped += min(x1 / pixel[0], y1 / pixel[1]) < -1 or x2 > width + pixel[0] or y2 > height + pixel[1]
        self.tiny += min(x1, y1) >= 0 and max(x2, y2) <= 1 < min(size)
        fractions = (max(x1, 0.0) / width, max(y1, 0.0) / height, min(x2 / width, 1.0), min(y2 / height, 1.0))
        self.into.add_region(Region(image, class_name, fractions, checked_score(score, where), mask))

    def close(self) -> None:
        if self.boxes and self.tiny == self.boxes:
            raise CxrfastError(
                f"{self.path}: every box lies between 0 and 1, as fractions of the image do; multiply them by its "
                "width and height, or in a CSV add columns width and height, both 1"
            )
        if self.clipped:
            self.into.notes.append(
                f"{self.clipped} of the {self.boxes} boxes of {self.path.name} reach out of their image by more than a "
                "pixel and were cut there: is its size right?"
            )
