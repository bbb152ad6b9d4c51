"""The patches of a grid that belong to a box: the ground truth b of the box losses."""

from typing import Literal, get_args

import torch
from torch import Tensor

from cxrfast.errors import UsageError

PatchRule = Literal["half", "any", "center"]
RULES: tuple[PatchRule, ...] = get_args(PatchRule)

_POINTS = 8  # sampling points per side of a patch, to measure its coverage
_ROUNDING = 1e-6  # of a patch: rounding error of float32 boxes, from fractions to pixels


def boxes_to_patches(
    boxes: Tensor,  # [..., M, 4] xyxy in pixels of the image
    has_box: Tensor,  # [..., M] bool
    image_size: int,
    grid: int,  # P
    *,
    rule: PatchRule = "half",
) -> Tensor:  # [..., P, P] bool
    """The patches of a P×P grid over an ``image_size`` square that belong to any of the M boxes.

    - ``"half"``: the box covers at least half of the patch. If there is no such patch, the one with the largest overlap
      belongs to the box (the first in raster order if several are equal), so that every box inside the image has a
      patch.
    - ``"any"``: the patch overlaps the box. With this rule a perfect prediction of the patches misses IoU ≥ 0.5 for 23
      % of the boxes of ChestX-ray14 at P = 20.
    - ``"center"``: the centre of the patch is inside the box. Small boxes may have no patch (9 of 984 at P = 20).

    The papers use the patches b_k of a box without stating their rule (Li et al. Eq. 2, Rozenberg et al. Eq. 9-10).
    docs/data.md has the numbers behind the default.
    """
    if rule not in RULES:
        raise UsageError(f"patch rule is {rule!r}; expected one of {', '.join(RULES)}")
    if boxes.shape[-1:] != (4,) or boxes.shape[:-1] != has_box.shape or has_box.dtype != torch.bool:
        raise ValueError(
            f"expected boxes [..., M, 4] and bool has_box [..., M], got {list(boxes.shape)} and "
            f"{has_box.dtype} {list(has_box.shape)}"
        )
    in_patches = boxes.double() * (grid / image_size)
    left, top, right, bottom = in_patches.unbind(-1)
    if rule == "center":
        member = _between(top, bottom, grid)[..., :, None] & _between(left, right, grid)[..., None, :]
    else:
        # Coverage of a patch by a box is separable: [..., M, P, 1] · [..., M, 1, P]
        covered = _overlap(top, bottom, grid)[..., :, None] * _overlap(left, right, grid)[..., None, :]
        member = covered > 0 if rule == "any" else _half(covered)
    return (member & has_box[..., None, None]).any(dim=-3)


def boxes_to_aligned_patches(
    boxes: Tensor,  # [B, K, M, 4] xyxy in pixels of the image
    has_box: Tensor,  # [B, K, M] bool
    image_size: int,
    grid: int,  # P
    theta: Tensor,  # [B, 2, 3]
    *,
    rule: PatchRule = "half",
) -> Tensor:  # [B, K, P, P] bool
    """:func:`boxes_to_patches` for a grid over a frame that is related to each image by an affine transformation.

    ``theta`` maps coordinates of the frame to coordinates of the image, as in ``torch.nn.functional.affine_grid`` with
    ``align_corners=False`` (-1 and 1 are the edges). The coverage of a patch is measured at 8×8 points; for
    ``"center"`` only at its centre. A box outside the frame has no patch.
    """
    if rule not in RULES:
        raise UsageError(f"patch rule is {rule!r}; expected one of {', '.join(RULES)}")
    points = 1 if rule == "center" else _POINTS
    line = (torch.arange(grid * points, dtype=torch.float64, device=boxes.device) + 0.5) / (grid * points) * 2 - 1
    place = torch.stack(
        [line.expand(len(line), -1), line[:, None].expand(-1, len(line)), torch.ones_like(line).expand(len(line), -1)]
    )
    in_image = torch.einsum("bij,jhw->bihw", theta.double(), place)  # x and y of every point, from -1 to 1
    pixels = (in_image + 1) * (image_size / 2)
    image, channel, _ = pairs = has_box.nonzero(as_tuple=True)
    left, top, right, bottom = boxes[pairs].double()[:, :, None, None].unbind(1)
    x, y = pixels[image].unbind(1)  # [N, P · points, P · points] each
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    covered = inside.unflatten(2, (grid, points)).unflatten(1, (grid, points)).double().mean(dim=(2, 4))
    member = _half(covered) if rule == "half" else covered > 0
    regions = torch.zeros(*has_box.shape[:2], grid, grid, dtype=torch.int64, device=boxes.device)
    return regions.index_put((image, channel), member.long(), accumulate=True) > 0


def _overlap(start: Tensor, end: Tensor, grid: int) -> Tensor:
    """[...] -> [..., P]: the length of the overlap of [i, i+1) with [start, end)."""
    edge = torch.arange(grid, dtype=start.dtype, device=start.device)
    covered = torch.minimum(end[..., None], edge + 1) - torch.maximum(start[..., None], edge)
    # Overlaps below the rounding error are 0, so that a box that ends on a patch border does not reach the next patch.
    return torch.where(covered > _ROUNDING, covered, 0.0)


def _between(start: Tensor, end: Tensor, grid: int) -> Tensor:
    """[...] -> [..., P]: whether i + ½ lies in [start, end)."""
    centre = torch.arange(grid, dtype=start.dtype, device=start.device) + 0.5
    return (centre >= start[..., None]) & (centre < end[..., None])


def _half(covered: Tensor) -> Tensor:
    """[..., P, P] -> bool: covered by at least half or, if no patch is, the one with the largest overlap."""
    half = covered >= 0.5 - _ROUNDING
    flat = covered.flatten(-2)
    best = flat.amax(dim=-1, keepdim=True)
    # argmax over 0/1 gives the first of equals; equal up to rounding counts as equal
    first = (flat >= best - _ROUNDING).int().argmax(dim=-1, keepdim=True)
    fallback = torch.zeros_like(flat, dtype=torch.bool).scatter(-1, first, best > 0).unflatten(-1, covered.shape[-2:])
    return torch.where(half.flatten(-2).any(dim=-1)[..., None, None], half, fallback)
