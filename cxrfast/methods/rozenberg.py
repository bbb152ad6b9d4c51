"""Rozenberg, Freedman, Bronstein 2019, "Localization with Limited Annotation for Chest X-rays" (ML4H).

Li's patch scores, computed by an anti-aliased pre-activation ResNet-50, are the unary term of a pixel-adaptive CRF. Two
convolutions compute the guide of the CRF from the image (§3.3, Figure 3). The loss bounds areas (Eq. 9-12, in
`cxrfast/losses/rozenberg.py`): many positive patches inside a box and few outside, at least some on an image with the
label, and none on an image without it. γ, the weight of the negatives, is the ratio of positive to negative examples in
the training data. The unaries are trained to convergence, then the CRF with frozen unaries (§3.3). The thresholds of
the loss alternate with the weights: they are fixed while weights are trained, and fitted on the frozen network in
between (§4, `rozenberg_thresholds.py`). The region of a class is the union of the patches with z ≥ 0.5 (§4).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, BeforeValidator, Field

from cxrfast.data import Record
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.losses import LiLoss, RozenbergLoss, positive_to_negative
from cxrfast.losses.rozenberg import AreaUnit
from cxrfast.methods._regions import annotated_regions
from cxrfast.methods.base import Batch, Defaults, Method, Stage
from cxrfast.methods.li import PatchOptions, build_patch_network
from cxrfast.methods.rozenberg_thresholds import ThresholdFit
from cxrfast.models import CRFNetwork, GuideBranch
from cxrfast.nn import PacCRF
from cxrfast.ops import mil_pool
from cxrfast.regions.prediction import Prediction

UNARY, CRF = "unary", "crf"
_PROBABILITY_STRENGTH = 0.2  # initial bound on the change of z per step, if z is a probability and not a logit


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("expected an odd number")
    return value


OddInt = Annotated[int, AfterValidator(_odd)]


def _gamma(value: Any) -> str | float | list[float]:
    """data, data-per-class, a number above 0, or a list of such numbers."""
    if value in ("data", "data-per-class"):
        return value
    try:
        numbers = [float(number) for number in (value if isinstance(value, list | tuple) else [value])]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise ValueError("expected data, data-per-class, a number above 0, or a list of one for each class")
    return numbers if isinstance(value, list | tuple) else numbers[0]


Gamma = Annotated[str | float | list[float], BeforeValidator(_gamma)]


class RozenbergOptions(PatchOptions):
    antialias: bool = Field(True, description="blur-pools in the backbone (Zhang 2019), if it is a CNN")
    antialias_stem: bool = Field(True, description="with antialias, a blur-pool for the first convolution too")
    loss: Literal["area", "area_sigmoid", "li"] = Field(
        "area", description="area: Eq. 12; area_sigmoid: with Eq. 5 and 8; li: the loss of Li et al."
    )
    unary_loss: Literal["same", "li"] = Field(
        "same", description="loss of the unary stage: that of `loss`, or Li's, which §3.1 makes part of the base model"
    )
    lambda_box: float = Field(5.0, ge=0, description="λ_bbox of Li's Eq. 3, with loss=li or unary_loss=li")
    lambda_ann: float = Field(70.0, ge=0, description="λ_ann of Eq. 12")
    lambda_ann_end: float | None = Field(
        None, gt=0, description="λ_ann decays to this in the second half of the unary stage"
    )
    gamma: Gamma = Field(
        "data",
        description="γ of Eq. 11, weight of negatives: positive / negative examples of the training images, over all "
        "pairs of image and class (data) or of each class (data-per-class); or a number, or one per class",
    )
    tau: float = Field(0.9, ge=0, le=1, description="initial τ of Eq. 9: minimum mean score inside a box")
    rho: float = Field(0.05, ge=0, le=1, description="initial ρ of Eq. 9: maximum mean score outside a box")
    tau_hat: float = Field(1.0, ge=0, description="initial τ̂ of Eq. 11, in patches: minimum area on a positive")
    rho_hat: float = Field(0.0, ge=0, description="initial ρ̂ of Eq. 11, in patches: maximum area on a negative")
    area_unit: AreaUnit = Field("patches", description="unit of Σz in Eq. 11: patches, or fraction (divided by P²)")
    thresholds: Literal["alternate", "fixed", "learnt"] = Field(
        "alternate", description="alternate: fitted per class on the frozen network; fixed; or learnt by the loss"
    )
    fit_every: int = Field(5, ge=1, description="epochs of weight training between two fits of the thresholds")
    fit_quantile: float = Field(0.75, gt=0.5, lt=1, description="see docs/papers.md")
    crf_epochs: int | None = Field(None, ge=0, description="epochs of the CRF stage; default: one third of --epochs")
    crf_kernel_size: OddInt = Field(19, ge=3, description="window of the CRF, in patches; odd")
    crf_steps: int = Field(5, ge=1, description="mean-field steps")
    crf_activation: Literal["sigmoid", "softmax"] = Field("sigmoid", description="one field per class, or one label")
    crf_bias: bool = Field(False, description="learn one value per class that is added to the CRF's unary term")
    crf_unary: Literal["logit", "probability"] = Field(
        "logit", description="the CRF's unary term: logit(p) with z = σ(…), or p itself"
    )
    guide_channels: int | None = Field(None, ge=1, description="channels of the guide; default: K, one per class")
    image_pooling: Literal["lse", "max", "mean", "noisy_or"] = Field(
        "lse", description="pooling of patch scores to an image score"
    )


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
        if isinstance(options.gamma, list) and len(options.gamma) != num_classes:
            raise UsageError(
                f"gamma: expected data, data-per-class, a number or {num_classes} numbers, one for each of "
                f"{', '.join(class_names)}; got {len(options.gamma)} numbers"
            )
        self.patch_area = 1 / options.grid**2 if options.area_unit == "fraction" else 1.0  # in the loss's unit
        self.network = CRFNetwork(
            build_patch_network(options, num_classes, image_size),
            GuideBranch(options.guide_channels or num_classes, options.grid),
            PacCRF(
                num_classes,
                options.crf_kernel_size,
                steps=options.crf_steps,
                activation=options.crf_activation,
                strength=2.0 if options.crf_unary == "logit" else _PROBABILITY_STRENGTH,
                bias=options.crf_bias,
            ),
            unary_form=options.crf_unary,
        )
        self.criterion = LiLoss(options.lambda_box) if options.loss == "li" else self._area_loss()
        self.unary_criterion = LiLoss(options.lambda_box) if options.unary_loss == "li" else None
        self.stage = UNARY

    def _area_loss(self) -> RozenbergLoss:
        options = self.options
        from_data = isinstance(options.gamma, str)
        criterion = RozenbergLoss(
            len(self.class_names),
            lambda_ann=options.lambda_ann,
            gamma=1.0 if from_data else options.gamma,
            tau=options.tau,
            rho=options.rho,
            tau_hat=options.tau_hat * self.patch_area,
            rho_hat=options.rho_hat * self.patch_area,
            area_unit=options.area_unit,
            relaxation="sigmoid" if options.loss == "area_sigmoid" else "relu",
            learnt_thresholds=options.grid**2 if options.thresholds == "learnt" else None,
        )
        if from_data:
            criterion.gamma.fill_(torch.nan)  # until before_training or loaded weights set it
        return criterion

    def before_training(self, records: Sequence[Record]) -> None:
        """Set γ of Eq. 11 from the labels of the training images."""
        gamma = self.options.gamma
        if not isinstance(self.criterion, RozenbergLoss) or not isinstance(gamma, str):
            return
        labels = torch.tensor([[record.label(name) for name in self.class_names] for record in records])
        try:
            found = positive_to_negative(labels, self.class_names, per_class=gamma == "data-per-class")
        except ValueError as error:
            way = "give numbers, or leave the class out with --classes" if gamma != "data" else "give a number"
            raise UsageError(f"{error}; {way}") from error
        self.criterion.set_gamma(found)

    def stages(self, epochs: int) -> tuple[Stage, ...]:
        crf_epochs = max(1, epochs // 3) if self.options.crf_epochs is None else self.options.crf_epochs
        stages = (
            Stage(UNARY, epochs, trains=("network.unary.", "criterion.")),  # learnt thresholds are trained in both
            Stage(CRF, crf_epochs, trains=("network.guide.", "network.crf.", "criterion.")),
        )
        return tuple(stage for stage in stages if stage.epochs > 0)

    def forward(self, images: torch.Tensor, stage: str) -> torch.Tensor:  # [B, 1, S, S] -> [B, K, P, P]
        return self.network(images, with_crf=stage == CRF)

    def loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        criterion = self._criterion_of(self.stage)
        return criterion(logits, batch["labels"], *self._regions(batch))  # Eq. 12, or Li's Eq. 3

    def _criterion_of(self, stage: str) -> RozenbergLoss | LiLoss:
        return self.unary_criterion if stage == UNARY and self.unary_criterion is not None else self.criterion

    def before_epoch(self, stage: Stage, epoch: int) -> None:
        """Set the stage and λ_ann. λ_ann is constant, or decays geometrically from the middle of the unary stage to
        `lambda_ann_end` at its end."""
        self.stage = stage.name
        if not isinstance(self.criterion, RozenbergLoss):
            return
        if self.criterion.gamma.isnan().any():
            raise CxrfastError("gamma: not known yet; call before_training with the training images first")
        start, end = self.options.lambda_ann, self.options.lambda_ann_end
        if end is None or start == 0:
            return
        done = (epoch - 1) / max(stage.epochs - 1, 1) if stage.name == UNARY else 1.0
        self.criterion.lambda_ann = start * (end / start) ** max(0.0, 2 * done - 1)

    def after_epoch(
        self,
        stage: Stage,
        epoch: int,
        training_outputs: Callable[[], Iterable[tuple[torch.Tensor, Batch]]],
    ) -> dict[str, Any]:
        """Fit the thresholds every `fit_every` epochs (§4). Not after the last epoch of a stage, because thresholds
        only affect the loss of later epochs."""
        options = self.options
        criterion = self._criterion_of(stage.name)
        if not isinstance(criterion, RozenbergLoss) or options.thresholds == "fixed":
            return {}
        if options.thresholds == "learnt":
            return {name: value.tolist() for name, value in criterion.thresholds().items()}
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
