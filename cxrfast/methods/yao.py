"""After Yao et al. 2018, "Weakly Supervised Medical Diagnosis and Localization from Multiple Resolutions"
(arXiv:1803.07703).

What is from the paper, and what is not. The abstract states that maps of high resolution are trained with image-level
labels only. The pooling, LSE-LBA, is exact; its formula is second-hand, from a re-implementation that quotes it:

    p = 1/(r₀ + exp β) · log [1/(wh) Σ exp((r₀ + exp β) S_ij)],    β learnt, r₀ ≥ 0 fixed,

here with one β per class, over the probabilities S of the class's saliency map (`LSELBAPool` in
`cxrfast/nn/mil_pool.py`). The types of blocks of the network are also second-hand: residual blocks that reduce the
resolution, dense blocks that keep it, and a decoder with nearest-neighbour upsampling, concatenation and refinement
(`cxrfast/models/multi_resolution.py`). No source was available for depths, widths, image size, r₀, training settings
and the rule from maps to regions. These are our own design, and the network is not claimed to be that of the authors.

The pooled p of each class is trained with binary cross-entropy. The region of a class is the union of the cells with
S ≥ 0.5.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field

from cxrfast.losses import binary_cross_entropy
from cxrfast.methods.base import Batch, Defaults, Method, MethodOptions, Stage
from cxrfast.models import MultiResolutionNetwork
from cxrfast.nn import LSELBAPool
from cxrfast.regions.prediction import Prediction

STAGE = "saliency"


class YaoOptions(MethodOptions):
    map_stride: Literal[2, 4] = Field(4, description="image pixels per cell of a saliency map")
    levels: int = Field(4, ge=2, description="number of resolutions of encoder and decoder, each half of the previous")
    width: int = Field(64, ge=2, description="channels at the finest resolution; doubled at each coarser one")
    growth: int = Field(32, ge=1, description="channels added by each layer of a dense block")
    dense_layers: int = Field(4, ge=0, description="layers of each dense block")
    r0: float = Field(5.0, ge=0, allow_inf_nan=False, description="lower bound of the pooling's sharpness")
    beta: float = Field(0.0, ge=-88, le=88, description="initial β; the sharpness is r0 + exp(β), learnt per class")
    region_threshold: float = Field(0.5, gt=0, lt=1, description="threshold of a positive cell")


class Yao(Method):
    name = "yao"
    title = "after Yao et al. 2018, multiple resolutions (LSE-LBA pooling exact, network our own design)"
    Options = YaoOptions
    defaults: ClassVar[Defaults] = Defaults(
        image_size=512, epochs=20, batch_size=16, lr=1e-3, weight_decay=1e-4, lr_decay=0.1, lr_step=10
    )

    def __init__(self, class_names: Sequence[str], image_size: int, options: YaoOptions) -> None:
        super().__init__(class_names, image_size, options)
        self.network = MultiResolutionNetwork(
            len(class_names),
            map_stride=options.map_stride,
            levels=options.levels,
            width=options.width,
            growth=options.growth,
            dense_layers=options.dense_layers,
        )
        self.pooling = LSELBAPool(len(class_names), options.r0, options.beta)

    def stages(self, epochs: int) -> tuple[Stage, ...]:
        return (Stage(STAGE, epochs, trains=("network.", "pooling.")),)

    def forward(self, images: torch.Tensor, stage: str) -> torch.Tensor:  # [B, 1, S, S] -> [B, K, S/4, S/4]
        return self.network(images)

    def loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        # With logits, so that neither p nor 1 − p is rounded to 0.
        return binary_cross_entropy(self.pooling(logits), batch["labels"])

    def predict(self, images: torch.Tensor, stage: str) -> Prediction:
        logits = self(images, stage).float()
        return Prediction(torch.sigmoid(self.pooling(logits)), torch.sigmoid(logits))

    @property
    def map_thresholds(self) -> torch.Tensor:  # [K]
        return torch.full((len(self.class_names),), self.options.region_threshold)
