"""Compiles cxrfast's libraries against the torch that is installed. Everything else stands in pyproject.toml."""

from pathlib import Path

import torch
from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

TORCH_TARGET = "0x020b000000000000"  # libraries built against any torch >= 2.11 load into torch 2.11 and later
FLAGS = ["-O3", "-g0", "-fopenmp-simd", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"]


def sources(*patterns: str) -> list[str]:
    return sorted(str(path) for pattern in patterns for path in Path("csrc").glob(pattern))


def quoted(text: str) -> str:
    return f'"{text}"'


# Named like Python modules for setuptools' sake, yet plain shared libraries: torch.ops.load_library opens them.
cpu_library = CppExtension(
    "cxrfast._cpu",
    sources("schema.cpp", "cpu/*.cpp"),
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

setup(
    ext_modules=[cpu_library, build_info],
    cmdclass={"build_ext": BuildExtension.with_options(no_python_abi_suffix=True)},
)
