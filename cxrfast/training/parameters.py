"""Which parameters a stage trains, and their optimiser."""

from collections.abc import Sequence

import torch

from cxrfast.methods import Method, Stage
from cxrfast.training.config import RunConfig


def make_optimizer(config: RunConfig, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return cls(parameters, lr=config.lr, weight_decay=config.weight_decay)


def freeze(method: Method, stage: Stage) -> None:
    """Require gradients of the parameters that the stage trains, and of no others."""
    frozen = method.frozen
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(name.startswith(stage.trains) and not name.startswith(frozen))


def set_training(method: Method, stage: Stage) -> None:
    """Training mode for the modules that the stage trains; frozen modules keep their batch-norm statistics."""
    frozen = method.frozen
    for name, module in method.named_modules():
        module.training = f"{name}.".startswith(stage.trains) and not f"{name}.".startswith(frozen)
