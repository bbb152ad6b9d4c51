"""A batch as the patch losses take it."""

import torch

from tests.ops.inputs import tensor


def batch(images=3, classes=2, size=4, seed=0, scale=2.0, dtype=torch.float64):
    """(logits, labels, annotated, region): random, with all combinations of label and box."""
    generator = torch.Generator().manual_seed(seed)
    logits = tensor((images, classes, size, size), dtype=dtype, seed=seed, scale=scale)
    labels = (torch.rand(images, classes, generator=generator) < 0.5).to(dtype)
    annotated = torch.rand(images, classes, generator=generator) < 0.5
    region = (torch.rand(images, classes, size, size, generator=generator) < 0.4) & annotated[..., None, None]
    region[..., 1, 1] |= annotated  # no box is empty
    return logits, labels, annotated, region
