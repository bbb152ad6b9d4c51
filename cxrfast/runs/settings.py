"""The settings of a run as they are in its `config.yaml`, before anything is validated."""

from pathlib import Path
from typing import Any

from cxrfast._files import reason
from cxrfast._yaml import read_yaml
from cxrfast.errors import CxrfastError, UsageError

CROSS_VALIDATION = "cross_validation"
"""The section of `config.yaml` that makes a folder that of a cross-validation."""


def load_config(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, not yet validated."""
    try:
        settings = read_yaml(path)
    except OSError as error:
        raise UsageError(f"config: cannot read {path}: {reason(error)}") from error
    except ValueError as error:
        raise CxrfastError(f"config: {path} is not valid YAML: {reason(error)}") from error
    if not _is_mapping(settings):
        raise CxrfastError(f"config: expected 'name: value' lines in {path}, got {settings!r:.80}")
    settings["options"] = settings.get("options") or {}
    if not _is_mapping(settings["options"]):
        raise CxrfastError(
            f"config: expected 'name: value' lines under options in {path}, got {settings['options']!r:.80}"
        )
    return settings


def _is_mapping(settings: Any) -> bool:
    return isinstance(settings, dict) and all(isinstance(name, str) for name in settings)
