"""Loads the compiled operator libraries, and remembers why one could not be loaded.

The CPU library is part of every installation. The CUDA library exists only if nvcc and a CUDA
build of torch were found at installation. Without it, an operator that is called on a CUDA tensor raises the message of
:func:`cuda_error`; everything else works.
"""

from pathlib import Path

import torch

_PACKAGE = Path(__file__).parent


def _load_cpu() -> None:
    path = _PACKAGE / "_cpu.so"
    if not path.exists():
        raise ImportError(
            f"cxrfast: {path} is missing: the package was not compiled; run `pip install .` in its source"
        )
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise ImportError(f"cxrfast: cannot load {path} under torch {torch.__version__}: {error}") from error


def _load_cuda() -> str | None:
    path = _PACKAGE / "_cuda.so"
    if not path.exists():
        from cxrfast import _build_info  # type: ignore[attr-defined]  # compiled

        reason = f" ({_build_info.cuda_missing})" if _build_info.cuda_missing else ""
        return f"this installation of cxrfast has no CUDA operators{reason}; move the tensors to the CPU"
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return f"the CUDA operators of cxrfast cannot be loaded under torch {torch.__version__}: {error}"
    return None


_load_cpu()
_cuda_error = _load_cuda()


def cuda_error() -> str | None:
    """Why the operators do not run on CUDA tensors; None if they do."""
    return _cuda_error
