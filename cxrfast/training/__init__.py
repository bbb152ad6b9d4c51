"""Training: reads a configuration and writes trained weights to the folder of a run."""

from cxrfast.runs.settings import load_config
from cxrfast.training.config import RunConfig, build_config, save_config
from cxrfast.training.train import resume, train

__all__ = [
    "RunConfig",
    "build_config",
    "load_config",
    "resume",
    "save_config",
    "train",
]
