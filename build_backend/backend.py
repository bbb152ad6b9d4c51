"""The PEP 517/660 build backend: setuptools', compiling against the torch that the user already has.

Listed among the static build requirements, torch would be downloaded into every isolated build environment: gigabytes,
and maybe another version than the one installed. So a torch that is new enough is borrowed from where the package is
being installed, and one is requested only where there is none.
"""

import site
import sys
from importlib.metadata import distributions
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (  # setup.py imports no torch for these
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

OLDEST_TORCH = (2, 11)
REQUIREMENT = "torch>=" + ".".join(map(str, OLDEST_TORCH))


def target_folders() -> list[str]:
    """The site-packages of the interpreter that runs the build.

    pip runs the hooks with the interpreter it installs for, and only takes these folders off `sys.path`. A front end
    that builds in a virtual environment of its own (uv, build) has an interpreter without torch: one is requested.
    """
    folders = site.getsitepackages()
    if sys.base_prefix in site.PREFIXES:  # no virtual environment, or one with --system-site-packages
        folders.append(site.getusersitepackages())
    return folders


def has_torch(folders: list[str]) -> bool:
    """Whether the torch that an import would find in these folders is new enough."""
    found = next(iter(distributions(name="torch", path=folders)), None)
    return found is not None and tuple(int(part) for part in found.version.split(".")[:2]) >= OLDEST_TORCH


def provide_torch() -> None:
    """Make `import torch` work, behind everything importable already: the build environment's own setuptools wins."""
    if has_torch(sys.path):  # it was requested, or build isolation is off
        return
    folders = target_folders()
    if not has_torch(folders):
        raise RuntimeError(f"building cxrfast needs {REQUIREMENT}: install it first, or leave build isolation on")
    sys.path.extend(folders)


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    return [] if has_torch(sys.path) or has_torch(target_folders()) else [REQUIREMENT]


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    provide_torch()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


get_requires_for_build_editable = get_requires_for_build_wheel


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    provide_torch()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
