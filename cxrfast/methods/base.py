"""What every method is to the training loop, the evaluator and `localize`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from cxrfast.prediction import Prediction

Batch = Mapping[str, torch.Tensor]
"""What the data loader yields: image [B, 1, S, S], labels [B, K], boxes [B, K, M, 4], has_box [B, K, M], index [B]."""


class MethodOptions(BaseModel):
    """Options of one method, beside those that all share; a method derives from it."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


@dataclass(frozen=True)
class Defaults:
    """The paper's settings for the options that all methods share."""

    image_size: int
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    lr_decay: float  # the learning rate is multiplied by it after every epoch


@dataclass(frozen=True)
class Stage:
    """A part of the training with its own trainable weights, optimiser and best epoch."""

    name: str
    epochs: int
    trains: tuple[str, ...]  # prefixes of the parameters that train; the rest is frozen, its batch norms too


class Method(nn.Module, ABC):
    """A network with its losses, its stages, and the way from a score map to a region.

    A subclass reads like its paper. Everything that training finds is a parameter or a buffer, so that `state_dict` is
    the whole result.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    Options: ClassVar[type[MethodOptions]]
    defaults: ClassVar[Defaults]

    def __init__(self, class_names: Sequence[str], image_size: int, options: MethodOptions) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.image_size = image_size
        self.options: Any = options

    @abstractmethod
    def stages(self, epochs: int) -> tuple[Stage, ...]:
        """The training stages in order; `epochs` is the user's --epochs."""

    @abstractmethod
    def forward(self, images: torch.Tensor, stage: str) -> torch.Tensor:  # [B, 1, S, S] -> logits [B, K, P, P]
        """The patch logits that `stage` trains."""

    @abstractmethod
    def loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The scalar that is minimised."""

    @abstractmethod
    def predict(self, images: torch.Tensor, stage: str) -> Prediction:
        """Scores [B, K] and maps [B, K, P, P] in (0, 1), after training up to `stage`."""

    @property
    @abstractmethod
    def map_thresholds(self) -> torch.Tensor:
        """[K]: a patch belongs to the region of its class where the map is at least this."""

    def before_epoch(self, stage: Stage, epoch: int) -> None:
        """Called before every epoch (counted from 1 within the stage), for what depends on where training is."""

    def after_epoch(
        self,
        stage: Stage,
        epoch: int,
        training_maps: Callable[[], Iterable[tuple[torch.Tensor, Batch]]],
    ) -> dict[str, Any]:
        """What a method does between epochs on the frozen network; returns what is worth logging.

        Args:
            epoch: counts from 1 within the stage.
            training_maps: goes over the training set without augmentation and yields (logits, batch).
        """
        return {}
