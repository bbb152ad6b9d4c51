"""Networks from single images to features."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from cxrfast.errors import UsageError


class LeNet5(nn.Sequential):
    """LeNet-5 (LeCun et al. 1998) for 32×32 images, with ReLU and max pooling as in the paper; 84 features.

    Max pooling comes before ReLU, which gives the same result for a quarter of the ReLU operations.
    """

    num_features = 84

    def __init__(self, in_chans: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_chans, 6, 5),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 16, 5),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(inplace=True),
            nn.Linear(120, self.num_features),
            nn.ReLU(inplace=True),
        )


def resnet18(in_chans: int = 3) -> nn.Module:
    """ResNet-18 (He et al. 2016) with random weights; 512 features."""
    import timm

    return timm.create_model("resnet18", in_chans=in_chans, num_classes=0)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"lenet5": LeNet5, "resnet18": resnet18}


def default_network(in_chans: int) -> str:
    """The paper's choice: LeNet-5 for greyscale images, ResNet-18 for colour images."""
    return "lenet5" if in_chans == 1 else "resnet18"


def make_network(name: str, in_chans: int) -> nn.Module:
    """A network from images `[N, in_chans, 32, 32]` to features `[N, num_features]`."""
    if name not in NETWORKS:
        raise UsageError(f"network: expected one of {', '.join(NETWORKS)}, got {name!r}")
    return NETWORKS[name](in_chans)


class Normalized(nn.Module):
    """Standardises uint8 images to mean 0 and standard deviation 1 per channel before the network."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Tensor,  # [C]
        std: Tensor,  # [C]
    ) -> None:
        super().__init__()
        # Convolutions of few channels are faster in this layout, also on CPUs. Any: some torch versions lack the type.
        self.network = cast(Any, network).to(memory_format=torch.channels_last)
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])

    def forward(self, images: Tensor) -> Tensor:  # [N, C, H, W] uint8 -> [N, F]
        normalized = (images.float() - self.mean) / self.std
        return self.network(normalized.contiguous(memory_format=torch.channels_last))
