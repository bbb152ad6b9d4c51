"""Labels of bags, and sums over bags as one tensor, for the tests of self_guided_sums."""

from collections.abc import Sequence

import torch

from tests.ops.inputs import random


def labels(bags: int, classes: int, seed: int = 0, positives: float = 0.6) -> torch.Tensor:
    """[bags, classes], of which the share `positives` is true."""
    return random(torch.rand, (bags, classes), seed=seed) < positives


def stacked(sums: Sequence[torch.Tensor]) -> torch.Tensor:
    """What carries a gradient, as one tensor, so that one random projection tests all gradients."""
    return torch.stack(sums[:4])
