"""After Liu et al. 2019, "Align, Attend and Locate: Chest X-ray Diagnosis via Contrast Induced Attention Network with
Limited Supervision" (ICCV): a method similar to CIA-Net, which is not claimed to be the authors' network.

Only the abstract and the introduction of the paper were available. Known facts:

* From the abstract, or from papers that cite it: a learnable module aligns all images. Attention is computed from the
  contrast between an image and one without a finding. The cells of a grid are classified by multiple-instance
  learning. A few boxes improve the results. The network is a ResNet-50 with additional networks.
* Second-hand, from code derived from the authors': the alignment is affine, with a feature loss. The negative is the
  most similar image without a finding by average hash (16×16 bits). Boxes have weight 4. The region of a class is the
  union of the cells with p > 0.5. Images have 512 pixels and 16×16 cells, which become 128×128 at test time by
  upsampling the features. SGD has a learning rate of 1e-3, divided by 10 every 4 of 9 epochs.

Everything else is our own design, including all equations of alignment and attention:

1. *Alignment* (`cxrfast/models/alignment.py`), a separate stage: a small network regresses five parameters of an affine
   transformation to the mean of the training images. The loss is the distance of the two in the features of a fixed
   random network. Boxes are transformed to the aligned image for the loss. Maps are transformed back, so that
   predictions are in the coordinates of the original image.
2. *Negatives* (`cxrfast/data/similarity/negatives.py`): some of the training images without a finding are excluded from
   training and stored with the weights. Training and testing choose the most similar one as the negative.
   **The weights file therefore contains X-rays of training patients** (`negatives` of them; 64 MB for 256 at 512
   pixels): handle it as such. With `attention=none` it contains none.
3. *Attention* (`cxrfast/models/contrast.py`): f⁺ is multiplied by |f⁺ − f⁻|, computed from the features of the aligned
   pair.
4. *Loss*: Li's (`cxrfast/losses/li.py`) on the grid of the aligned image, with a weight of 4 for boxes.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field

from cxrfast._logging import get_logger
from cxrfast.data import (
    Record,
    SubsetBatches,
    boxes_to_aligned_patches,
    draw_records,
    normalize,
    read_some,
    without_finding,
)
from cxrfast.data.patches import PatchRule
from cxrfast.errors import CxrfastError
from cxrfast.losses import LiLoss
from cxrfast.methods._backbone import BackboneOptions
from cxrfast.methods.base import Batch, Defaults, Method, Stage
from cxrfast.models import (
    AlignmentNetwork,
    ContrastNetwork,
    FeatureDistance,
    NegativeLibrary,
    align,
    maps_in_original,
    shrunk,
)
from cxrfast.ops import mil_pool
from cxrfast.regions.prediction import Prediction

ALIGNMENT, ATTENTION = "alignment", "attention"
# Distances are about 0.01. Without this factor, SGD with the learning rate of the second stage would make almost no
# progress. (Adam is invariant to it.)
logger = get_logger(__name__)

ALIGNMENT_WEIGHT = 10.0
AVERAGED = 512  # maximum number of images in the canonical (average) chest


class CIAOptions(BackboneOptions):
    backbone: str = Field("resnet50", description="any timm network with a spatial map; small: resnet_nano")
    grid: int = Field(16, ge=2, description="P: the aligned image is divided into P×P cells")
    fine: int = Field(8, ge=1, description="factor by which the head's features are upsampled in testing")
    hidden: int = Field(512, ge=1, description="channels of the head's first layer")
    attention: Literal["contrast", "none"] = Field(
        "contrast", description="none: features without attention, no negatives"
    )
    negatives: int = Field(
        256, ge=1, description="number of images without a finding stored in the weights, for comparison"
    )
    alignment_epochs: int = Field(3, ge=0, description="epochs of the alignment stage; 0: no alignment")
    lambda_box: float = Field(4.0, ge=0, description="weight of pairs with a box")
    floor: float = Field(0.0, ge=0, lt=1, description="patch scores are rescaled to [floor, 1], as by Li et al.: 0.98")
    patch_rule: PatchRule = Field("half", description="which cells belong to a box")
    region_threshold: float = Field(0.5, gt=0, lt=1, description="threshold of a positive cell")


class CIAOutput(NamedTuple):
    """The network output for B images and K classes."""

    logits: torch.Tensor  # [B, K, P, P], in the aligned frame
    theta: torch.Tensor  # [B, 2, 3]: from the aligned frame to the image


class CIA(Method):
    name = "cia"
    title = "after Liu et al. 2019, CIA-Net (aligned pair, contrast-induced attention; not the authors' network)"
    Options = CIAOptions
    defaults: ClassVar[Defaults] = Defaults(
        image_size=512,
        epochs=9,
        batch_size=16,
        lr=1e-3,
        weight_decay=1e-4,
        lr_decay=0.1,
        lr_step=4,
        optimizer="sgd",
    )

    canonical: torch.Tensor

    def __init__(self, class_names: Sequence[str], image_size: int, options: CIAOptions) -> None:
        super().__init__(class_names, image_size, options)
        self.network = ContrastNetwork(
            options.build_backbone(image_size),
            len(class_names),
            options.grid,
            hidden=options.hidden,
            scaling=options.build_scaling(),
        )
        self.alignment = AlignmentNetwork()
        self.distance = FeatureDistance()
        self.library = NegativeLibrary(options.negatives, image_size) if options.attention == "contrast" else None
        self.criterion = LiLoss(lambda_box=options.lambda_box, floor=options.floor)
        self.register_buffer("canonical", torch.zeros(1, 1, self.alignment.size, self.alignment.size))

    def stages(self, epochs: int) -> tuple[Stage, ...]:
        attention = Stage(ATTENTION, epochs, trains=("network.",))
        if not self.options.alignment_epochs:
            return (attention,)
        return (Stage(ALIGNMENT, self.options.alignment_epochs, trains=("alignment.",)), attention)

    def batch_sampler(
        self,
        records: Sequence[Record],
        folder: Path,
        *,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
    ) -> SubsetBatches | None:
        """Compute the canonical chest, fill the library, and return batches of the remaining training images."""
        order = draw_records(records, seed)
        if self.options.alignment_epochs:
            _, images, notes = read_some(
                records, order, AVERAGED, self.alignment.size, title="the average chest", progress=rank == 0
            )
            for note in notes:
                logger.info(note)
            if len(images):
                self.canonical.copy_(normalize(torch.from_numpy(images.mean(axis=0))))
        if self.library is None:
            return None
        # An image with an unknown label may have this finding.
        healthy = {place for place in without_finding(records) if self._all_known(records[place])}
        if not healthy:
            raise CxrfastError(
                "cia: no training image is known to be without a finding, so there is no negative to compare with; "
                "add such images, or train with --set attention=none"
            )
        # At least half of them are used for training. (An image must not be its own negative: it has no contrast.)
        count = min(self.options.negatives, max(1, len(healthy) // 2))
        chosen, images, notes = read_some(
            records,
            [place for place in order if place in healthy],
            count,
            self.image_size,
            title="the library of negatives",
            progress=rank == 0,
        )
        for note in notes:
            logger.info(note)
        if not chosen:
            raise CxrfastError("cia: none of the training images without a finding can be read")
        self.library.fill(normalize(torch.from_numpy(images)[:, None]))
        logger.warning(
            f"{len(chosen)} training images without a finding are held back to compare with; they are stored in the "
            "weights file, which is to be handled like the images"
        )
        rest = sorted(set(range(len(records))) - set(chosen))
        return SubsetBatches(rest, batch_size, seed=seed, rank=rank, world_size=world_size)

    def _all_known(self, record: Record) -> bool:
        return not any(math.isnan(record.label(name)) for name in self.class_names)

    def before_epoch(self, stage: Stage, epoch: int) -> None:
        """After the alignment stage, align the images of the library once."""
        if stage.name == ATTENTION and epoch == 1 and self.library is not None:
            with torch.no_grad():
                self.library.replace(lambda image: align(image, self.alignment(image)))

    def forward(self, images: torch.Tensor, stage: str) -> torch.Tensor | CIAOutput:  # [B, 1, S, S]
        """In the alignment stage, the distance [B] of each aligned image from the canonical chest; then the logits."""
        theta = self.alignment(images)
        if stage == ALIGNMENT:
            return self.distance(align(shrunk(images, self.alignment.size), theta), self.canonical)
        return CIAOutput(self.network(*self._pair(images, theta)), theta)

    def _pair(self, images: torch.Tensor, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Images in the aligned frame, and their negatives [B, 1, S, S] each."""
        aligned = align(images, theta)
        return aligned, None if self.library is None else self.library(aligned)

    def loss(self, output: torch.Tensor | CIAOutput, batch: Batch) -> torch.Tensor:
        if not isinstance(output, CIAOutput):
            return ALIGNMENT_WEIGHT * output.mean()
        options, has_box = self.options, batch["has_box"]
        region = boxes_to_aligned_patches(
            batch["boxes"], has_box, self.image_size, options.grid, output.theta, rule=options.patch_rule
        )
        annotated = region.flatten(-2).any(dim=-1)
        # A box outside the aligned frame still implies that the class is present, also if its label is unknown.
        labels = torch.where(has_box.any(dim=-1), 1, batch["labels"])
        return self.criterion(output.logits, labels, annotated, region)

    def predict(self, images: torch.Tensor, stage: str) -> Prediction:
        """Scores by noisy-OR over the P×P cells; maps with finer cells, in the frame of the images.

        The alignment stage has no classes: every score is 0.5 and every map 0, so its last epoch counts as the best."""
        size = self.options.grid * self.options.fine
        if stage == ALIGNMENT:
            scores = images.new_full((len(images), len(self.class_names)), 0.5)
            return Prediction(scores, scores.new_zeros(*scores.shape, size, size))
        theta = self.alignment(images)
        features = self.network.attended(*self._pair(images, theta))
        scores = torch.sigmoid(mil_pool(self.network.head(features).float(), "noisy_or"))
        maps = torch.sigmoid(self.network.fine_logits(features, size).float())
        return Prediction(scores, maps_in_original(maps, theta))

    @property
    def map_thresholds(self) -> torch.Tensor:  # [K]
        return torch.full((len(self.class_names),), self.options.region_threshold)
