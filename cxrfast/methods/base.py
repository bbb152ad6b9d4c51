"""The interface of a method for the training loop, the evaluator and `localize`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from cxrfast.data import Augmentation, Record
from cxrfast.models import Backbone
from cxrfast.regions import AnnotatedMaps
from cxrfast.regions.prediction import Prediction
from cxrfast.regions.rule import RegionRule

Batch = Mapping[str, torch.Tensor]
"""A batch of the data loader: image [B, 1, S, S], labels [B, K], boxes [B, K, M, 4], has_box [B, K, M], index [B].

Labels are 1 or 0, or NaN where they are unknown. The losses of `cxrfast.losses` leave unknown labels out."""


class EpochBatches(Protocol):
    """A batch sampler for torch's data loader with epochs."""

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, starting at 0."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[int]]: ...


class MethodOptions(BaseModel):
    """Base class of a method's own options, in addition to those shared by all methods."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


Optimizer = Literal["adam", "adamw", "sgd"]
LrSchedule = Literal["steps", "milestones", "plateau", "search"]


@dataclass(frozen=True)
class Defaults:
    """The paper's settings of the options shared by all methods."""

    image_size: int
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    lr_decay: float  # factor of the learning rate
    lr_step: int = 1  # schedule "steps": epochs between decays
    lr_schedule: LrSchedule = "steps"  # see RunConfig.lr_schedule
    lr_milestones: tuple[int, ...] = ()  # schedule "milestones": epochs of decay; "search": candidates
    lr_patience: int = 3  # schedule "plateau": epochs without a better score
    optimizer: Optimizer = "adam"  # see RunConfig.optimizer
    val_share: float = 1 / 8  # validation images, as a share of those outside the test part: 10 % of all images


@dataclass(frozen=True)
class Stage:
    """A part of the training with its own trainable weights, optimiser and best epoch."""

    name: str
    epochs: int
    # Prefixes of the trained parameters, except `Method.frozen`. All others are frozen, including batch-norm
    # statistics.
    trains: tuple[str, ...]


class Method(nn.Module, ABC):
    """A network with its losses, its training stages, and its rule from score maps to regions.

    A subclass follows the order of its paper. All results of training are parameters or buffers, so that `state_dict`
    contains everything.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    Options: ClassVar[type[MethodOptions]]
    defaults: ClassVar[Defaults]
    augmentation: ClassVar[Augmentation] = Augmentation()  # of the training images

    def __init__(self, class_names: Sequence[str], image_size: int, options: MethodOptions) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.image_size = image_size
        self.options: Any = options

    @abstractmethod
    def stages(self, epochs: int) -> tuple[Stage, ...]:
        """The training stages in order; `epochs` is the user's --epochs."""

    @abstractmethod
    def forward(self, images: torch.Tensor, stage: str) -> Any:  # [B, 1, S, S] -> most: logits [B, K, P, P]
        """The network output that the loss of `stage` needs: a tensor, or a tuple of tensors."""

    @abstractmethod
    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        """The scalar loss, from the output of :meth:`forward` in float32."""

    @abstractmethod
    def predict(self, images: torch.Tensor, stage: str) -> Prediction:
        """Scores [B, K] and maps [B, K, P, P] in (0, 1), after training up to `stage`."""

    @property
    def frozen(self) -> tuple[str, ...]:
        """Prefixes of parameters that are never trained: with option `freeze_backbone`, those of the backbone."""
        if not getattr(self.options, "freeze_backbone", False):
            return ()
        return tuple(f"{name}." for name, module in self.named_modules() if isinstance(module, Backbone))

    @property
    @abstractmethod
    def map_thresholds(self) -> torch.Tensor:
        """[K]: a patch is positive for a class if the map is at least this threshold."""

    @property
    def region_rule(self) -> RegionRule:
        """The rule from positive patches to the regions that are drawn and scored; by default their union."""
        return RegionRule()

    def batch_sampler(
        self,
        records: Sequence[Record],
        folder: Path,
        *,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
    ) -> EpochBatches | None:
        """The batch sampler of the training images. None (the default) gives all images in random order.

        Called once before training. The batches may depend only on the arguments and the epoch, so that an interrupted
        run can be resumed exactly.

        Args:
            records: the training images, in the order of the data set.
            folder: folder of the data set, where results of long computations may be cached.
            batch_size: the maximum number of images per batch.
            rank, world_size: index of this process and number of processes; each trains on its share.
        """
        return None

    def before_training(self, records: Sequence[Record]) -> None:
        """Called once before training with all training images, for example to compute label statistics for a loss.

        Store results in buffers, so that the checkpoint of a resumed run contains them.
        """

    def fit_map_thresholds(self, validation: AnnotatedMaps) -> None:
        """Called after every epoch with the maps of annotated validation images, before the evaluation with
        :attr:`map_thresholds`."""

    def before_epoch(self, stage: Stage, epoch: int) -> None:
        """Called before every epoch (counted from 1 within the stage), for example for schedules."""

    def after_epoch(
        self,
        stage: Stage,
        epoch: int,
        training_outputs: Callable[[], Iterable[tuple[Any, Batch]]],
    ) -> dict[str, Any]:
        """Called after every epoch, for computations on the frozen network. Returns values for the log.

        Args:
            epoch: counts from 1 within the stage.
            training_outputs: iterates over the training set without augmentation and yields (output, batch).
        """
        return {}
