"""A region given pixel by pixel."""

from typing import NamedTuple

from torch import Tensor


class Mask(NamedTuple):
    """A mask, cut to the box around it: of a finding on an X-ray, that is a small part of the image."""

    inside: Tensor  # [h, w] bool
    corner: tuple[int, int]  # its first row and column
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
