"""Learning-rate schedules, and the legs (ranges of epochs) in which a stage is trained."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch.optim import Optimizer
from torch.optim.lr_scheduler import MultiStepLR, StepLR

from cxrfast.methods import Stage
from cxrfast.training.config import RunConfig


@dataclass(frozen=True)
class Leg:
    """Consecutive epochs of a stage.

    Normally a stage is one leg. The schedule "search" tries several epochs E after which the learning rate is divided
    once. It trains a trunk at the initial learning rate up to the largest E, and from each E a branch at the divided
    rate. The epochs that these trials have in common are thus trained only once. Trunk and branch together give the
    same numbers as a run with the only milestone E.
    """

    stage: int  # index of the stage
    first: int  # epochs of the stage before the leg
    last: int  # epochs of the stage at the end of the leg
    divided_after: int | None = None  # E of a branch
    forks: tuple[int, ...] = ()  # epochs after which branches start from a trunk

    @property
    def epochs(self) -> int:
        return self.last - self.first


def plan_legs(stages: Sequence[Stage], config: RunConfig) -> tuple[Leg, ...]:
    """The legs of all stages, in training order."""
    legs = []
    for number, stage in enumerate(stages):
        tried = _tried(stage.epochs, config) if config.lr_schedule == "search" else ()
        legs.append(Leg(number, 0, max(tried, default=stage.epochs), forks=tried))
        legs += [Leg(number, e, stage.epochs, divided_after=e) for e in tried]
    return tuple(legs)


def _tried(epochs: int, config: RunConfig) -> tuple[int, ...]:
    """The E that a search tries in a stage. A stage of one epoch has none; its learning rate is not divided."""
    return tuple(e for e in config.lr_milestones or _thirds(epochs) if 0 < e < epochs)


def _thirds(epochs: int) -> list[int]:
    """A third, half and two thirds of the epochs: 10, 15 and 20 of 30."""
    return sorted({epochs // 3, epochs // 2, 2 * epochs // 3})


class Schedule(Protocol):
    """Sets the learning rate of an optimiser between epochs."""

    def step(self, score: float | None) -> None:
        """To be called after every epoch with its validation score; None if there is none."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def make_schedule(optimizer: Optimizer, config: RunConfig) -> Schedule:
    """The schedule of one leg. In a search, the rate is constant within a leg."""
    if config.lr_schedule == "plateau":
        return DividedOnce(optimizer, factor=config.lr_decay, patience=config.lr_patience)
    if config.lr_schedule == "search":
        return _Fixed(MultiStepLR(optimizer, [], gamma=config.lr_decay))
    if config.lr_schedule == "milestones":
        return _Fixed(MultiStepLR(optimizer, list(config.lr_milestones), gamma=config.lr_decay))
    return _Fixed(StepLR(optimizer, config.lr_step, gamma=config.lr_decay))


def divide(optimizer: Optimizer, factor: float) -> None:
    """Multiply the learning rate by `factor`."""
    for group in optimizer.param_groups:
        group["lr"] *= factor


class _Fixed:
    """A torch scheduler, which ignores the score."""

    def __init__(self, scheduler: StepLR | MultiStepLR) -> None:
        self.scheduler = scheduler

    def step(self, score: float | None) -> None:
        with warnings.catch_warnings():
            # In a run that resumes after the last batch of an epoch, the optimiser made its steps in another process.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state)


class DividedOnce:
    """Multiplies the learning rate by `factor` once, after `patience` consecutive epochs without a better score.

    Epochs without a score are ignored.
    """

    def __init__(self, optimizer: Optimizer, *, factor: float, patience: int) -> None:
        self.optimizer, self.factor, self.patience = optimizer, factor, patience
        self.best, self.waited, self.divided = float("-inf"), 0, False

    def step(self, score: float | None) -> None:
        if self.divided or score is None:
            return
        self.waited = 0 if score > self.best else self.waited + 1
        self.best = max(score, self.best)
        if self.waited >= self.patience:
            divide(self.optimizer, self.factor)
            self.divided = True

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "divided": self.divided}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited, self.divided = state["best"], state["waited"], state["divided"]
