"""From a configuration to trained weights in a run's folder, and back to a model."""

from cxrfast.training.assessment import Assessment, evaluate_run
from cxrfast.training.config import RunConfig, build_config, load_config, save_config
from cxrfast.training.cross_validation import (
    PooledAssessment,
    cross_validate,
    evaluate_folds,
    resume_cross_validation,
)
from cxrfast.training.folds_directory import (
    CrossValidation,
    build_cross_validation,
    is_cross_validation,
    take_section,
)
from cxrfast.training.import_weights import PREPROCESSING, PRESETS, Imported, import_weights
from cxrfast.training.predictor import TrainedModel, load_predictor
from cxrfast.training.run import RunDirectory, environment, new_run, open_run
from cxrfast.training.train import resume, train

__all__ = [
    "PREPROCESSING",
    "PRESETS",
    "Assessment",
    "CrossValidation",
    "Imported",
    "PooledAssessment",
    "RunConfig",
    "RunDirectory",
    "TrainedModel",
    "build_config",
    "build_cross_validation",
    "cross_validate",
    "environment",
    "evaluate_folds",
    "evaluate_run",
    "import_weights",
    "is_cross_validation",
    "load_config",
    "load_predictor",
    "new_run",
    "open_run",
    "resume",
    "resume_cross_validation",
    "save_config",
    "take_section",
    "train",
]
