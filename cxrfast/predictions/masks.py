"""Regions given as masks of pixels."""

from typing import NamedTuple

from torch import Tensor


class Mask(NamedTuple):
    """A mask, cropped to its bounding box to save memory."""

    inside: Tensor  # [h, w] bool
    corner: tuple[int, int]  # first row and column of the crop
    size: tuple[int, int]  # H, W of the image

    @classmethod
    def cut(cls, mask: Tensor) -> "Mask":  # [H, W] bool, with a pixel set
        (top, bottom), (left, right) = ((int(at.min()), int(at.max()) + 1) for at in mask.nonzero(as_tuple=True))
        return cls(mask[top:bottom, left:right].clone(), (top, left), (mask.shape[0], mask.shape[1]))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 in pixels."""
        (top, left), (h, w) = self.corner, self.inside.shape
        return (left, top, left + w, top + h)
