"""Decodes COCO's run-length masks: run lengths in column order, as a list or compressed into a string."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxrfast.data._limits import largest_image
from cxrfast.errors import CxrfastError


def decode_rle(segmentation: Any, height: int, width: int, where: str) -> Tensor:  # bool [height, width]
    """Decode alternating runs of 0 and 1, starting with 0, column by column. ``where`` is used in error messages."""
    runs = _runs(segmentation, height, width, where)
    values = torch.arange(len(runs)) % 2 == 1
    return values.repeat_interleave(torch.tensor(runs, dtype=torch.long)).view(width, height).T.contiguous()


def rle_box(segmentation: Any, height: int, width: int, where: str) -> tuple[float, float, float, float] | None:
    """The smallest box xyxy, in pixels, that holds all pixels of a mask; None for an empty mask.

    Pixel (row, column) covers column to column + 1 and row to row + 1.
    """
    runs = np.array(_runs(segmentation, height, width, where), dtype=np.int64)
    ends = np.cumsum(runs)[1::2]
    starts = ends - runs[1::2]
    filled = ends > starts
    if not filled.any():
        return None
    starts, last = starts[filled], ends[filled] - 1
    one_column = starts // height == last // height
    top = np.where(one_column, starts % height, 0).min()
    bottom = np.where(one_column, last % height, height - 1).max()
    return float(starts[0] // height), float(top), float(last[-1] // height + 1), float(bottom + 1)


def _runs(segmentation: Any, height: int, width: int, where: str) -> list[int]:
    """The lengths of the runs, checked against the size of the image."""
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise CxrfastError(f"{where}: segmentation is no run-length mask with 'counts'; polygons must be drawn first")
    if height * width > largest_image():
        raise CxrfastError(f"{where}: an image of {width}×{height} pixels, more than {largest_image()}; correct it")
    size = segmentation.get("size", [height, width])
    if size != [height, width]:
        raise CxrfastError(f"{where}: the mask's size {size!r:.60} is not that of its image, [{height}, {width}]")
    counts = segmentation["counts"]
    runs = _unpack(counts, where) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) for run in runs):
        raise CxrfastError(f"{where}: the mask's counts are {runs!r:.40}; expected a list of whole numbers, or a text")
    if min(runs, default=0) < 0:
        raise CxrfastError(f"{where}: the mask has a run of length {min(runs)}; expected 0 or more")
    if sum(runs) != height * width:
        raise CxrfastError(f"{where}: the mask's runs add up to {sum(runs)}, expected {height * width}")
    return runs


def _unpack(text: str, where: str) -> list[int]:
    """Decode COCO's compressed counts. A character minus 48 holds five bits and a continuation bit. From the third run
    on, numbers are differences from the run before the last."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise CxrfastError(f"{where}: the mask's text has the character {character!r}, which COCO does not write")
        value |= (code & 31) << shift
        shift += 5
        if shift > 60:
            raise CxrfastError(f"{where}: the mask's text has a number of more than 60 bits")
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise CxrfastError(f"{where}: the mask's text ends within a number")
    return runs
