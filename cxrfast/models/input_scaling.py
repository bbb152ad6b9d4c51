"""Scaling of the input of a network."""

from collections.abc import Sequence

import torch
from torch import nn


class InputScaling(nn.Module):
    """Converts grey values in [-1, 1] to the input a network was trained with: `(grey in [0, 1] − mean_c) / std_c`.

    There is one output channel per mean. The scaling is not folded into the first convolution, because this convolution
    pads the scaled image with zeros, and a mean folded into its bias would be wrong at the border.

    Args:
        mean, std: per channel, for grey values in [0, 1].
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if not mean or len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"expected as many means as standard deviations above 0, got {mean} and {std}")
        pairs = list(zip(mean, std, strict=True))
        self.identity = pairs == [(0.5, 0.5)]
        for name, values in (("scale", [0.5 / s for _, s in pairs]), ("shift", [(0.5 - m) / s for m, s in pairs])):
            # From the options and not trained, so not part of the state.
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    @property
    def channels(self) -> int:
        return len(self.scale)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] in [-1, 1] -> [B, C, S, S]
        return images if self.identity else images * self.scale + self.shift
