"""Networks that score single images: from images to features."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from cxrfast.errors import UsageError


class LeNet5(nn.Sequential):
    """LeCun et al. 1998 for 32×32 images, with ReLU and max-pooling, as in the paper's bag experiments; 84 features.

    Pooling stands before ReLU: the same function, with a quarter of the work for ReLU.
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
    """ResNet-18 (He et al. 2016) from random weights; 512 features."""
    import timm

    return timm.create_model("resnet18", in_chans=in_chans, num_classes=0)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"lenet5": LeNet5, "resnet18": resnet18}


def default_network(in_chans: int) -> str:
    """The paper's: LeNet-5 for grey images, ResNet-18 for coloured ones."""
    return "lenet5" if in_chans == 1 else "resnet18"


def make_network(name: str, in_chans: int) -> nn.Module:
    """A network from images `[N, in_chans, 32, 32]` to features `[N, num_features]`."""
    if name not in NETWORKS:
        raise UsageError(f"network: expected one of {', '.join(NETWORKS)}, got {name!r}")
    return NETWORKS[name](in_chans)


class Normalized(nn.Module):
    """A network on images of grey values 0 … 255, which it brings to mean 0 and standard deviation 1 per channel."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Tensor,  # [C]
        std: Tensor,  # [C]
    ) -> None:
        super().__init__()
        # Convolutions of few channels are faster in this layout, on CPUs as well. Any: some versions' types lack it.
        self.network = cast(Any, network).to(memory_format=torch.channels_last)
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])

    def forward(self, images: Tensor) -> Tensor:  # [N, C, H, W] uint8 -> [N, F]
        normalized = (images.float() - self.mean) / self.std
        return self.network(normalized.contiguous(memory_format=torch.channels_last))
