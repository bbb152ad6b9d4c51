"""Conversion of colour images to greyscale, for all file formats."""

import numpy as np

_LUMA = (0.299, 0.587, 0.114)


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """[H, W] of [H, W] grey or [H, W, C] with C = 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha)."""
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] < 3:
        grey = pixels[..., 0]
    elif (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all():
        grey = pixels[..., 0]  # grey saved as colour, as some ChestX-ray14 files are: the very same values
    else:
        grey = pixels[..., :3] @ np.asarray(_LUMA, dtype=np.float32)
    return grey * pixels[..., -1] if pixels.shape[2] in (2, 4) else grey
