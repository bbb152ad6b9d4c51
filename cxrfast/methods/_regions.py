"""The ground truth of the patch methods: for each pair of image and class, the patches inside its boxes."""

import torch

from cxrfast.data.patches import PatchRule, boxes_to_patches
from cxrfast.methods.base import Batch


def annotated_regions(
    batch: Batch, image_size: int, grid: int, rule: PatchRule
) -> tuple[torch.Tensor, torch.Tensor]:  # annotated [B, K] bool, region [B, K, P, P] bool
    """A pair (image, class) is annotated if the class has a box on the image: a^k (Rozenberg), η_i^k (Li)."""
    region = boxes_to_patches(batch["boxes"], batch["has_box"], image_size, grid, rule=rule)
    return batch["has_box"].any(dim=-1) & region.flatten(-2).any(dim=-1), region
