"""From a configuration to trained weights in a run's folder, and back to a model."""

from cxrfast.training.assessment import Assessment, evaluate_run
from cxrfast.training.config import RunConfig, build_config, load_config, save_config
from cxrfast.training.import_weights import PREPROCESSING, PRESETS, Imported, import_weights
from cxrfast.training.predictor import TrainedModel, load_predictor
from cxrfast.training.run import RunDirectory, environment, new_run, open_run
from cxrfast.training.train import resume, train

__all__ = [
    "PREPROCESSING",
    "PRESETS",
    "Assessment",
    "Imported",
    "RunConfig",
    "RunDirectory",
    "TrainedModel",
    "build_config",
    "environment",
    "evaluate_run",
    "import_weights",
    "load_config",
    "load_predictor",
    "new_run",
    "open_run",
    "resume",
    "save_config",
    "train",
]
