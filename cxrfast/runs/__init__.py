"""The folder of a run: its files, its settings and its weights."""

from cxrfast.runs.directory import RunDirectory, environment, new_run, open_run
from cxrfast.runs.import_weights import PREPROCESSING, PRESETS, Imported, import_weights
from cxrfast.runs.settings import load_config
from cxrfast.runs.weights import load_weights, read_weights, save_weights

__all__ = [
    "PREPROCESSING",
    "PRESETS",
    "Imported",
    "RunDirectory",
    "environment",
    "import_weights",
    "load_config",
    "load_weights",
    "new_run",
    "open_run",
    "read_weights",
    "save_weights",
]
