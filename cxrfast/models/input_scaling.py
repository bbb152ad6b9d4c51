"""Input normalisation."""

from collections.abc import Sequence

import torch
from torch import nn


class InputScaling(nn.Module):
    """Converts grey values in [-1, 1] to a network's input: `(grey in [0, 1] − mean_c) / std_c` per channel.

    The normalisation is not folded into the weights of the first convolution, because that convolution pads with zeros
    after it, and a mean folded into the bias would be wrong along the border.
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
            # Set by the options and not learnt, so not part of the state.
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    @property
    def channels(self) -> int:
        return len(self.scale)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] in [-1, 1] -> [B, C, S, S]
        return images if self.identity else images * self.scale + self.shift
