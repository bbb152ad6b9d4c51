"""What every method is to the training loop, the evaluator and `localize`."""

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
"""What the data loader yields: image [B, 1, S, S], labels [B, K], boxes [B, K, M, 4], has_box [B, K, M], index [B]."""


class EpochBatches(Protocol):
    """Which images of a data set make up the batches of an epoch; a batch sampler of torch's data loader."""

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; 0 is the first."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[int]]: ...


class MethodOptions(BaseModel):
    """Options of one method, beside those that all share; a method derives from it."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


Optimizer = Literal["adam", "adamw", "sgd"]
LrSchedule = Literal["steps", "milestones", "plateau", "search"]


@dataclass(frozen=True)
class Defaults:
    """The paper's settings for the options that all methods share."""

    image_size: int
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    lr_decay: float  # the learning rate is multiplied by it…
    lr_step: int = 1  # …after every so many epochs, with the schedule "steps"
    lr_schedule: LrSchedule = "steps"  # RunConfig.lr_schedule describes them
    lr_milestones: tuple[int, ...] = ()  # epochs of "milestones", or those that "search" tries
    lr_patience: int = 3  # of "plateau": epochs without a better score
    optimizer: Optimizer = "adam"
    val_share: float = 1 / 8  # of the images that are not tested, those that choose the epoch: 10 % of all


@dataclass(frozen=True)
class Stage:
    """A part of the training with its own trainable weights, optimiser and best epoch."""

    name: str
    epochs: int
    # Prefixes of the parameters that train, less `Method.frozen`; the rest is frozen, its batch norms too
    trains: tuple[str, ...]


class Method(nn.Module, ABC):
    """A network with its losses, its stages, and the way from a score map to a region.

    A subclass reads like its paper. Everything that training finds is a parameter or a buffer, so that `state_dict` is
    the whole result.
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
        """What the loss of `stage` needs of the images: a tensor, or a tuple of them."""

    @abstractmethod
    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        """The scalar that is minimised, from what :meth:`forward` gave, in float32."""

    @abstractmethod
    def predict(self, images: torch.Tensor, stage: str) -> Prediction:
        """Scores [B, K] and maps [B, K, P, P] in (0, 1), after training up to `stage`."""

    @property
    def frozen(self) -> tuple[str, ...]:
        """Prefixes of the parameters that no stage trains: those of the backbone, with option `freeze_backbone`."""
        if not getattr(self.options, "freeze_backbone", False):
            return ()
        return tuple(f"{name}." for name, module in self.named_modules() if isinstance(module, Backbone))

    @property
    @abstractmethod
    def map_thresholds(self) -> torch.Tensor:
        """[K]: a patch is positive for its class where the map is at least this."""

    @property
    def region_rule(self) -> RegionRule:
        """How positive patches become the regions that are drawn and scored; by default their union."""
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
        """Which training images make up each batch; None, the default: all of them, in random order.

        Called once before training. What the sampler gives may depend on its arguments and the epoch alone, so that a
        run that stopped goes on as if it had not.

        Args:
            records: the training images, in the data set's order.
            folder: of the data set; what takes long to compute may be kept there.
            batch_size: the images that a batch may have.
            rank, world_size: of how many processes this is which; each trains on its share.
        """
        return None

    def before_training(self, records: Sequence[Record]) -> None:
        """Called once before a training begins, with all training images: for what a loss has to know of their labels.

        It belongs in buffers, so that a run that is resumed finds it in its checkpoint.
        """

    def fit_map_thresholds(self, validation: AnnotatedMaps) -> None:
        """Called after every epoch with the maps of annotated validation images, before they are scored with
        :attr:`map_thresholds`."""

    def before_epoch(self, stage: Stage, epoch: int) -> None:
        """Called before every epoch (counted from 1 within the stage), for what depends on where training is."""

    def after_epoch(
        self,
        stage: Stage,
        epoch: int,
        training_outputs: Callable[[], Iterable[tuple[Any, Batch]]],
    ) -> dict[str, Any]:
        """What a method does between epochs on the frozen network; returns what is worth logging.

        Args:
            epoch: counts from 1 within the stage.
            training_outputs: goes over the training set without augmentation and yields (output, batch).
        """
        return {}
