"""The whole path on phantoms: make them, train, evaluate, localise a held-out image."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from cxrfast.data import Splits, read_chestxray14, write_phantoms
from cxrfast.evaluation import EvaluationResult, evaluate
from cxrfast.localization import localize
from cxrfast.training import RunDirectory, build_config, load_predictor, train
from cxrfast.training.run import RUNS

IMAGES = 800
IMAGE_SIZE = 128
SETTINGS: dict[str, Any] = {
    "method": "rozenberg",
    "image_size": IMAGE_SIZE,
    "epochs": 24,
    "batch_size": 16,
    "lr": 1e-3,
    "weight_decay": 1e-4,
    "lr_decay": 0.92,
    "device": "cpu",
    "options": {
        "backbone": "resnetv2_micro",
        "output_stride": 8,
        "grid": 16,
        "hidden": 128,
        "guide_channels": 16,
        "crf_kernel_size": 7,
        "crf_epochs": 4,
    },
}
"""A network that two CPU cores train in minutes. On phantoms only: see docs/papers.md for the paper's settings."""
