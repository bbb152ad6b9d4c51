"""Zhang et al. 2020, "Thoracic Disease Identification and Localization using Distance Learning and Region
Verification".

A DenseNet-121 computes features f(x). A classifier W_G on these is trained with binary cross-entropy (Eq. 1, 2). The
method adds two parts:

* Distance learning: a triplet loss (Eq. 4, 5) on anchors, positives and negatives (Eq. 3). By their perceptual hashes,
  positives look unlike the anchor and negatives look like it (`cxrfast/data/similarity/triplets.py`).
* Region verification: all features outside the rectangle around the activated part of an anchor's class activation maps
  (Eq. 6, 7) are set to zero. A second classifier V must recognise the diseases from the rest (Eq. 8).

Both cross-entropies are computed on the anchors; positives and negatives are used by the triplet loss only. The losses
are added (Eq. 9). The score of an image combines both classifiers (Eq. 10). A class is localised by the box around the
positive part of the average of their maps (Eq. 11), with a threshold per class that is fitted on validation images.
Without the two additional parts, the method is a CheXNet.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from cxrfast._logging import get_logger
from cxrfast.data import (
    Augmentation,
    Record,
    TripletBatchSampler,
    TripletMiner,
    hash_records,
    known_label_bits,
    label_bits,
)
from cxrfast.data.similarity.triplets import PartialOf, Sampling
from cxrfast.errors import UsageError
from cxrfast.losses import TripletLoss, certain_triplets
from cxrfast.losses.unknown import masked_cross_entropy, mean_of_known, split_labels
from cxrfast.methods._cam import UNCHANGED, CAMOptions, heat_maps, same_for_all
from cxrfast.methods.base import Batch, Defaults, Method, Stage
from cxrfast.models import CAMNetwork, attended_region, class_activation_maps, region_logits
from cxrfast.regions import AnnotatedMaps, fit_map_thresholds
from cxrfast.regions.prediction import Prediction
from cxrfast.regions.rule import RegionRule

logger = get_logger(__name__)

STAGE = "classifiers"


class ZhangOptions(CAMOptions):
    triplet: float = Field(1.0, ge=0, description="weight of the triplet loss in Eq. 9; 0: no distance learning")
    verification: float = Field(1.0, ge=0, description="weight of V's loss in Eq. 9; 0: no region verification")
    classified: Literal["anchors", "all"] = Field(
        "anchors", description="images of a triplet in the cross-entropies: the anchor, or all three"
    )
    bias: bool = Field(True, description="bias of both classifiers; Eq. 1 and 8 have none")
    margin: float = Field(0.5, ge=0, description="m of Eq. 4")
    sampling: Sampling = Field(
        "paper", description="hard examples among random candidates (paper) or among all images; or random examples"
    )
    negatives: int = Field(1000, ge=1, description="candidates for an anchor's negative")
    positives: int = Field(500, ge=1, description="candidates for an anchor's positive")
    partial: float = Field(
        0.25, ge=0, le=1, description="share of positives with a different set of labels; 0: only exact matches"
    )
    partial_of: PartialOf = Field(
        "picks", description="`partial` is a share of the selected positives (picks), or of the ranked list"
    )
    hard_after: int = Field(10, ge=0, description="epochs until triplets have maximum hardness")
    region_level: float = Field(0.8, ge=0, lt=1, description="Eq. 7: threshold of the map inside the rectangle")
    without_finding: Literal["top", "whole"] = Field(
        "top", description="V's region for anchors without a finding: that of the top class, or the whole image"
    )
    verified: Literal["predicted", "top", "each"] = Field(
        "predicted",
        description="V's region without labels: of classes with score ≥ 0.5, of the top class, or one per class",
    )
    map_thresholds: Literal["validation", "fixed"] = Field(
        "validation", description="fitted per class to the boxes of validation images, or fixed at region_threshold"
    )
    region_threshold: float = Field(0.5, gt=0, lt=1, description="threshold of maps if none is fitted")


class ZhangOutput(NamedTuple):
    """The network output for B images, K classes and D features."""

    logits: torch.Tensor  # [B, K]: W_G f
    maps: torch.Tensor  # [B, K, h, w]: class activation maps of W_G (Eq. 6)
    features: torch.Tensor  # [B, D]: f
    verifier_maps: torch.Tensor | None  # [B, K, h, w]: class activation maps of V; None without verification


class Zhang(Method):
    name = "zhang"
    title = "Zhang et al. 2020, Thoracic Disease Identification and Localization (triplets, region verification)"
    Options = ZhangOptions
    defaults: ClassVar[Defaults] = Defaults(
        image_size=224,
        epochs=30,
        batch_size=48,
        lr=1e-3,
        weight_decay=0.0,
        lr_decay=0.1,  # once, after E epochs; E by validation
        lr_schedule="plateau",  # in one run; "search" trains several E
        val_share=0.1,
    )
    augmentation: ClassVar[Augmentation] = replace(UNCHANGED, rotation=5, flip=0.5)

    thresholds: torch.Tensor

    def __init__(self, class_names: Sequence[str], image_size: int, options: ZhangOptions) -> None:
        super().__init__(class_names, image_size, options)
        backbone, num_classes = options.build_backbone(image_size, self.augmentation.crop), len(class_names)
        self.network = CAMNetwork(backbone, num_classes, scaling=options.build_scaling())
        self.verifier = nn.Linear(backbone.num_features, num_classes) if options.verification else None
        for classifier in (self.network.classifier, self.verifier):
            if classifier is not None and not options.bias:
                classifier.register_parameter("bias", None)
        self.distance = TripletLoss(options.margin)
        self.register_buffer("thresholds", same_for_all(class_names, options.region_threshold))

    def stages(self, epochs: int) -> tuple[Stage, ...]:
        return (Stage(STAGE, epochs, trains=("network.", "verifier.")),)

    def batch_sampler(
        self,
        records: Sequence[Record],
        folder: Path,
        *,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
    ) -> TripletBatchSampler | None:
        """Batches of as many triplets as fit into `batch_size` images."""
        options = self.options
        if not options.triplet:
            return None
        if batch_size < 3:
            raise UsageError(f"batch-size: expected 3 or more images (a triplet), got {batch_size}; or set triplet=0")
        hardness = options.sampling != "random"
        found = hash_records(records, folder, progress=rank == 0) if hardness else None
        # All classes that occur, so that an image with only untrained classes does not count as one without a finding.
        classes = sorted({name for record in records for name in record.labels})
        miner = TripletMiner(
            found.hashes if found else None,
            label_bits([record.labels for record in records], classes),
            known=found.known if found else None,
            known_labels=known_label_bits(records, classes),
            sampling=options.sampling,
            negatives=options.negatives,
            positives=options.positives,
            partial=options.partial,
            partial_of=options.partial_of,
            epochs=options.hard_after,
        )
        for note in (*(found.notes if found else ()), *miner.notes):
            logger.info(note)
        return TripletBatchSampler(miner, batch_size // 3, seed=seed, rank=rank, world_size=world_size)

    def forward(self, images: torch.Tensor, stage: str) -> ZhangOutput:  # [B, 1, S, S]
        g = self.network(images)
        verifier_maps = None if self.verifier is None else class_activation_maps(g.features, self.verifier.weight)
        return ZhangOutput(g.logits, g.maps, g.pooled, verifier_maps)

    def loss(self, output: ZhangOutput, batch: Batch) -> torch.Tensor:
        """Eq. 9 per anchor. With the triplet loss a batch has B anchors, then B positives, then B negatives."""
        options = self.options
        images = len(batch["labels"])
        seen = images // 3 if options.triplet and options.classified == "anchors" else images
        labels, logits = batch["labels"][:seen], output.logits[:seen]
        total = cross_entropy(logits, labels)  # Eq. 2
        if options.triplet:
            total = total + options.triplet * self._distances(output.features, batch)  # Eq. 5
        if self.verifier is not None and output.verifier_maps is not None:
            shown = labels > 0.5  # not where the label is unknown
            if options.without_finding == "top":
                shown = one_at_least(shown, torch.where(labels.isnan(), -torch.inf, logits))
            region = self._region(output.maps[:seen].detach(), shown)
            verified = region_logits(output.verifier_maps[:seen], region, self.verifier.bias)
            total = total + options.verification * cross_entropy(verified, labels)  # Eq. 8
        return total

    def _distances(self, features: torch.Tensor, batch: Batch) -> torch.Tensor:  # [3 · B, D] -> []
        """Eq. 5 per anchor. An image without a triplet is its own positive and negative, and contributes 0. So does a
        triplet that unknown labels leave in doubt (:func:`cxrfast.losses.certain_triplets`)."""
        thirds, labels = features.unflatten(0, (3, -1)), batch["labels"].unflatten(0, (3, -1))
        matched = certain_triplets(*labels)
        if "index" in batch:
            anchor, positive, _ = batch["index"].unflatten(0, (3, -1))
            matched = matched & (anchor != positive)
        loss = self.distance(*thirds[:, matched]) * matched.to(features.dtype).mean()
        return mean_of_known(loss, ~labels[0].isnan().all(dim=1))

    def predict(self, images: torch.Tensor, stage: str) -> Prediction:
        output = self(images, stage)
        logits, maps = output.logits.float(), output.maps.float()
        if self.verifier is not None and output.verifier_maps is not None:
            verifier_maps = output.verifier_maps.float()
            region = self._region_without_labels(maps, logits)
            logits = logits + region_logits(verifier_maps, region, self.verifier.bias)  # Eq. 10
            maps = (maps + verifier_maps) / 2  # Eq. 11
        return Prediction(torch.sigmoid(logits), heat_maps(maps, self.options.upsample))

    def _region(
        self,
        maps: torch.Tensor,  # [B, K, h, w]
        classes: torch.Tensor,  # [B, K] bool
    ) -> torch.Tensor:  # [B, 1, h, w] bool
        """The rectangle of Eq. 7 for the sum of the maps of these classes; the whole map if there are none."""
        return attended_region((maps * classes[:, :, None, None]).sum(dim=1, keepdim=True), self.options.region_level)

    def _region_without_labels(self, maps: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Eq. 7 without labels: [B, 1, h, w] bool, or [B, K, h, w]."""
        if self.options.verified == "each":
            return attended_region(maps, self.options.region_level)
        found = logits >= 0 if self.options.verified == "predicted" else torch.zeros_like(logits, dtype=torch.bool)
        return self._region(maps, one_at_least(found, logits))

    def fit_map_thresholds(self, validation: AnnotatedMaps) -> None:
        """Fit the threshold of each class to the boxes of validation images."""
        if self.options.map_thresholds == "validation":
            default = same_for_all(self.class_names, self.options.region_threshold)
            self.thresholds.copy_(fit_map_thresholds(self.region_rule, validation, default, self.image_size))

    @property
    def map_thresholds(self) -> torch.Tensor:  # [K]
        return self.thresholds

    @property
    def region_rule(self) -> RegionRule:
        return RegionRule(shape="rectangle")


def cross_entropy(
    logits: torch.Tensor,  # [B, K]
    labels: torch.Tensor,  # [B, K] 0 or 1, NaN where unknown
) -> torch.Tensor:  # []
    """Binary cross-entropy summed over the known classes, averaged over the images with a known class. With a mean over
    classes the triplet loss would dominate Eq. 9."""
    targets, known = split_labels(labels, logits.dtype)
    total = masked_cross_entropy(logits, targets, known, "sum") / len(labels)
    return total if known is None else mean_of_known(total, known.any(dim=1))


def one_at_least(
    classes: torch.Tensor,  # [B, K] bool
    logits: torch.Tensor,  # [B, K]
) -> torch.Tensor:  # [B, K] bool
    """`classes`, with the highest-scoring class for images that have none."""
    highest = F.one_hot(logits.argmax(dim=1), logits.shape[1]).bool()
    return torch.where(classes.any(dim=1, keepdim=True), classes, highest)
