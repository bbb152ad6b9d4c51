"""The largest image that is read, compared with the size that a file declares before memory is taken for it."""

import os
from pathlib import Path

from cxrfast.errors import CxrfastError, UsageError

MAX_PIXELS = 100_000_000
"""Default of ``max_pixels``: five times as many as the largest radiographs have (about 20 million)."""
MAX_PIXELS_VARIABLE = "CXRFAST_MAX_PIXELS"
"""Environment variable that replaces :data:`MAX_PIXELS`, also in data-loader workers."""


def largest_image(max_pixels: int | None = None) -> int:
    """The largest number of pixels of an image that is read: ``max_pixels``, or the default of :func:`read_image`."""
    if max_pixels is None:
        text = os.environ.get(MAX_PIXELS_VARIABLE, "")
        if text and not text.isdecimal():
            raise UsageError(f"{MAX_PIXELS_VARIABLE}: expected a number of pixels, got {text!r:.40}")
        max_pixels = int(text[:18]) if text else MAX_PIXELS
    if max_pixels < 1:
        raise UsageError(f"max_pixels: expected 1 or more, got {max_pixels}")
    return max_pixels


def require_size(width: int, height: int, most: int, path: Path) -> None:
    """:class:`CxrfastError` for an image that declares more than ``most`` pixels, or none."""
    if width < 1 or height < 1:
        raise CxrfastError(f"{path} has no pixels (size {width}×{height}); export it again")
    if width * height > most:
        raise CxrfastError(
            f"{path} declares {width}×{height} pixels, more than {most}; if that is right, raise the limit with the "
            f"environment variable {MAX_PIXELS_VARIABLE}"
        )


def bytes_of(most: int) -> int:
    """The largest file that an image of ``most`` pixels can need: sixteen bytes a pixel, 64 MiB for everything else."""
    return 16 * most + 2**26
