"""Rozenberg, Freedman, Bronstein 2019, "Localization with Limited Annotation for Chest X-rays" (ML4H).

Li's patch scores, from an anti-aliased pre-activation ResNet-50, become the unary term of a pixel-adaptive CRF whose
guide two convolutions compute from the image (§3.2, Figure 3). The loss bounds areas (Eq. 9-12, in
`cxrfast/losses/rozenberg.py`): enough positive patches inside a box and few outside, at least some on an image with the
label, none on an image without. Training (§3.3, §4): the unaries to convergence, then the CRF on the frozen unaries;
the thresholds of the loss are frozen while weights train, and fitted per class on the frozen network in between
(`rozenberg_thresholds.py`). A class is localised at the union of the patches with z ≥ 0.5.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field

from cxrfast.losses import LiLoss, RozenbergLoss
from cxrfast.methods._regions import annotated_regions
from cxrfast.methods.base import Batch, Defaults, Method, Stage
from cxrfast.methods.li import PatchOptions, build_patch_network
from cxrfast.methods.rozenberg_thresholds import ThresholdFit
from cxrfast.models import CRFNetwork, GuideBranch
from cxrfast.nn import PacCRF
from cxrfast.ops import mil_pool
from cxrfast.prediction import Prediction

UNARY, CRF = "unary", "crf"


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("expected an odd number")
    return value


OddInt = Annotated[int, AfterValidator(_odd)]


class RozenbergOptions(PatchOptions):
    antialias: bool = Field(True, description="blur-pools in the backbone (Zhang 2019), if it is a CNN")
    loss: Literal["area", "li"] = Field("area", description="Eq. 12, or the loss of Li et al. in its place")
    lambda_box: float = Field(5.0, ge=0, description="λ_bbox of Li's Eq. 3, with loss=li")
    lambda_ann: float = Field(70.0, ge=0, description="λ_ann of Eq. 12")
    lambda_ann_end: float | None = Field(None, gt=0, description="λ_ann falls to it in the second half of the unaries")
    gamma: float = Field(1.0, ge=0, description="γ of Eq. 9: weight of the patches outside the box")
    tau: float = Field(0.9, ge=0, le=1, description="τ of Eq. 9 at the start: mean score wanted inside a box")
    rho: float = Field(0.05, ge=0, le=1, description="ρ of Eq. 9 at the start: mean score allowed outside a box")
    tau_hat: float = Field(1.0, ge=0, description="τ̂ of Eq. 10 at the start, in patches: area wanted on a positive")
    rho_hat: float = Field(0.0, ge=0, description="ρ̂ of Eq. 11 at the start, in patches: area allowed on a negative")
    area_unit: Literal["fraction", "patches"] = Field("fraction", description="Σz of Eq. 10, 11: divided by P², or not")
    fit_thresholds: bool = Field(True, description="fit the four thresholds per class on the frozen network")
    fit_every: int = Field(5, ge=1, description="epochs of weight training between two fits")
    fit_quantile: float = Field(0.75, gt=0.5, lt=1, description="see docs/papers.md")
    crf_epochs: int | None = Field(None, ge=0, description="epochs of the CRF stage; default a third of --epochs")
    crf_kernel_size: OddInt = Field(19, ge=3, description="window of the CRF, in patches; odd")
    crf_steps: int = Field(5, ge=1, description="mean-field steps")
    crf_activation: Literal["sigmoid", "softmax"] = Field("sigmoid", description="one field per class, or one label")
    guide_channels: int = Field(64, ge=2, description="channels of the guide")
    image_pooling: Literal["lse", "max", "mean", "noisy_or"] = Field("lse", description="patch scores to image score")


class Rozenberg(Method):
    name = "rozenberg"
    title = "Rozenberg et al. 2019, Localization with Limited Annotation for Chest X-rays"
    Options = RozenbergOptions
    defaults: ClassVar[Defaults] = Defaults(
        image_size=512, epochs=30, batch_size=48, lr=1e-3, weight_decay=0.01, lr_decay=0.9
    )

    def __init__(self, class_names: Sequence[str], image_size: int, options: RozenbergOptions) -> None:
        super().__init__(class_names, image_size, options)
        num_classes = len(class_names)
        self.patch_area = 1 / options.grid**2 if options.area_unit == "fraction" else 1.0  # in the loss's unit
        self.network = CRFNetwork(
            build_patch_network(options, num_classes, image_size),
            GuideBranch(options.guide_channels, options.grid),
            PacCRF(
                num_classes,
                options.crf_kernel_size,
                steps=options.crf_steps,
                activation=options.crf_activation,
            ),
        )
        self.criterion = self._area_loss() if options.loss == "area" else LiLoss(options.lambda_box)

    def _area_loss(self) -> RozenbergLoss:
        options = self.options
        return RozenbergLoss(
            len(self.class_names),
            lambda_ann=options.lambda_ann,
            gamma=options.gamma,
            tau=options.tau,
            rho=options.rho,
            tau_hat=options.tau_hat * self.patch_area,
            rho_hat=options.rho_hat * self.patch_area,
            area_unit=options.area_unit,
        )

    def stages(self, epochs: int) -> tuple[Stage, ...]:
        crf_epochs = max(1, epochs // 3) if self.options.crf_epochs is None else self.options.crf_epochs
        stages = (
            Stage(UNARY, epochs, trains=("network.unary.",)),
            Stage(CRF, crf_epochs, trains=("network.guide.", "network.crf.")),
        )
        return tuple(stage for stage in stages if stage.epochs > 0)

    def forward(self, images: torch.Tensor, stage: str) -> torch.Tensor:  # [B, 1, S, S] -> [B, K, P, P]
        return self.network(images, with_crf=stage == CRF)

    def loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self.criterion(logits, batch["labels"], *self._regions(batch))  # Eq. 12, or Li's Eq. 3

    def before_epoch(self, stage: Stage, epoch: int) -> None:
        """λ_ann of this epoch: constant, or from the middle of the unary stage falling geometrically to
        `lambda_ann_end` at its end."""
        start, end = self.options.lambda_ann, self.options.lambda_ann_end
        if end is None or start == 0 or not isinstance(self.criterion, RozenbergLoss):
            return
        done = (epoch - 1) / max(stage.epochs - 1, 1) if stage.name == UNARY else 1.0
        self.criterion.lambda_ann = start * (end / start) ** max(0.0, 2 * done - 1)

    def after_epoch(
        self,
        stage: Stage,
        epoch: int,
        training_outputs: Callable[[], Iterable[tuple[torch.Tensor, Batch]]],
    ) -> dict[str, Any]:
        """Every `fit_every` epochs, the thresholds' turn in the alternation (§3.3). Not after a stage's last epoch:
        thresholds serve the loss only, and no weight would train on them."""
        options, criterion = self.options, self.criterion
        if not isinstance(criterion, RozenbergLoss) or not options.fit_thresholds:
            return {}
        if epoch % options.fit_every or epoch == stage.epochs:
            return {}
        fit = ThresholdFit(len(self.class_names), options.fit_quantile, self.patch_area)
        for logits, batch in training_outputs():
            fit.add(logits, batch["labels"], *self._regions(batch))
        return fit.update(criterion)

    def _regions(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return annotated_regions(batch, self.image_size, self.options.grid, self.options.patch_rule)

    def predict(self, images: torch.Tensor, stage: str) -> Prediction:
        logits = self(images, stage).float()
        return Prediction(torch.sigmoid(mil_pool(logits, self.options.image_pooling)), torch.sigmoid(logits))

    @property
    def map_thresholds(self) -> torch.Tensor:  # [K]
        return torch.full((len(self.class_names),), self.options.region_threshold)
