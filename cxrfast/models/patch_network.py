"""Networks that give one logit per class and patch (Li et al. 2018 §3; Rozenberg et al. 2019 §3, Figures 2, 3)."""

import math
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

from cxrfast.models.backbones import Backbone
from cxrfast.models.input_scaling import InputScaling
from cxrfast.nn import PacCRF

UnaryForm = Literal["logit", "probability"]

_CLIP = 1e-6  # probabilities are clipped to [_CLIP, 1 − _CLIP] before the logit


class PatchHead(nn.Sequential):
    """Li's two-layer recognition head: 3×3 convolution, batch norm, ReLU, 1×1 convolution to one map per class.

    The last bias is initialised to logit(prior), so that an untrained network scores almost every patch as negative.
    Otherwise the noisy-OR over P² patches would start at 1 − 2^(−P²).

    Args:
        in_channels, num_classes: C, K.
        hidden: channels between the two layers.
        prior: initial probability of a patch.
    """

    def __init__(self, in_channels: int, num_classes: int, *, hidden: int = 512, prior: float = 0.02) -> None:
        last = nn.Conv2d(hidden, num_classes, 1)
        super().__init__(
            nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            last,
        )
        nn.init.normal_(last.weight, std=0.01)
        nn.init.constant_(cast(nn.Parameter, last.bias), math.log(prior / (1 - prior)))


class PatchNetwork(nn.Module):
    """Backbone features, resized to P×P and scored by the head. The output is the unary term of the CRF.

    Args:
        backbone: a backbone with as many input channels as `scaling` has output channels.
        num_classes, grid: K, P.
        hidden: channels between the two layers of the head.
        scaling: the scaling of the input. Default: unchanged images.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        grid: int,
        *,
        hidden: int = 512,
        scaling: InputScaling | None = None,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.scaling = scaling or InputScaling((0.5,), (0.5,))
        self.backbone = backbone
        self.head = PatchHead(backbone.num_features, num_classes, hidden=hidden)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # [B, 1, S, S] -> logits [B, K, P, P]
        features = self.backbone.forward_features(self.scaling(images))
        return self.head(resize_to_grid(features, self.grid))


class GuideBranch(nn.Sequential):
    """Rozenberg's lower branch (§3.3, Figure 3): computes the guide from the image, in the size of the unary map.

    It has two convolutions, each followed by ReLU and batch norm. The paper states neither kernel sizes nor strides;
    they are 5×5 with stride 4 and 3×3 with stride 2 here. The result is averaged over each patch, which gives P×P.

    Args:
        channels: channels of the guide.
        grid: P.
        in_chans: channels of the image.
    """

    def __init__(self, channels: int, grid: int, *, in_chans: int = 1) -> None:
        first = max(1, channels // 2)
        super().__init__(
            nn.Conv2d(in_chans, first, 5, stride=4, padding=2, bias=False),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(first),
            nn.Conv2d(first, channels, 3, stride=2, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(channels),
            nn.AdaptiveAvgPool2d(grid),
        )


class CRFNetwork(nn.Module):
    """Rozenberg's network: a patch network for the unary terms, followed by a PAC-CRF guided by the image.

    Args:
        unary, guide, crf: the parts.
        unary_form: the unary term of the CRF. §3.3 says that it is the probabilities p, and that z = p without
            neighbours; both forms satisfy the latter. "logit": logit(p), and z is the sigmoid of the result.
            "probability": p itself, and z is the result. The pairwise terms can move this z out of [0, 1]; it is then
            clipped with a straight-through gradient, so that it can return.
    """

    def __init__(
        self,
        unary: PatchNetwork,
        guide: GuideBranch,
        crf: PacCRF,
        *,
        unary_form: UnaryForm = "logit",
    ) -> None:
        super().__init__()
        self.unary = unary
        self.guide = guide
        self.crf = crf
        self.unary_form = unary_form

    def forward(self, images: torch.Tensor, *, with_crf: bool = True) -> torch.Tensor:  # -> logits [B, K, P, P] of z
        unary = self.unary(images)
        if not with_crf:
            return unary
        guide = self.guide(images)
        if self.unary_form == "logit":
            return self.crf(unary, guide)
        z = self.crf(torch.sigmoid(unary), guide)
        z = z.float()
        return torch.logit(z + (z.clamp(_CLIP, 1 - _CLIP) - z).detach())


def resize_to_grid(features: torch.Tensor, grid: int) -> torch.Tensor:  # [B, C, h, w] -> [B, C, P, P]
    """Features resized to P×P: bilinear to enlarge them, max-pooling to reduce them (Li et al. 2018 §3.1)."""
    height, width = features.shape[-2:]
    if (height, width) == (grid, grid):
        return features
    if height >= grid and width >= grid:
        return F.adaptive_max_pool2d(features, grid)
    return F.interpolate(features, size=(grid, grid), mode="bilinear", align_corners=False)
