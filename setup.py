"""Compiles cxrfast's libraries against the torch that is installed. Everything else stands in pyproject.toml."""

import logging
import sys
from pathlib import Path
from typing import Any

from setuptools import setup

TORCH_TARGET = "0x020b000000000000"  # libraries built against any torch >= 2.11 load into torch 2.11 and later
VECTORISE = ["-O3", "-fopenmp-simd", "-fno-trapping-math", "-fno-math-errno"]  # flags and errno apart, same results
FLAGS = [*VECTORISE, "-g0", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"]


def sources(*patterns: str) -> list[str]:
    return sorted(str(path) for pattern in patterns for path in Path("csrc").glob(pattern))


def quoted(text: str) -> str:
    return f'"{text}"'


def compiled() -> dict[str, Any]:
    """What setup() needs in order to compile."""
    # Warns that no GPU is visible, which a build does not need.
    logging.getLogger("torch.utils.cpp_extension").addFilter(lambda record: "No CUDA runtime" not in str(record.msg))
    import torch
    from pybind11.setup_helpers import Pybind11Extension
    from torch.utils.cpp_extension import BuildExtension, CppExtension

    # Named like a Python module for setuptools' sake, yet a plain shared library: torch.ops.load_library opens it.
    cpu_library = CppExtension(
        "cxrfast._cpu",
        sources("schema.cpp", "cpu/*.cpp"),
        depends=sources("*/*.h"),
        py_limited_api=True,  # do not link torch_python
        define_macros=[("TORCH_TARGET_VERSION", TORCH_TARGET)],
        extra_compile_args={"cxx": FLAGS},
    )
    build_info = Pybind11Extension(
        "cxrfast._build_info",
        ["csrc/build_info.cpp"],
        define_macros=[
            ("CXRFAST_TORCH_VERSION", quoted(torch.__version__)),
            ("CXRFAST_TARGET", quoted("2.11")),
            ("CXRFAST_FLAGS", quoted(" ".join(FLAGS))),
            ("CXRFAST_CUDA_ARCHS", quoted("")),
        ],
    )
    return {
        "ext_modules": [cpu_library, build_info],
        "cmdclass": {"build_ext": BuildExtension.with_options(no_python_abi_suffix=True)},
    }


# Metadata and source archives are made without torch.
setup(**(compiled() if {"egg_info", "dist_info", "sdist"}.isdisjoint(sys.argv) else {}))
