"""Preprocessing from an image to the network's input, and augmentation of images together with their boxes."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cxrfast.errors import UsageError


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """``image [H, W]`` to ``[size, size]``, without keeping the aspect ratio; same dtype.

    Area averaging if the image is downscaled in both directions, to avoid aliasing; otherwise bilinear interpolation.
    """
    import cv2

    height, width = image.shape
    if (height, width) == (size, size):
        return image
    shrinks = size <= height and size <= width
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def normalize(image: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1], the input range of Rozenberg et al."""
    return image * 2.0 - 1.0


def to_input(image: np.ndarray, size: int) -> Tensor:
    """Greyscale ``image [H, W]`` in [0, 1] -> network input float32 ``[1, size, size]`` in [-1, 1]."""
    resized = np.ascontiguousarray(resize(image, size), dtype=np.float32)
    return normalize(torch.from_numpy(resized)[None])


@dataclass(frozen=True)
class Augmentation:
    """Random affine transforms, brightness and contrast. Reproducible with torch's seed and a fixed number of workers.

    Horizontal flips are off by default, because left and right differ: a mirrored image shows the heart on the wrong
    side.

    If a random transform leaves less than ``min_visible`` of the area of any box inside the image, another one is
    drawn. After ``attempts`` draws the image is not transformed, only cropped around its boxes. So no box is lost (880
    of 112,120 images have one), and no class stays positive without its lesion in the image. For positives without a
    box this cannot be checked; the default shifts are small enough to keep their labels correct.

    A transformed box encloses the rotated ellipse that is inscribed in the original box. Enclosing the rotated corners
    would inflate the box, by 17 % of its area at 5 degrees.
    """

    rotation: float = 5.0  # maximum angle in degrees, in both directions
    translate: float = 0.04  # maximum shift, as a fraction of the image side
    scale: tuple[float, float] = (0.92, 1.1)
    brightness: float = 0.1  # factor within 1 ± this
    contrast: float = 0.1
    flip: float = 0.0  # probability of a horizontal flip
    crop: float = 1.0  # side of a random square crop, as a fraction of the image side; the output has that size
    min_visible: float = 0.5
    attempts: int = 10

    def __post_init__(self):
        for name in ("rotation", "brightness", "contrast"):
            if getattr(self, name) < 0:
                raise UsageError(f"augmentation {name} is {getattr(self, name)}; expected 0 or more")
        if not 0 < self.crop <= 1:
            raise UsageError(f"augmentation crop is {self.crop}; expected a value above 0, at most 1")
        for name in ("translate", "flip", "min_visible"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"augmentation {name} is {getattr(self, name)}; expected a value in [0, 1]")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise UsageError(f"augmentation scale is {self.scale}; expected (smallest, largest) above 0")

    def __call__(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """``image [1, S, S]`` in [0, 1] and ``boxes [N, 4]`` (xyxy pixels) -> both after one random transform.

        Returned boxes are clipped to the output image (the crop, if there is one) and are in its pixels.
        """
        image, boxes = self._move(image, boxes)
        return self._expose(image), boxes

    def _move(
        self,
        image: Tensor,  # [1, S, S]
        boxes: Tensor,  # [N, 4]
    ) -> tuple[Tensor, Tensor]:
        from torchvision import tv_tensors
        from torchvision.transforms import v2

        size = image.shape[-1]
        steps = [v2.RandomHorizontalFlip(self.flip)] if self.flip else []
        # Bilinear, with black outside the image, as outside the collimator.
        steps.append(
            v2.RandomAffine(
                self.rotation,
                translate=(self.translate, self.translate),
                scale=self.scale,
                interpolation=v2.InterpolationMode.BILINEAR,
            )
        )
        transform = v2.Compose(steps)
        upright = torch.cat(
            [(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2], boxes.new_zeros(len(boxes), 1)], 1
        )
        # Rotated boxes are not clamped, because the area outside the image must be measured.
        rotated = tv_tensors.BoundingBoxes(upright, format="CXCYWHR", canvas_size=(size, size), clamping_mode=None)
        side = max(1, round(self.crop * size))
        for _ in range(self.attempts):
            moved, moved_boxes = transform(tv_tensors.Image(image), rotated)
            # Draw no random numbers without a crop, so that the transforms of a seed do not depend on this option.
            y, x = torch.randint(size - side + 1, (2,)).tolist() if side < size else (0, 0)
            whole = _enclose_ellipses(moved_boxes.as_subclass(Tensor)) - torch.tensor([x, y, x, y])
            inside = whole.clamp(0, side)
            if (_area(inside) >= self.min_visible * _area(whole)).all():
                return moved.as_subclass(Tensor)[:, y : y + side, x : x + side], inside
        # Cropped around the boxes.
        whole = boxes if len(boxes) else torch.tensor([[0.0, 0.0, size, size]])
        low, high = whole[:, :2].amin(0), whole[:, 2:].amax(0)
        x, y = ((low + high - side) / 2).round().long().clamp(0, size - side).tolist()
        inside = (boxes - torch.tensor([x, y, x, y])).clamp(0, side)
        return image[:, y : y + side, x : x + side], inside

    def _expose(self, image: Tensor) -> Tensor:
        from torchvision.transforms import v2

        return v2.ColorJitter(brightness=self.brightness, contrast=self.contrast)(image)


def _enclose_ellipses(boxes: Tensor) -> Tensor:
    """[N, 5] (centre, width, height, degrees) -> [N, 4]: tight xyxy boxes of the ellipses inscribed in them."""
    centre, axes, angle = boxes[:, :2], boxes[:, 2:4] / 2, boxes[:, 4:].deg2rad()
    cos2, sin2 = angle.cos().square(), angle.sin().square()
    turn = torch.cat([cos2, sin2, sin2, cos2], dim=1).unflatten(1, (2, 2))
    half = (turn @ axes.square()[..., None]).squeeze(-1).sqrt()
    return torch.cat([centre - half, centre + half], dim=-1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)
