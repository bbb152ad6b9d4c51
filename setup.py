"""Compiles cxrfast's libraries against the torch that is installed. Everything else stands in pyproject.toml.

The CUDA operators are compiled where there is an nvcc of torch's CUDA version, whether or not a GPU is visible.
CXRFAST_CUDA=0 leaves them out, CXRFAST_CUDA=1 insists on them; TORCH_CUDA_ARCH_LIST chooses the GPUs, CUDA_HOME the
toolkit, MAX_JOBS how many compilers run at once.
"""

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from setuptools import setup

TORCH_TARGET = "0x020b000000000000"  # libraries built against any torch >= 2.11 load into torch 2.11 and later
VECTORISE = ["-O3", "-fopenmp-simd", "-fno-trapping-math", "-fno-math-errno"]  # flags and errno apart, same results
FLAGS = [*VECTORISE, "-g0", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"]
NVCC_FLAGS = ["-O3", "-Xcompiler=-fvisibility=hidden,-Wall,-Wextra,-Wno-unused-parameter"]
CUDA_ARCHS = ["7.5", "8.0", "9.0", "10.0", "12.0"]  # 8.0 runs on every 8.x; PTX of the last runs on later ones


def sources(*patterns: str) -> list[str]:
    return sorted(str(path) for pattern in patterns for path in Path("csrc").glob(pattern))


def quoted(text: str) -> str:
    return '"' + text.replace('"', "'") + '"'


class NoCuda(Exception):
    """Why the CUDA operators cannot be compiled."""


def output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoCuda(f"{command[0]} does not run: {error}") from error
    return done.stdout + done.stderr


def find_cuda(torch_version: str, torch_cuda: str | None) -> None:
    """Tell torch's build tools where the toolkit is and which GPUs to compile for.

    They would take the folder of a wrapper on PATH for the toolkit, and the GPUs they see for those that are meant.
    """
    if os.environ.get("CXRFAST_CUDA") == "0":
        raise NoCuda("CXRFAST_CUDA=0 was set when it was compiled")
    if torch_cuda is None:
        raise NoCuda(f"it was compiled against torch {torch_version}, which has no CUDA")
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = f"{home}/bin/nvcc" if home else shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not os.path.exists(nvcc):
        raise NoCuda(f"there was no nvcc when it was compiled ({nvcc})")
    version = re.search(r"release (\d+)\.\d+", output(nvcc, "--version"))
    top = re.search(r"TOP=(.*)", output(nvcc, "--dryrun", "-c", "none.cu"))  # a wrapper passes this on
    if version is None or top is None:
        raise NoCuda(f"{nvcc} does not say its version and folder")
    if version[1] != torch_cuda.split(".")[0]:
        raise NoCuda(f"{nvcc} is of CUDA {version[1]}, torch {torch_version} of CUDA {torch_cuda}")
    os.environ["CUDA_HOME"] = str(Path(top[1]).resolve())
    if "TORCH_CUDA_ARCH_LIST" not in os.environ:
        known = output(nvcc, "--list-gpu-arch").split()
        archs = [arch for arch in CUDA_ARCHS if f"compute_{arch.replace('.', '')}" in known]
        os.environ["TORCH_CUDA_ARCH_LIST"] = " ".join(archs) + "+PTX"


def compiled() -> dict[str, Any]:
    """What setup() needs in order to compile."""
    # Warns that no GPU is visible, which a build does not need.
    logging.getLogger("torch.utils.cpp_extension").addFilter(lambda record: "No CUDA runtime" not in str(record.msg))
    import torch

    missing = ""
    try:
        find_cuda(torch.__version__, torch.version.cuda)
    except NoCuda as reason:
        if os.environ.get("CXRFAST_CUDA") == "1":
            raise SystemExit(f"CXRFAST_CUDA=1, but {reason}") from reason
        missing = str(reason)
        print(f"cxrfast is compiled without CUDA operators: {missing}", file=sys.stderr)

    from pybind11.setup_helpers import Pybind11Extension
    from torch.utils.cpp_extension import BuildExtension, CppExtension, library_paths  # reads CUDA_HOME

    def library(name: str, files: list[str], **options: Any) -> Any:
        # Named like a Python module for setuptools' sake, yet a plain shared library: torch.ops.load_library opens it.
        options["define_macros"] = [("TORCH_TARGET_VERSION", TORCH_TARGET), *options.get("define_macros", [])]
        options["include_dirs"] = [os.path.abspath("csrc")]  # "math/mil_pool.h"
        options["extra_compile_args"] = {"cxx": FLAGS, "nvcc": NVCC_FLAGS}
        # py_limited_api: do not link torch_python
        return CppExtension(name, files, depends=sources("**/*.h", "**/*.cuh"), py_limited_api=True, **options)

    libraries = [library("cxrfast._cpu", sources("schema.cpp", "cpu/*/*.cpp"))]
    if not missing:
        libraries.append(
            library(
                "cxrfast._cuda",
                sources("cuda/*/*.cu"),
                define_macros=[("USE_CUDA", None)],
                library_dirs=library_paths(device_type="cuda"),
                libraries=["torch_cuda", "cudart_static", "rt", "dl", "pthread"],
                extra_link_args=["-Wl,--exclude-libs,libcudart_static.a"],
            )
        )
    build_info = Pybind11Extension(
        "cxrfast._build_info",
        ["csrc/build_info.cpp"],
        define_macros=[
            ("CXRFAST_TORCH_VERSION", quoted(torch.__version__)),
            ("CXRFAST_TARGET", quoted("2.11")),
            ("CXRFAST_FLAGS", quoted(" ".join(FLAGS))),
            ("CXRFAST_CUDA_ARCHS", quoted("" if missing else os.environ["TORCH_CUDA_ARCH_LIST"])),
            ("CXRFAST_CUDA_MISSING", quoted(missing)),
        ],
    )
    return {
        "ext_modules": [*libraries, build_info],
        "cmdclass": {"build_ext": BuildExtension.with_options(no_python_abi_suffix=True)},
    }


# Metadata and source archives are made without torch.
setup(**(compiled() if {"egg_info", "dist_info", "sdist"}.isdisjoint(sys.argv) else {}))
