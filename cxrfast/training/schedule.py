"""How the learning rate falls, and in which stretches of epochs a stage is trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch.optim import Optimizer
from torch.optim.lr_scheduler import MultiStepLR, StepLR

from cxrfast.methods import Stage
from cxrfast.training.config import RunConfig


@dataclass(frozen=True)
class Leg:
    """Epochs of a stage, one after the other, from one state of the weights.

    A stage has one leg, unless several E are tried ("search"): then a trunk without division up to the largest E, and a
    branch from each E on. So what the E have in common is trained once, and trunk and branch together are, number for
    number, a run whose only milestone is E.
    """

    stage: int  # its number
    first: int  # epochs of the stage that are done before it
    last: int  # epochs of the stage that are done after it
    divided_after: int | None = None  # of a branch: E
    forks: tuple[int, ...] = ()  # of a trunk: the epochs after which a branch begins

    @property
    def epochs(self) -> int:
        return self.last - self.first


def plan_legs(stages: Sequence[Stage], config: RunConfig) -> tuple[Leg, ...]:
    """What is trained, in order."""
    legs = []
    for number, stage in enumerate(stages):
        tried = _tried(stage.epochs, config) if config.lr_schedule == "search" else ()
        legs.append(Leg(number, 0, max(tried, default=stage.epochs), forks=tried))
        legs += [Leg(number, e, stage.epochs, divided_after=e) for e in tried]
    return tuple(legs)


def _tried(epochs: int, config: RunConfig) -> tuple[int, ...]:
    """The E of a search over a stage; none, and so no division, where it has but one epoch."""
    return tuple(e for e in config.lr_milestones or _thirds(epochs) if 0 < e < epochs)


def _thirds(epochs: int) -> list[int]:
    """A third, half and two thirds: 10, 15 and 20 of 30 epochs."""
    return sorted({epochs // 3, epochs // 2, 2 * epochs // 3})


class Schedule(Protocol):
    """Sets the learning rate of an optimiser between epochs."""

    def step(self, score: float | None) -> None:
        """Called after every epoch with its validation score, None if nothing could be measured."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def make_schedule(optimizer: Optimizer, config: RunConfig) -> Schedule:
    """That of one leg. In a search it is a constant rate: the legs are what differs."""
    if config.lr_schedule == "plateau":
        return DividedOnce(optimizer, factor=config.lr_decay, patience=config.lr_patience)
    if config.lr_schedule == "search":
        return _Fixed(MultiStepLR(optimizer, [], gamma=config.lr_decay))
    if config.lr_schedule == "milestones":
        return _Fixed(MultiStepLR(optimizer, list(config.lr_milestones), gamma=config.lr_decay))
    return _Fixed(StepLR(optimizer, config.lr_step, gamma=config.lr_decay))


def divide(optimizer: Optimizer, factor: float) -> None:
    """The learning rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] *= factor


class _Fixed:
    """A schedule of torch's, which looks at no score."""

    def __init__(self, scheduler: StepLR | MultiStepLR) -> None:
        self.scheduler = scheduler

    def step(self, score: float | None) -> None:
        self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state)


class DividedOnce:
    """The rate times `factor`, exactly once: after the first `patience` epochs in a row without a better score.

    Epochs whose score could not be measured count as neither better nor worse.
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
